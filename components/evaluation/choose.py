"""Choosing a point on the stability-plasticity curve, on validation rows alone.

A point is left out only if its rows show, with confidence, that earlier tasks lose more than the margin: all of them
together, or one. Among the others the mean over all tasks of the group decides, in which a change of the earlier tasks
counts as far as it is beyond one standard error. Neither gets stricter by chance as tasks become more, as the largest
of many noisy drops does: simulated in benchmarks/gate, reasons in docs/decisions/0038.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluation.statistics import Scores, drop_p_values, p_value, score_arrays

ALPHA = 0.05
"""Probability, at most, that a point which loses nothing is left out; both tests share it."""


@dataclass(frozen=True)
class Point:
    """Validation scores of one tuned adapter, row by row: on the new task and on each prior task of its group."""

    name: str
    new: Scores
    prior: Mapping[str, Scores]


@dataclass(frozen=True)
class Loss:
    """Change of the prior tasks at one point: positive means lost.

    `mean` is over tasks, each alike, and `error` its standard error where nothing is lost; `worst` is the task that
    drops most, by `largest`. `shown` says what exceeds the margin with confidence; empty: nothing does.
    """

    tasks: int
    mean: float
    error: float
    worst: str
    largest: float
    shown: str

    @property
    def beyond(self) -> float:
        """The mean drop as far as it is beyond one standard error; negative if the tasks gained."""
        return math.copysign(max(abs(self.mean) - self.error, 0.0), self.mean)

    def to_json(self) -> dict[str, Any]:
        """For the evaluation record."""
        names = ("mean", "error", "beyond", "worst", "largest", "shown")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class PointChoice:
    """The chosen point, the reason in words, and what each point loses, by name; empty without prior tasks."""

    point: Point
    reason: str
    losses: Mapping[str, Loss]


def choose_point(points: Sequence[Point], before: Mapping[str, Scores], margin: float) -> PointChoice:
    """The point best for the group among those not shown to lose more than `margin` of prior tasks.

    `before` are the scores of the prior tasks before tuning, on the same rows. If every point is shown to lose more,
    the one that loses least on average. Ties go to the point listed first.

    Raises:
        StatisticsError: scores that don't pair up, or outside [0, 1].
    """
    if not before:
        best = max(points, key=_new)
        words = f"{best.name}: best validation score of the new task ({_new(best):.3f}); nothing to protect"
        return PointChoice(best, words, {})
    losses = {point.name: _loss(point, before, margin) for point in points}
    admissible = [point for point in points if not losses[point.name].shown]
    if not admissible:
        least = min(points, key=lambda p: (round(losses[p.name].mean, 9), -_new(p)))
        reason = (
            f"{least.name}: every point is shown to lose more than {margin:.3f} of earlier tasks; this one loses "
            f"least, {losses[least.name].mean:.3f}{_average(losses[least.name])}"
        )
        return PointChoice(least, reason, losses)
    best = max(admissible, key=lambda p: round(_new(p) - losses[p.name].tasks * losses[p.name].beyond, 9))
    return PointChoice(best, _reason(best, losses[best.name], len(admissible), len(points), margin), losses)


def _new(point: Point) -> float:
    return float(np.mean(point.new))


def _loss(point: Point, before: Mapping[str, Scores], margin: float) -> Loss:
    pairs = _Pairs(before, point.prior)
    tasks = len(pairs.names)
    worst = int(pairs.drops.argmax())
    squares = np.add.reduceat(pairs.differences**2, pairs.starts)
    error = float(np.sqrt((squares / pairs.counts**2).sum())) / tasks
    return Loss(
        tasks,
        float(pairs.drops.mean()),
        error,
        pairs.names[worst],
        float(pairs.drops[worst]),
        _proof(pairs, margin),
    )


def _proof(pairs: "_Pairs", margin: float) -> str:
    """Drop beyond the margin that chance doesn't explain, in words."""
    tasks = len(pairs.names)
    level = ALPHA / 2 if tasks > 1 else ALPHA
    if p_value(pairs.before, pairs.after, margin) <= level:
        drop = float(pairs.differences.mean())
        return f"{drop:.3f} over the {len(pairs.differences)} rows of earlier tasks"
    if tasks > 1:
        losers = (pairs.drops > margin) & (drop_p_values(pairs.differences, pairs.starts) <= level)
        if losers.any():
            worst = int(np.where(losers, pairs.drops, -1.0).argmax())
            return f"{pairs.drops[worst]:.3f} of {pairs.names[worst]}"
    return ""


class _Pairs:
    """Rows of all prior tasks end to end, before and after: task i begins at `starts[i]`."""

    def __init__(self, before: Mapping[str, Scores], after: Mapping[str, Scores]) -> None:
        self.names = list(before)
        parts = [score_arrays(before[name], after[name]) for name in self.names]
        self.before, self.after = (np.concatenate(each) for each in zip(*parts, strict=True))
        self.counts = np.array([len(first) for first, _ in parts])
        self.starts = np.cumsum([0, *self.counts[:-1]])
        self.differences: NDArray[np.float64] = self.before - self.after

    @cached_property
    def drops(self) -> NDArray[np.float64]:
        """Mean drop of each task: (tasks,)."""
        return np.asarray(np.add.reduceat(self.differences, self.starts) / self.counts)


def _reason(best: Point, loss: Loss, admissible: int, points: int, margin: float) -> str:
    tasks = "the earlier task" if loss.tasks == 1 else f"the {loss.tasks} earlier tasks"
    change = "as much as before"
    if round(loss.mean, 3):
        change = f"{abs(loss.mean):.3f} {'less' if loss.mean > 0 else 'more'} than before"
        if loss.beyond:
            change += f", of which {abs(loss.beyond):.3f} counts: the part beyond one standard error"
        else:
            change += f", which is within one standard error ({loss.error:.3f}) and counts as nothing"
    return (
        f"{best.name}: best for all {loss.tasks + 1} tasks of the group among the {admissible} of {points} points not "
        f"shown to lose more than {margin:.3f} of earlier tasks; the new task scores {_new(best):.3f}, "
        f"{tasks}{_average(loss)} {change}"
    )


def _average(loss: Loss) -> str:
    return " on average" if loss.tasks > 1 else ""
