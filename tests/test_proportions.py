import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from components.proportions import ProportionError, wilson_interval

COUNTS = st.integers(1, 500).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@given(COUNTS, st.sampled_from([0.05, 0.025, 0.005]))
def test_wilson_equals_scipys(counts, alpha):
    count, total = counts
    share = wilson_interval(count, total, alpha)
    expected = binomtest(count, total).proportion_ci(1 - 2 * alpha, method="wilson")
    assert (share.low, share.high) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high, abs=1e-12))
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_wilson_equals_the_published_interval():
    interval = wilson_interval(81, 263)  # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)


def test_without_a_trial_nothing_is_known():
    nothing = wilson_interval(0, 0)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 1)


@pytest.mark.parametrize(("count", "total"), [(5, 0), (6, 5), (-1, 5)])
def test_a_count_beyond_its_total_is_refused(count, total):
    with pytest.raises(ProportionError, match="between 0 and the total"):
        wilson_interval(count, total)
