import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.grouping.calibration import (
    CalibrationError,
    Pair,
    Rate,
    calibrate,
    calibrate_requests,
    risk_coverage,
)

SIMILARITIES = st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=1, max_size=40)


def pairs(same, different):
    return [Pair(s, same=True) for s in same] + [Pair(s, same=False) for s in different]


def test_separable_pairs_get_the_middle_of_the_gap_and_its_inner_half_as_band():
    found = calibrate(pairs([0.6, 0.7, 0.9], [0.1, 0.2]))
    assert (found.threshold, found.review_band) == (0.4, 0.1)
    assert found.wrong_joins.count == found.missed_joins.count == found.for_review.count == 0
    assert json.loads(json.dumps(found.to_json()))["wrong_joins"]["total"] == 2


def test_the_bound_decides_how_many_hard_pairs_are_given_up():
    hard = pairs([0.5, 0.8], [0.1, 0.2, 0.3, 0.7])
    assert calibrate(hard, wrong_joins=0.0).threshold == 0.75
    assert calibrate(hard, wrong_joins=0.25).threshold == 0.5
    assert calibrate(hard, wrong_joins=0.25).wrong_joins.count == 1


@settings(max_examples=100, deadline=None)
@given(SIMILARITIES, SIMILARITIES, st.sampled_from([0.0, 0.07, 0.3]))
def test_no_more_wrong_joins_than_the_bound_and_no_lower_stretch_would_do(same, different, bound):
    try:
        found = calibrate(pairs(same, different), wrong_joins=bound, decimals=6)
    except CalibrationError:
        assert sum(d == max(different) for d in different) > bound * len(different)
        return
    assert found.wrong_joins.share <= bound + 1e-9
    below = max((d for d in different if d < found.threshold), default=0.0)
    lower = np.nextafter(below, 0)
    assert below == 0 or sum(d >= lower for d in different) > bound * len(different) - 1e-9
    assert found.missed_joins.count == sum(s <= found.threshold - found.review_band for s in same)


def test_wilson_interval_against_its_formula():
    count, total, z = 4, 60, 1.959963984540054
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    rate = Rate.of(count, total)
    assert (rate.low, rate.high) == pytest.approx((middle - half, middle + half))
    assert (Rate.of(0, 0).low, Rate.of(0, 0).high, Rate.of(0, 0).share) == (0.0, 1.0, 0.0)


@settings(max_examples=100, deadline=None)
@given(SIMILARITIES, st.sampled_from([0.5, 0.95, 0.975, 1.0]))
def test_request_threshold_is_the_least_that_keeps_the_share_out(foreign, share):
    def kept_out(threshold):
        return sum(value < threshold for value in foreign)

    threshold = calibrate_requests(foreign, none_share=share)
    assert kept_out(threshold) >= share * len(foreign) - 1e-9
    assert kept_out(round(threshold - 0.01, 2)) < share * len(foreign) or threshold == 0.01


def test_risk_coverage_against_counting():
    similarity = [0.9, 0.8, 0.8, 0.4, 0.1]
    right = [True, True, False, True, False]
    curve = risk_coverage(similarity, right)
    assert [p.threshold for p in curve] == [0.9, 0.8, 0.4, 0.1]
    assert [p.coverage.count for p in curve] == [1, 3, 4, 5]
    assert [p.risk.count for p in curve] == [0, 1, 1, 2]
    assert curve[-1].risk.total == 5


@pytest.mark.parametrize(
    "call",
    [
        lambda: calibrate(pairs([0.5], [])),
        lambda: calibrate(pairs([], [0.5])),
        lambda: calibrate(pairs([1.5], [0.5])),
        lambda: calibrate(pairs([0.5], [1.0, 1.0]), wrong_joins=0.5),
        lambda: calibrate_requests([]),
        lambda: risk_coverage([0.5], [True, False]),
        lambda: risk_coverage([], []),
    ],
)
def test_what_cannot_be_calibrated_is_refused(call):
    with pytest.raises(CalibrationError, match=r"expected|raise the bound"):
        call()
