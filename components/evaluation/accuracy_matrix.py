"""The accuracy matrix and what is read off it: Avg.ACC, New.ACC, Forgetting and BWT (DESIGN section 7).

`A[j, i]` is the score on task i after learning task j, a fraction, for i <= j along the champion's ancestors.
A cell is None if a task's evaluation rows may not be kept; such cells leave the means.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from components.errors import LciaError
from components.evaluation.statistics import Comparison, compare
from components.proportions import Interval

Row = tuple[float | None, ...]
RowScores = tuple[float, ...]

CONFIDENCE = 0.95
"""Two-sided confidence of every interval in a matrix."""
FLOOR_DISCORDANCE = 0.05
"""Share of hits assumed to flip between two versions without any true change, for the floor of Forgetting."""

_DRAWS = 2_000


class MatrixError(LciaError):
    """Rows that do not form a lower triangle of fractions over the tasks."""


@dataclass(frozen=True)
class TaskChange:
    """One task's way through the matrix: its score when learnt, its best before the last version, and now.

    `change` is the mean gain since it was learnt with a two-sided interval, where per-row scores are known.
    """

    task: str
    first: float | None
    best: float | None
    last: float | None
    change: Interval | None


@dataclass(frozen=True)
class PartFigures:
    """Avg.ACC and BWT over some of the tasks, with two-sided intervals where per-row scores are known."""

    tasks: tuple[str, ...]
    avg_acc: float | None
    bwt: float | None
    intervals: dict[str, Interval]


@dataclass(frozen=True)
class AccuracyMatrix:
    """Scores `rows[j][i]`, i <= j, of `tasks` in the order learnt; `scores` holds the same cells row by row.

    A cell of `scores` is the tuple of scores of task i's test rows in a fixed order, empty where not
    measurable.
    """

    tasks: tuple[str, ...]
    rows: tuple[Row, ...]
    scores: tuple[tuple[RowScores, ...], ...] | None = None

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.tasks) or any(len(row) != j + 1 for j, row in enumerate(self.rows)):
            shape = [len(row) for row in self.rows]
            raise MatrixError(
                f"rows of {shape} cells for {len(self.tasks)} tasks, expected 1, 2, ... cells, one row per task"
            )
        for j, row in enumerate(self.rows):
            for i, cell in enumerate(row):
                if cell is not None and not 0 <= cell <= 1:
                    raise MatrixError(f"score {cell} of {self.tasks[i]} after {self.tasks[j]}, expected 0 to 1")
        if self.scores is not None:
            self._check_scores(self.scores)

    def _check_scores(self, scores: Sequence[Sequence[RowScores]]) -> None:
        for j, row in enumerate(scores):
            for i, cell in enumerate(row):
                if len(cell) not in {0, len(scores[i][i])}:
                    raise MatrixError(
                        f"{len(cell)} row scores of {self.tasks[i]} after {self.tasks[j]}, expected the "
                        f"{len(scores[i][i])} rows it had when learnt; evaluate both on the same split"
                    )

    @classmethod
    def from_scores(cls, tasks: Sequence[str], scores: Sequence[Sequence[Sequence[float]]]) -> Self:
        """The matrix of per-row scores `scores[j][i]`, i <= j; an empty cell is not measurable.

        Raises:
            MatrixError: cells that do not form a lower triangle with the same rows down each column.
        """
        cells = tuple(tuple(tuple(map(float, cell)) for cell in row) for row in scores)
        rows = tuple(tuple(math.fsum(cell) / len(cell) if cell else None for cell in row) for row in cells)
        return cls(tuple(tasks), rows, cells)

    @property
    def avg_acc(self) -> float | None:
        """Mean over tasks of `A[T, i]`; None without a measurable task."""
        return _mean(self.rows[-1]) if self.rows else None

    @property
    def new_acc(self) -> float | None:
        """Mean over tasks of `A[i, i]`; None without a measurable task."""
        return _mean([row[-1] for row in self.rows])

    @property
    def forgetting(self) -> float | None:
        """Mean over i < T of `max_(i<=j<T) A[j, i] - A[T, i]`; 0 with one task, None with none."""
        return self._over_prior(lambda column: max(column[:-1]) - column[-1])

    @property
    def bwt(self) -> float | None:
        """Backward transfer, the mean over i < T of `A[T, i] - A[i, i]`; 0 with one task, None with none."""
        return self._over_prior(lambda column: column[-1] - column[0])

    @property
    def forgetting_floor(self) -> float | None:
        """The Forgetting expected without any true change: the maximum over versions makes it positive.

        Task i with m different versions before the last: the expected maximum of m standard normals times
        sqrt(discordance / 2n), as two versions then differ with variance discordance / n. None without row
        scores.
        """
        if self.scores is None or not self.tasks:
            return None
        floors = []
        for i in range(len(self.tasks) - 1):
            column = [row[i] for row in self.scores[i:] if row[i]]
            if len(column) > 1:
                versions = 1 + sum(a != b for a, b in pairwise(column[:-1]))
                spread = math.sqrt(FLOOR_DISCORDANCE / (2 * len(column[0])))
                floors.append(_expected_maximum(versions) * spread)
        return max(0.0, math.fsum(floors) / len(floors)) if floors else 0.0

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """Two-sided intervals of the four numbers by resampling each task's rows, the same rows in all
        versions.

        They say how far the test rows settle each number; another training run may differ by more. Empty
        without row scores.
        """
        if self.scores is None or not self.tasks:
            return {}
        columns = list(self._columns.values())
        prior = [column for column in columns if column.shape[1] > 1]
        samples: dict[str, list[NDArray[np.float64]]] = {
            "avg_acc": [column[:, -1] for column in columns],
            "new_acc": [column[:, 0] for column in columns],
            "forgetting": [column[:, :-1].max(axis=1) - column[:, -1] for column in prior],
            "bwt": [column[:, -1] - column[:, 0] for column in prior],
        }
        intervals = {}
        for name, draws in samples.items():
            value = getattr(self, name)
            if value is not None:
                intervals[name] = _interval(value, draws)
        return intervals

    def part(self, tasks: Collection[str]) -> PartFigures:
        """Avg.ACC and BWT over some tasks, such as those that share a group; BWT leaves out the newest one."""
        members = [i for i, name in enumerate(self.tasks) if name in tasks]
        prior = [i for i in members if i < len(self.tasks) - 1]
        changes = [
            self.rows[-1][i] - self.rows[i][i]  # type: ignore[operator]
            for i in prior
            if self.rows[-1][i] is not None and self.rows[i][i] is not None
        ]
        avg_acc, bwt = _mean([self.rows[-1][i] for i in members]), _mean(changes)
        samples = self._columns if self.scores else {}
        pairs = {
            "avg_acc": (avg_acc, [samples[i][:, -1] for i in members if i in samples]),
            "bwt": (bwt, [samples[i][:, -1] - samples[i][:, 0] for i in prior if i in samples]),
        }
        intervals = {
            name: _interval(value, draws) for name, (value, draws) in pairs.items() if value is not None and draws
        }
        return PartFigures(tuple(self.tasks[i] for i in members), avg_acc, bwt, intervals)

    @property
    def after_each(self) -> list[tuple[float | None, float | None]]:
        """Avg.ACC and BWT as they stood after each task, oldest first."""
        figures: list[tuple[float | None, float | None]] = []
        whole: list[tuple[int, float]] = []  # earlier tasks without a gap so far, each with its score when learnt
        for j, row in enumerate(self.rows):
            cells = [(i, first, row[i]) for i, first in whole]
            whole = [(i, first) for i, first, cell in cells if cell is not None]
            bwt = _mean([cell - first for _, first, cell in cells if cell is not None]) if j else 0.0
            figures.append((_mean(row), bwt))
            whole += [(j, score)] if (score := row[j]) is not None else []
        return figures

    def changes(self) -> tuple[TaskChange, ...]:
        """Each task's score when learnt, at its best and now, in the order learnt."""
        changes = []
        for i, task in enumerate(self.tasks):
            column = [row[i] for row in self.rows[i:]]
            before = [cell for cell in column[:-1] or column if cell is not None]
            changes.append(TaskChange(task, column[0], max(before, default=None), column[-1], self._change(i)))
        return tuple(changes)

    def to_json(self) -> dict[str, Any]:
        """The shape other programs read: fractions, null above the diagonal and where not measurable."""
        size = len(self.tasks)
        return {
            "tasks": list(self.tasks),
            "matrix": [[*row, *[None] * (size - len(row))] for row in self.rows],
            "avg_acc": self.avg_acc,
            "new_acc": self.new_acc,
            "forgetting": self.forgetting,
            "bwt": self.bwt,
            "forgetting_floor": self.forgetting_floor,
            "intervals": {name: [each.low, each.high] for name, each in self.intervals.items()},
        }

    def _over_prior(self, measure: Callable[[list[float]], float]) -> float | None:
        if not self.tasks:
            return None
        if len(self.tasks) == 1:
            return 0.0
        columns = [[row[i] for row in self.rows[i:]] for i in range(len(self.tasks) - 1)]
        full = [[cell for cell in column if cell is not None] for column in columns]
        return _mean([
            measure(cells) for cells, column in zip(full, columns, strict=True) if len(cells) == len(column)
        ])  # fmt: skip

    def _change(self, i: int) -> Interval | None:
        if self.scores is None or not self.scores[i][i] or not self.scores[-1][i]:
            return None
        gain: Comparison = compare(self.scores[-1][i], self.scores[i][i], (1 - CONFIDENCE) / 2)
        return Interval(gain.drop, gain.low, gain.high)

    @cached_property
    def _columns(self) -> dict[int, NDArray[np.float64]]:
        """Per measurable task the resampled means of its column: (draws, versions since it was learnt)."""
        generator = np.random.default_rng(0)
        columns = {}
        for i in range(len(self.tasks)):
            cells = [row[i] for row in (self.scores or ())[i:]]
            if all(cells):
                rows = len(cells[0])
                weights = generator.multinomial(rows, np.full(rows, 1 / rows), size=_DRAWS) / rows
                columns[i] = weights @ np.array(cells, dtype=np.float64).T
        return columns


def _mean(cells: Sequence[float | None]) -> float | None:
    values = [cell for cell in cells if cell is not None]
    return math.fsum(values) / len(values) if values else None


def _interval(value: float, draws: Sequence[NDArray[np.float64]]) -> Interval:
    """Quantiles of the mean over tasks of resampled figures, around `value`."""
    means = np.mean(draws, axis=0) if draws else np.zeros(1)
    tail = (1 - CONFIDENCE) / 2
    low, high = float(np.quantile(means, tail)), float(np.quantile(means, 1 - tail))
    return Interval(value, min(low, value), max(high, value))


def _expected_maximum(count: int) -> float:
    """Mean of the largest of `count` independent standard normals."""
    grid = np.linspace(-8.0, 8.0, 4001)
    below = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in grid]) ** count
    return float(np.sum((grid[1:] + grid[:-1]) / 2 * np.diff(below)))
