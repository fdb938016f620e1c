"""Statistics of paired scores. A drop is reference minus candidate, so a positive drop is forgetting.

Scores lie in [0, 1]. Scores that are all 0 or 1 are compared by Tango's score interval, others by a paired
bootstrap. All bounds are one-sided at `alpha`; a two-sided interval takes alpha / 2 on each side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from components.errors import LciaError
from components.proportions import Interval

BOOTSTRAP_DRAWS = 10_000
_STEPS = 50
_BLOCK = 1_000_000

Scores = Sequence[float] | NDArray[np.float64]


class StatisticsError(LciaError):
    """Scores that cannot be compared: none at all, different lengths, or outside [0, 1]."""


@dataclass(frozen=True)
class Comparison:
    """A mean drop with one-sided bounds at `alpha` each, over `rows` pairs of which `changed` differ."""

    drop: float
    low: float
    high: float
    alpha: float
    rows: int
    changed: int
    method: str


def tango_statistic(
    lost: NDArray[np.float64] | float,
    won: NDArray[np.float64] | float,
    rows: float,
    delta: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """Score statistic of the hypothesis that the true drop is `delta`; standard normal under it, broadcasts.

    `lost` of `rows` pairs are right in the reference only, `won` in the candidate only.
    Source: Tango 1998, Statistics in Medicine 17, 891-908, with the closed form of the restricted estimate.
    """
    lost, won, delta = (np.asarray(each, dtype=np.float64) for each in (lost, won, delta))
    b = (2 * rows - lost + won) * delta - lost - won
    c = -won * delta * (1 - delta)
    q = (np.sqrt(np.maximum(b * b - 8 * rows * c, 0)) - b) / (4 * rows)
    variance = rows * (2 * q + delta * (1 - delta))
    numerator = lost - won - rows * delta
    with np.errstate(divide="ignore", invalid="ignore"):
        z = numerator / np.sqrt(np.maximum(variance, 0))
    return np.asarray(np.where(numerator == 0, 0.0, z))


def tango_interval(lost: int, won: int, rows: int, alpha: float) -> Interval:
    """Score interval of the drop `(lost - won) / rows`, each bound one-sided at `alpha`.

    Raises:
        StatisticsError: counts that do not fit in `rows`.
    """
    if rows < 1 or lost < 0 or won < 0 or lost + won > rows:
        raise StatisticsError(
            f"{lost} lost and {won} won of {rows} pairs, expected counts that fit in at least one pair"
        )
    z = -float(ndtri(alpha))
    drop = (lost - won) / rows
    low, high = _tango_bounds(lost, won, rows, z)
    return Interval(drop, float(low), float(high))


def tango_p_value(lost: int, won: int, rows: int, margin: float) -> float:
    """One-sided p-value against the hypothesis that the true drop is at most `margin`."""
    return float(ndtr(-tango_statistic(lost, won, rows, margin)))


def bootstrap_means(values: Scores, seed: int = 0, draws: int = BOOTSTRAP_DRAWS) -> NDArray[np.float64]:
    """Means of `draws` resamples with replacement, sorted."""
    array = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(array))
    means = [
        array[generator.integers(0, len(array), (min(block, draws - start), len(array)))].mean(axis=1)
        for start in range(0, draws, block)
    ]
    return np.sort(np.concatenate(means))


def bootstrap_interval(differences: Scores, alpha: float, seed: int = 0) -> Interval:
    """Percentile bootstrap of a mean difference, never narrower than what the row count allows.

    The share of rows that truly differ could be Wilson's bound of 0 out of n without one being seen;
    differences are at most 1, so that share `z^2 / (n + z^2)` bounds an unseen mean too. The interval is at
    least that wide on each side, which also defines it when all differences are 0.

    Raises:
        StatisticsError: no differences.
    """
    array = np.asarray(differences, dtype=np.float64)
    if not len(array):
        raise StatisticsError("no rows to compare, expected at least one")
    z2 = float(ndtri(alpha)) ** 2
    unseen = z2 / (len(array) + z2)
    mean = float(array.mean())
    if not array.any():
        return Interval(0.0, -unseen, unseen)
    means = bootstrap_means(array, seed)
    low, high = float(np.quantile(means, alpha)), float(np.quantile(means, 1 - alpha))
    return Interval(mean, max(min(low, mean - unseen), -1.0), min(max(high, mean + unseen), 1.0))


def compare(reference: Scores, candidate: Scores, alpha: float, seed: int = 0) -> Comparison:
    """The drop from reference to candidate on the same rows.

    Raises:
        StatisticsError: no rows, different lengths, or scores outside [0, 1].
    """
    left, right = paired(reference, candidate)
    changed = int(np.count_nonzero(left != right))
    if is_binary(left) and is_binary(right):
        lost, won = _flips(left, right)
        interval, method = tango_interval(lost, won, len(left), alpha), "tango"
    else:
        interval, method = bootstrap_interval(left - right, alpha, seed), "bootstrap"
    return Comparison(interval.value, interval.low, interval.high, alpha, len(left), changed, method)


def p_value(reference: Scores, candidate: Scores, margin: float, seed: int = 0) -> float:
    """One-sided p-value against the hypothesis that the drop is at most `margin`; small means it is more.

    It is at most `alpha` only where the lower bound of `compare` at `alpha` is beyond the margin, so that a few
    rows that all lose alike prove nothing. Without a mean beyond the margin, as when all differences are 0, it is 1.

    Raises:
        StatisticsError: no rows, different lengths, or scores outside [0, 1].
    """
    left, right = paired(reference, candidate)
    if is_binary(left) and is_binary(right):
        return tango_p_value(*_flips(left, right), len(left), margin)
    differences = left - right
    beyond = float(differences.mean()) - margin
    if beyond <= 0 or not differences.any():
        return 1.0
    means = bootstrap_means(differences, seed)
    drawn = (1 + np.count_nonzero(means <= margin)) / (len(means) + 1)
    unseen = float(ndtr(-math.sqrt(len(left) * beyond / (1 - beyond)))) if beyond < 1 else 0.0
    return float(max(drawn, unseen))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, in the order given. Source: Holm 1979, Scand. J. Statistics 6, 65-70."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def within_margin(
    lost: NDArray[np.float64], won: NDArray[np.float64], rows: int, margin: float, alpha: float
) -> NDArray[np.bool_]:
    """Whether Tango's upper bound at `alpha` is at most `margin`, for arrays of counts."""
    return np.asarray(tango_statistic(lost, won, rows, margin) <= float(ndtri(alpha)))


def paired(reference: Scores, candidate: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as arrays, checked to pair up.

    Raises:
        StatisticsError: no rows, different lengths, or scores outside [0, 1].
    """
    left, right = np.asarray(reference, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1 or not len(left):
        raise StatisticsError(
            f"scores of {left.size} and {right.size} rows, expected the same rows in the same order, at "
            f"least one; "
            "evaluate both versions again on the same split"
        )
    for scores in (left, right):
        if not ((scores >= 0) & (scores <= 1)).all():
            raise StatisticsError(f"a score of {scores[~((scores >= 0) & (scores <= 1))][0]}, expected 0 to 1")
    return left, right


def is_binary(scores: NDArray[np.float64]) -> bool:
    """Whether every score is 0 or 1."""
    return bool(np.isin(scores, (0.0, 1.0)).all())


def _flips(left: NDArray[np.float64], right: NDArray[np.float64]) -> tuple[int, int]:
    return int(np.count_nonzero(left > right)), int(np.count_nonzero(left < right))


def _tango_bounds(lost: int, won: int, rows: int, target: float) -> NDArray[np.float64]:
    """Where the statistic is `target` in size, on both sides of the estimate, by bisection."""
    inside, outside = np.full(2, (lost - won) / rows), np.array([-1.0, 1.0])
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        near = np.abs(tango_statistic(lost, won, rows, middle)) < target
        inside, outside = np.where(near, middle, inside), np.where(near, outside, middle)
    return np.asarray((inside + outside) / 2)
