"""Counts of trials: laws of adding and taking away, quantiles, and what a record says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.promotion.replicas import ReportRefused
from components.promotion.trial_counts import BUCKETS, Arm, Pairs, TrialCounts, quantile, read_report

NUMBERS = st.integers(0, 10**6)


@st.composite
def arms(draw):
    requests, rated = draw(NUMBERS), draw(NUMBERS)
    bad = {name: draw(st.integers(0, requests)) for name in ("errors", "slow", "none_routed")}
    return Arm(requests=requests, rated=rated, complaints=draw(st.integers(0, rated)), **bad)


@st.composite
def pairs(draw):
    compared = draw(st.integers(0, 1000))

    def two():
        first = draw(st.integers(0, compared))
        return first, draw(st.integers(0, compared - first))

    return Pairs(compared=compared, agreed=draw(st.integers(0, compared)), errors=two(), slow=two(), none_routed=two())


@st.composite
def counts(draw):
    durations = st.lists(NUMBERS, min_size=len(BUCKETS), max_size=len(BUCKETS))
    return TrialCounts.model_validate(
        {
            "counts": {"champion": draw(arms()).model_dump(), "candidate": draw(arms()).model_dump()},
            "pairs": draw(st.none() | pairs().map(Pairs.model_dump)),
            "latency": {"champion": draw(durations), "candidate": draw(durations)},
        }
    )


@given(counts(), counts())
def test_a_batch_and_what_was_before_make_what_is_now(before, batch):
    now = before.plus(batch)
    assert now == batch.plus(before)
    left = now.minus(before)
    assert left.counts == batch.counts
    assert left.latency == batch.latency
    assert left.pairs == batch.pairs or (batch.pairs is None and left.pairs == Pairs())


@given(counts())
def test_nothing_comes_of_the_same_report_twice(one):
    assert one.minus(one).counts == TrialCounts().counts
    assert one.plus(TrialCounts()) == one


@given(counts(), arms())
def test_counts_never_shrink(one, more):
    if more.requests:
        grown = one.plus(TrialCounts.model_validate({"counts": {"champion": more.model_dump()}}))
        with pytest.raises(ReportRefused, match="counts that only grow"):
            one.minus(grown)


@pytest.mark.parametrize(
    ("buckets", "share", "bound"),
    [
        ([10] + [0] * 10, 0.5, 0.05),
        ([5, 0, 0, 5] + [0] * 7, 0.5, 0.05),
        ([5, 0, 0, 5] + [0] * 7, 0.51, 0.5),
        ([99, 0, 0, 0, 0, 0, 1] + [0] * 4, 0.99, 0.05),
        ([98, 0, 0, 0, 0, 0, 2] + [0] * 4, 0.99, 5.0),
        ([0] * 10 + [3], 0.5, None),
        ([0] * 11, 0.5, None),
        ([0, 7] + [0] * 9, 0.01, 0.1),
    ],
)
def test_quantiles_are_bounds_of_buckets(buckets, share, bound):
    assert quantile(buckets, share) == bound


def test_a_report_with_only_its_number_counts_nothing():
    assert read_report({"id": 3}).total == TrialCounts()


@pytest.mark.parametrize("value", [{"id": 0}, {"id": "1"}, {"id": True}, {"id": 2**31}, {"id": 1, "changed": 3}, {}])
def test_what_is_no_report_is_refused_in_words(value):
    with pytest.raises(ReportRefused, match="the report on a trial is refused"):
        read_report(value)
