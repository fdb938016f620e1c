"""The sequential test: exact laws on small tables, its level over long trials, and its power."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, nchypergeom_fisher

from components.gate.sequential import FACTORS, MOST_EVENTS, CountsRefused, SequentialTest, threshold

LEVEL = 0.05
TOLERANCE = 1.25


def slow_ratio(n1: int, k1: int, n0: int, k0: int, w: float, tolerance: float) -> float:
    """The likelihood ratio of a batch as scipy's distribution has it."""
    sizes = (n1 + n0, n1, k1 + k0)
    return float(nchypergeom_fisher.pmf(k1, *sizes, w) / nchypergeom_fisher.pmf(k1, *sizes, tolerance))


@st.composite
def tables(draw):
    n1, n0 = draw(st.integers(0, 25)), draw(st.integers(0, 25))
    return n1, draw(st.integers(0, n1)), n0, draw(st.integers(0, n0))


@given(tables(), st.floats(1, 4))
@settings(max_examples=60, deadline=None)
def test_a_batch_is_the_likelihood_ratio_of_fishers_distribution(table, tolerance):
    test = SequentialTest(tolerance).unpaired(*table)
    for factor, log in zip(FACTORS, test.logs, strict=True):
        assert log == pytest.approx(math.log(slow_ratio(*table, factor * tolerance, tolerance)), abs=1e-6)


@given(st.integers(0, 40), st.integers(0, 40), st.floats(1, 4))
def test_pairs_are_the_likelihood_ratio_of_the_binomial(ours, theirs, tolerance):
    test = SequentialTest(tolerance).paired(ours, theirs)
    for factor, log in zip(FACTORS, test.logs, strict=True):
        w = factor * tolerance
        expected = binom.logpmf(ours, ours + theirs, w / (1 + w))
        expected -= binom.logpmf(ours, ours + theirs, tolerance / (1 + tolerance))
        assert log == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("n1", "n0", "bad"), [(1, 1, 1), (3, 9, 4), (10, 2, 5), (8, 8, 8), (2, 30, 3), (12, 12, 24)])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("together", [1, 3])
def test_the_mean_of_every_table_is_at_most_one_up_to_the_tolerated_ratio(n1, n0, bad, share, together):
    ratio = share * TOLERANCE
    counts = range(max(0, bad - n0), min(n1, bad) + 1)
    mean = sum(
        nchypergeom_fisher.pmf(k, n1 + n0, n1, bad, ratio)
        * SequentialTest(TOLERANCE, together).unpaired(n1, k, n0, bad - k).e
        for k in counts
    )
    assert mean <= 1 + 1e-6
    if share == together == 1:
        assert mean == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("pairs", [0, 1, 7, 30])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_the_mean_over_pairs_is_at_most_one_up_to_the_tolerated_ratio(pairs, share):
    ratio = share * TOLERANCE
    mean = sum(
        binom.pmf(k, pairs, ratio / (1 + ratio)) * SequentialTest(TOLERANCE).paired(k, pairs - k).e
        for k in range(pairs + 1)
    )
    assert mean <= 1 + 1e-9


@given(st.lists(tables(), max_size=6), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=4))
@settings(max_examples=60, deadline=None)
def test_order_does_not_matter_and_the_state_survives_json(batches, pairs):
    test = SequentialTest(TOLERANCE)
    for batch in batches:
        test = test.unpaired(*batch)
    for pair in pairs:
        test = test.paired(*pair)
    back = SequentialTest(TOLERANCE)
    for pair in reversed(pairs):
        back = SequentialTest.of_json(back.paired(*pair).to_json())
    for batch in reversed(batches):
        back = back.unpaired(*batch)
    assert back.logs == pytest.approx(test.logs, abs=1e-9)
    assert test.e > 0


@given(tables())
@settings(max_examples=60, deadline=None)
def test_one_more_bad_answer_of_the_candidate_never_speaks_for_it(table):
    n1, k1, n0, k0 = table
    if k1 < n1 and k0 > 0:  # with the number of bad ones as it is
        worse = SequentialTest(TOLERANCE).unpaired(n1, k1 + 1, n0, k0 - 1)
        assert worse.log_e >= SequentialTest(TOLERANCE).unpaired(*table).log_e - 1e-9


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 5))
def test_pairs_that_come_in_bursts_count_as_bursts(ours, theirs, burst):
    bursts = SequentialTest(TOLERANCE, burst).paired(burst * ours, burst * theirs)
    assert bursts.logs == pytest.approx(SequentialTest(TOLERANCE).paired(ours, theirs).logs, abs=1e-9)


def test_batches_that_can_say_nothing_change_nothing():
    test = SequentialTest(TOLERANCE)
    for empty in [(0, 0, 0, 0), (50, 0, 50, 0), (10, 5, 0, 0), (0, 0, 10, 5), (10, 10, 10, 10)]:
        assert test.unpaired(*empty).logs == pytest.approx(test.logs, abs=1e-12)
    assert test.paired(0, 0) == test


@pytest.mark.parametrize("batch", [(5, 6, 9, 0), (-1, 0, 1, 0), (5, -1, 5, 0), (5, 0, 5, 6), (10**9, 10**9, 1, 1)])
def test_impossible_counts_are_refused(batch):
    with pytest.raises(CountsRefused, match="expected"):
        SequentialTest(TOLERANCE).unpaired(*batch)


def test_negative_pairs_are_refused():
    with pytest.raises(CountsRefused, match="expected 0 or more"):
        SequentialTest(TOLERANCE).paired(-1, 3)


def test_large_batches_are_finite():
    test = SequentialTest(TOLERANCE).unpaired(10**9, MOST_EVENTS // 2, 10**9, MOST_EVENTS // 2)
    assert all(map(math.isfinite, test.logs))
    assert test.e < 1
    assert math.isfinite(SequentialTest(TOLERANCE).paired(10**9, 1).e)


def stops(
    rng: np.random.Generator, trials: int, looks: int, p0: float, ratio: float, paired: bool, burst: int = 1
) -> float:
    """Share of simulated trials that reach one rule's threshold at any of many looks; requests come in bursts."""
    odds = ratio * p0 / (1 - p0)
    p1, limit, stopped = odds / (1 + odds), threshold(LEVEL, 1), 0
    for _ in range(trials):
        test = SequentialTest(TOLERANCE, burst)
        for _ in range(looks):
            if paired:  # independent within a pair: ratio of discordant pairs is the ratio of odds
                ours, theirs = rng.random(60) < p1, rng.random(60) < p0
                test = test.paired(burst * int((ours & ~theirs).sum()), burst * int((theirs & ~ours).sum()))
            else:
                n1 = int(rng.integers(1, 12))
                n0 = 60 - n1
                k1, k0 = int(rng.binomial(n1, p1)), int(rng.binomial(n0, p0))
                test = test.unpaired(*(burst * n for n in (n1, k1, n0, k0)))
            if test.reaches(limit):
                stopped += 1
                break
    return stopped / trials


@pytest.mark.parametrize("burst", [1, 3])
@pytest.mark.parametrize("paired", [False, True])
def test_however_long_one_looks_a_harmless_candidate_is_rarely_stopped(paired, burst):
    trials, looks = (200, 200) if paired else (80, 50)  # tables take longer than pairs
    share = stops(np.random.default_rng(5), trials, looks, 0.05, TOLERANCE, paired, burst)
    assert share <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / trials)


@pytest.mark.parametrize("paired", [False, True])
def test_a_candidate_with_four_times_the_odds_is_stopped(paired):
    assert stops(np.random.default_rng(6), 60, 120, 0.05, 4 * TOLERANCE, paired) > 0.95


def test_rules_share_the_level():
    assert threshold(0.05, 4) == 80
