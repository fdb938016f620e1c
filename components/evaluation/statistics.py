"""Statistics of paired scores. A drop is reference minus candidate, so a positive drop is forgetting.

Scores lie in [0, 1]. Scores that are all 0 or 1 are compared by Tango's score interval, others by a paired
bootstrap. All bounds are one-sided at `alpha`; a two-sided interval takes alpha / 2 on each side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

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
    losses: NDArray[np.float64] | float,
    wins: NDArray[np.float64] | float,
    rows: float,
    delta: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """Score statistic of the hypothesis that the true drop is `delta`; standard normal under it, broadcasts.

    `losses` of `rows` pairs are right in the reference only, `wins` in the candidate only.
    Source: Tango 1998, Statistics in Medicine 17, 891-908, with the closed form of the restricted estimate.
    """
    losses, wins, delta = (np.asarray(each, dtype=np.float64) for each in (losses, wins, delta))
    b = (2 * rows - losses + wins) * delta - losses - wins
    c = -wins * delta * (1 - delta)
    q = (np.sqrt(np.maximum(b * b - 8 * rows * c, 0)) - b) / (4 * rows)
    variance = rows * (2 * q + delta * (1 - delta))
    numerator = losses - wins - rows * delta
    with np.errstate(divide="ignore", invalid="ignore"):
        z = numerator / np.sqrt(np.maximum(variance, 0))
    return np.asarray(np.where(numerator == 0, 0.0, z))


def tango_interval(losses: int, wins: int, rows: int, alpha: float) -> Interval:
    """Score interval of the drop `(losses - wins) / rows`, each bound one-sided at `alpha`.

    Raises:
        StatisticsError: counts that do not fit in `rows`.
    """
    if rows < 1 or losses < 0 or wins < 0 or losses + wins > rows:
        raise StatisticsError(
            f"{losses} lost and {wins} won of {rows} pairs, expected counts that fit in at least one pair"
        )
    z = -float(scipy.special.ndtri(alpha))
    drop = (losses - wins) / rows
    low, high = _tango_bounds(losses, wins, rows, z)
    return Interval(drop, float(low), float(high))


def tango_p_value(losses: int, wins: int, rows: int, margin: float) -> float:
    """One-sided p-value against the hypothesis that the true drop is at most `margin`."""
    return float(scipy.special.ndtr(-tango_statistic(losses, wins, rows, margin)))


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
    z2 = float(scipy.special.ndtri(alpha)) ** 2
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
    before, after = score_arrays(reference, candidate)
    count = int(np.count_nonzero(before != after))
    if is_binary(before) and is_binary(after):
        losses, wins = _flips(before, after)
        interval, method = tango_interval(losses, wins, len(before), alpha), "tango"
    else:
        interval, method = bootstrap_interval(before - after, alpha, seed), "bootstrap"
    return Comparison(interval.value, interval.low, interval.high, alpha, len(before), count, method)


def p_value(reference: Scores, candidate: Scores, margin: float, seed: int = 0) -> float:
    """One-sided p-value against the hypothesis that the drop is at most `margin`; small means it is more.

    It is at most `alpha` only if the lower bound of `compare` at `alpha` is beyond the margin, so that a few
    rows that all lose alike prove nothing. Without a mean beyond the margin, as when all differences are 0, it is 1.

    Raises:
        StatisticsError: no rows, different lengths, or scores outside [0, 1].
    """
    before, after = score_arrays(reference, candidate)
    if is_binary(before) and is_binary(after):
        return tango_p_value(*_flips(before, after), len(before), margin)
    differences = before - after
    beyond = float(differences.mean()) - margin
    if beyond <= 0 or not differences.any():
        return 1.0
    means = bootstrap_means(differences, seed)
    # one draw more than were made: a bootstrap of finitely many draws must not give 0
    estimate = (1 + np.count_nonzero(means <= margin)) / (len(means) + 1)
    unseen = float(scipy.special.ndtr(-math.sqrt(len(before) * beyond / (1 - beyond)))) if beyond < 1 else 0.0
    return float(max(estimate, unseen))


def drop_p_values(differences: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """P-value of each task's drop against the hypothesis that no task drops, adjusted for the number of tasks.

    `differences` (rows,) are reference minus candidate, task after task; `starts` (tasks,) is where each begins. Under
    the hypothesis each difference is as likely the other way round, so the variance of a task's sum is its sum of
    squares; a sum (per root of rows) is judged by the largest that all tasks could have by chance. This is max-T of
    Westfall and Young 1993, Resampling-Based Multiple Testing, with the normal limit in place of resampling. It sees a
    single drop among many tasks better than `holm` does: rows that one task loses don't widen its own yardstick alone.
    """
    roots = np.sqrt(np.diff([*starts, len(differences)]))
    sums = np.add.reduceat(differences, starts) / roots
    spreads = np.sqrt(np.add.reduceat(differences**2, starts)) / roots
    moving = spreads[spreads > 0]
    p_values = -np.expm1(scipy.special.log_ndtr(sums[:, None] / moving[None, :]).sum(axis=1))
    return np.asarray(np.where(sums > 0, p_values, 1.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, in the order given. Source: Holm 1979, Scand. J. Statistics 6, 65-70."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    results = [1.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        results[i] = highest
    return results


def within_margin(
    losses: NDArray[np.float64], wins: NDArray[np.float64], rows: int, margin: float, alpha: float
) -> NDArray[np.bool_]:
    """True if Tango's upper bound at `alpha` is at most `margin`, for arrays of counts."""
    return np.asarray(tango_statistic(losses, wins, rows, margin) <= float(scipy.special.ndtri(alpha)))


def score_arrays(reference: Scores, candidate: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as arrays, checked to pair up.

    Raises:
        StatisticsError: no rows, different lengths, or scores outside [0, 1].
    """
    before, after = np.asarray(reference, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if before.shape != after.shape or before.ndim != 1 or not len(before):
        raise StatisticsError(
            f"scores of {before.size} and {after.size} rows, expected the same rows in the same order, at "
            f"least one; "
            "evaluate both versions again on the same split"
        )
    for scores in (before, after):
        if not ((scores >= 0) & (scores <= 1)).all():
            raise StatisticsError(f"a score of {scores[~((scores >= 0) & (scores <= 1))][0]}, expected 0 to 1")
    return before, after


def is_binary(scores: NDArray[np.float64]) -> bool:
    """True if every score is 0 or 1."""
    return bool(np.isin(scores, (0.0, 1.0)).all())


def _flips(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[int, int]:
    return int(np.count_nonzero(before > after)), int(np.count_nonzero(before < after))


def _tango_bounds(losses: int, wins: int, rows: int, target: float) -> NDArray[np.float64]:
    """Drops at which the statistic is `target` in size, on both sides of the estimate, by bisection."""
    inside, outside = np.full(2, (losses - wins) / rows), np.array([-1.0, 1.0])
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        near = np.abs(tango_statistic(losses, wins, rows, middle)) < target
        inside, outside = np.where(near, middle, inside), np.where(near, outside, middle)
    return np.asarray((inside + outside) / 2)
