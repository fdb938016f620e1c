import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from components.evaluation.statistics import (
    StatisticsError,
    bootstrap_interval,
    compare,
    drop_p_values,
    holm,
    p_value,
    tango_interval,
    tango_p_value,
    tango_statistic,
    within_margin,
)


@pytest.mark.parametrize(
    ("lost", "won", "rows", "low", "high"),
    [
        (1, 7, 21, -0.517, -0.026),  # Fagerland, Lydersen, Laake 2014, airway hyper-responsiveness
        (6, 16, 161, -0.1240, -0.0054),  # the same, complete response before and after consolidation
    ],
)
def test_tango_equals_published_intervals(lost, won, rows, low, high):
    interval = tango_interval(lost, won, rows, 0.025)
    digits = 3 if rows == 21 else 4
    assert round(interval.low, digits) == low
    assert round(interval.high, digits) == high


def test_tango_equals_his_own_examples():
    """Tango 1998, Statistics in Medicine 17, 891-908, sections 6.1 (contact lenses) and 6.2 (sleeping difficulties)."""
    lenses, sleep = tango_interval(1, 0, 44, 0.05), tango_interval(9, 3, 32, 0.025)
    assert round(-lenses.high, 3) == -0.096
    assert round(float(tango_statistic(0, 1, 44, -0.1)), 3) == pytest.approx(1.709, abs=0.0011)
    assert (round(sleep.low, 3), round(sleep.high, 3)) == (-0.027, 0.390)


def restricted_likelihood_statistic(lost, won, rows, delta):
    """Oracle: the nuisance parameter by a fine grid search of the likelihood instead of the closed form."""
    q = np.linspace(max(0.0, -delta) + 1e-9, min(1.0, (1 - delta) / 2) - 1e-9, 400_001)
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = (
            np.where(lost > 0, lost * np.log(q + delta), 0.0)
            + np.where(won > 0, won * np.log(q), 0.0)
            + np.where(rows - lost - won > 0, (rows - lost - won) * np.log(1 - 2 * q - delta), 0.0)
        )
    best = q[np.nanargmax(likelihood)]
    return (lost - won - rows * delta) / np.sqrt(rows * (2 * best + delta * (1 - delta)))


@pytest.mark.parametrize(("lost", "won", "rows"), [(6, 2, 200), (12, 20, 200), (0, 3, 50), (4, 0, 60)])
@pytest.mark.parametrize("delta", [0.01, 0.05, 0.2])
def test_tango_statistic_maximises_the_restricted_likelihood(lost, won, rows, delta):
    expected = restricted_likelihood_statistic(lost, won, rows, delta)
    assert float(tango_statistic(lost, won, rows, delta)) == pytest.approx(expected, abs=2e-3)


COUNTS = st.integers(1, 400).flatmap(
    lambda rows: st.tuples(st.integers(0, rows), st.integers(0, rows), st.just(rows)).filter(
        lambda c: c[0] + c[1] <= rows
    )
)


@settings(max_examples=150, deadline=None)
@given(COUNTS, st.sampled_from([0.025, 0.05, 0.0125]))
def test_tango_laws(counts, alpha):
    lost, won, rows = counts
    interval = tango_interval(lost, won, rows, alpha)
    assert -1 <= interval.low <= interval.value <= interval.high <= 1
    mirrored = tango_interval(won, lost, rows, alpha)
    assert mirrored.high == pytest.approx(-interval.low, abs=1e-9)
    wider = tango_interval(lost, won, rows, alpha / 4)
    assert wider.low <= interval.low
    assert wider.high >= interval.high
    for margin in (0.01, 0.05, 0.3):
        inside = bool(within_margin(np.array([lost]), np.array([won]), rows, margin, alpha)[0])
        if abs(interval.high - margin) > 1e-9:
            assert inside == (interval.high <= margin)
        if tango_p_value(lost, won, rows, margin) < alpha - 1e-9:
            assert interval.low >= margin - 1e-9


def test_no_difference_still_has_the_width_the_rows_allow():
    z2 = norm.isf(0.05) ** 2
    expected = z2 / (200 + z2)
    same = [1.0, 0.0] * 100
    assert compare(same, same, 0.05).high == pytest.approx(expected)
    half = [0.25, 0.5] * 100
    result = compare(half, half, 0.05)
    assert (result.method, result.changed, result.drop) == ("bootstrap", 0, 0.0)
    assert result.high == pytest.approx(expected)
    assert p_value(half, half, 0.0) == 1.0


def test_bootstrap_is_close_to_tango_on_hits_and_repeatable():
    generator = np.random.default_rng(3)
    reference = (generator.random(200) < 0.8).astype(float)
    candidate = np.where(generator.random(200) < 0.12, 1 - reference, reference)
    tango = compare(reference, candidate, 0.05)
    boot = bootstrap_interval(reference - candidate, 0.05)
    assert boot == bootstrap_interval(reference - candidate, 0.05)
    assert boot.low == pytest.approx(tango.low, abs=0.01)
    assert boot.high == pytest.approx(tango.high, abs=0.01)
    graded = compare(reference * 0.9, candidate * 0.9, 0.05)
    assert graded.method == "bootstrap"
    assert graded.low < graded.drop < graded.high


def test_bootstrap_p_value_agrees_with_its_bound():
    generator = np.random.default_rng(5)
    reference = generator.uniform(0.5, 1.0, 150)
    candidate = reference - generator.uniform(0.05, 0.2, 150)
    assert p_value(reference, candidate, 0.05) < 0.05
    assert p_value(reference, candidate, 0.4) > 0.9
    assert compare(reference, candidate, 0.05).low > 0.05


def test_a_few_rows_that_lose_alike_prove_nothing():
    reference, candidate = [0.9] * 5, [0.8] * 5
    assert p_value(reference, candidate, 0.06) > 0.05
    assert compare(reference, candidate, 0.05).low < 0.06
    assert p_value(reference * 100, candidate * 100, 0.06) < 0.05


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30),
    st.sampled_from([0.0, 0.02, 0.06]),
    st.sampled_from([0.05, 0.0125]),
)
def test_a_drop_shown_by_its_p_value_is_shown_by_its_bound(pairs, margin, alpha):
    left, right = zip(*pairs, strict=True)
    p = p_value(left, right, margin)
    assert 0 <= p <= 1
    if p < alpha:
        assert compare(left, right, alpha).low > margin - 1e-3


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_wrong_scores_are_refused():
    with pytest.raises(StatisticsError, match="same rows"):
        compare([1.0], [1.0, 0.0], 0.05)
    with pytest.raises(StatisticsError, match="same rows"):
        compare([], [], 0.05)
    with pytest.raises(StatisticsError, match="expected 0 to 1"):
        compare([1.0, 2.0], [1.0, 0.0], 0.05)
    with pytest.raises(StatisticsError, match="expected 0 to 1"):
        compare([1.0, float("nan")], [1.0, 0.0], 0.05)
    with pytest.raises(StatisticsError, match="fit"):
        tango_interval(3, 3, 5, 0.05)
    with pytest.raises(StatisticsError, match="no rows"):
        bootstrap_interval([], 0.05)


def test_the_largest_of_several_drops_is_judged_as_resampling_judges_it():
    """Oracle: Westfall and Young's own way, by turning the sign of each difference at random."""
    generator = np.random.default_rng(3)
    counts = (40, 80, 160, 80)
    parts = [generator.choice([-1.0, 0.0, 0.0, 0.5, 1.0], n) for n in counts]
    differences, starts = np.concatenate(parts), np.cumsum([0, *counts[:-1]])
    signs = generator.choice([-1.0, 1.0], (20_000, len(differences)))
    sums = np.add.reduceat(signs * differences, starts, axis=1) / np.sqrt(counts)
    own = np.array([part.sum() / np.sqrt(len(part)) for part in parts])
    resampled = (sums.max(axis=1)[:, None] >= own).mean(axis=0)
    expected = np.where(own > 0, resampled, 1.0)
    assert drop_p_values(differences, starts) == pytest.approx(expected, abs=0.03)
    assert 0.001 < expected.min() < 0.5


def test_one_drop_is_judged_by_the_number_of_tasks():
    lost, still = np.array([1.0] * 9 + [0.0] * 91), np.array([1.0, -1.0] + [0.0] * 98)
    alone = drop_p_values(lost, np.array([0]))[0]
    assert alone == pytest.approx(norm.sf(3))
    among = drop_p_values(np.concatenate([lost, *[still] * 29]), np.arange(0, 3000, 100))
    assert among[0] == pytest.approx(norm.sf(3) + 29 * norm.sf(9 / 2**0.5), rel=0.01)
    assert (among[1:] == 1).all(), "what didn't drop on the whole is not judged"
    assert (drop_p_values(np.zeros(30), np.array([0, 10])) == 1).all()
