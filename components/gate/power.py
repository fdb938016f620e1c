"""Power of the gate, by simulation: how often a harmless candidate passes the forgetting rules, and the rows it takes.

The simulated candidate flips hits of the present champion, so its comparisons with champion and anchor correlate as
real ones do, and a lifetime budget that is partly used up lowers the power (benchmarks/gate).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import scipy
from numpy.typing import NDArray

from components.evaluation.statistics import tango_statistic
from components.gate.levels import anchor_level, look_levels
from components.settings import GateSettings

ASSUMED_DISCORDANCE = 0.05
"""Share of rows whose hit flips by chance when a harmless candidate is compared with the champion."""
LEAST_POWER = 0.80
"""Reports point out a pass probability of a harmless candidate below this."""

_DRAWS = 4_000
_SURE = 0.01
"""Margin for the error of the simulation: one and a half standard errors."""
_MOST_ROWS = 20_000
_HITS = 0.8
"""Assumed share of hits of a task that has not been measured yet."""

Counts = NDArray[np.float64]
Cells = tuple[int, int, int, int]
"""Rows that anchor and champion hit, the anchor alone, the champion alone, neither."""


@dataclass(frozen=True)
class TaskRows:
    """One prior task's test rows, counted by the hits of its anchor and the champion; `reserve` rows come last.

    `look`: number, from 1, of the next candidate among those compared with this anchor.
    """

    name: str
    group: str
    first: Cells
    reserve: Cells = (0, 0, 0, 0)
    look: int = 1

    @classmethod
    def of(
        cls,
        name: str,
        group: str,
        anchor: Sequence[float],
        champion: Sequence[float],
        reserve: Sequence[bool] = (),
        look: int = 1,
    ) -> Self:
        """From scores; a graded score counts as a hit from one half on."""
        right = np.array([anchor, champion]) >= 0.5
        later = np.array(reserve, dtype=np.bool_) if len(reserve) else np.zeros(right.shape[1], dtype=np.bool_)
        first, last = (_cells(right[:, part]) for part in (~later, later))
        return cls(name, group, first, last, look)

    @classmethod
    def typical(
        cls, name: str, group: str, rows: int, policy: GateSettings, discordance: float = ASSUMED_DISCORDANCE
    ) -> Self:
        """A task not measured yet: four of five rows right, and one harmless retraining since its anchor."""
        later = round(policy.reserve_share * rows)
        first, last = (_assumed_cells(n, discordance) for n in (rows - later, later))
        return cls(name, group, first, last)

    @property
    def rows(self) -> int:
        """All test rows."""
        return sum(self.first) + sum(self.reserve)


@dataclass(frozen=True)
class Flips:
    """Outcomes of many simulated candidates on one task's rows, at the first look and over all rows.

    `step` and `life` hold, against the champion and against the anchor, lost and won rows: (2, looks, draws).
    """

    group: str
    rows: tuple[int, int]
    step: Counts
    life: Counts
    look: int = 1


@dataclass(frozen=True)
class Power:
    """Probability that a candidate with no true change passes the forgetting rules at the present sizes."""

    pass_probability: float
    tasks: int
    discordance: float
    alpha: float
    words: str


def policy_power(
    tasks: Sequence[TaskRows],
    policy: GateSettings,
    attempt: int = 1,
    discordance: float = ASSUMED_DISCORDANCE,
) -> Power:
    """Probability that a candidate without any true change passes all forgetting rules on `tasks`, fixed seed."""
    alpha = level(policy, attempt)
    probability = _pass_probability(tuple(tasks), policy, alpha, discordance)
    words = (
        f"A candidate without any true change, {discordance:.0%} of whose hits flip by chance, passes the forgetting "
        f"rules on {len(tasks)} changed prior task{'' if len(tasks) == 1 else 's'} with probability {probability:.2f}"
    )
    if attempt > 1:
        words += f" at attempt {attempt}, tested at {alpha:.4f}"
    if probability < LEAST_POWER:
        words += (
            f", below {LEAST_POWER:.2f}: the margins are tight for this many rows; "
            "more test rows or a policy with wider margins, decided before looking, would mend it"
        )
    return Power(probability, len(tasks), discordance, alpha, words + ".")


def rows_needed(tasks: int, policy: GateSettings, discordance: float = ASSUMED_DISCORDANCE) -> int | None:
    """Test rows that each of `tasks` tasks sharing a group needs for a power of 0.80, in tens; None if too many.

    None: beyond 20,000 rows, as with a margin of 0.
    """

    def enough(tens: int) -> bool:
        typical = TaskRows.typical("", "", 10 * tens, policy, discordance)
        return policy_power([typical] * tasks, policy, discordance=discordance).pass_probability >= LEAST_POWER + _SURE

    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
        if 10 * high > _MOST_ROWS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    while not enough(high + 1):  # counts of rows are whole, so power has small teeth
        high += 1
    return 10 * high


def level(policy: GateSettings, attempt: int) -> float:
    """One-sided error level of attempt k: (1 - confidence) / 2^(k - 1); all attempts together less than twice that."""
    return float((1 - policy.confidence) / 2 ** (attempt - 1))


def harmless(task: TaskRows, discordance: float, draws: int, generator: np.random.Generator) -> Flips:
    """Candidates as good as the champion: of all rows there are, half the discordance is lost and half won.

    The champion's true share of hits is not known but drawn from its posterior (Jeffreys), so that a champion that
    was lucky on its test rows loses some of that luck. Close to 0 or 1 fewer rows can flip, on both sides.
    """
    parts = np.array([task.first, task.reserve])
    hits = parts[:, [0, 2]].sum()
    share = generator.beta(hits + 0.5, task.rows - hits + 0.5, draws)
    flips = np.minimum(discordance / 2, np.minimum(share, 1 - share))
    lose, win = flips / share, flips / (1 - share)
    counts = generator.binomial(parts[..., None], np.stack([lose, win, lose, win]))
    return combine(task.group, parts, counts, task.look)


def combine(group: str, parts: NDArray[np.int64], counts: NDArray[np.int64], look: int = 1) -> Flips:
    """Counts from `flipped` (first look and reserve, cells, draws) of rows `parts` (the same, with or without draws).

    Among rows that only one of anchor and champion hits, a flip brings the candidate back to its anchor.
    """
    counts = counts.cumsum(axis=0)
    rows = parts.cumsum(axis=0).reshape(*parts.shape[:2], -1)
    both, anchor, champion, neither = (counts[:, i] for i in range(4))
    step = np.stack([both + champion, anchor + neither])
    life = np.stack([both + rows[:, 1] - anchor, neither + rows[:, 2] - champion])
    totals = rows[..., 0].sum(axis=1)
    return Flips(group, (int(totals[0]), int(totals[1])), step.astype(np.float64), life.astype(np.float64), look)


@lru_cache(maxsize=64)
def _pass_probability(tasks: tuple[TaskRows, ...], policy: GateSettings, alpha: float, discordance: float) -> float:
    generator = np.random.default_rng(0)
    passes, _ = judge([harmless(task, discordance, _DRAWS, generator) for task in tasks], policy, alpha)
    return float(passes.mean()) if tasks else 1.0


def judge(tasks: Sequence[Flips], policy: GateSettings, alpha: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Simulated candidates that pass, and those that fail, the forgetting rules: two arrays of booleans (draws,).

    The rules of `decide_gate` for scores of 0 and 1, all candidates at once; the rest are inconclusive.
    """
    if not tasks:
        return np.ones(0, dtype=np.bool_), np.zeros(0, dtype=np.bool_)
    levels = look_levels(alpha, policy.reserve_share)
    tests = list(_tests(tasks, policy, alpha))
    own = [look_levels(test.alpha, policy.reserve_share) for test in tests]
    more = np.array([test.rows[1] > test.rows[0] for test in tests])[:, None]
    first = np.stack([test.statistic(0) for test in tests])
    passes = first <= scipy.special.ndtri([[each.first] for each in own])
    fails = _any_holm(first, levels.first)
    if levels.second and more.any():
        last = np.stack([test.statistic(1) for test in tests])
        second = ~passes & more & ~fails
        passes |= second & (last <= scipy.special.ndtri([[each.second] for each in own]))
        fails |= _any_holm(np.where(second, last, first), levels.second_fail) & second.any(axis=0)
    return passes.all(axis=0) & ~fails, fails


@dataclass(frozen=True)
class _SimulatedTest:
    """One comparison of many candidates: rows at each look, counts as in `Flips`, margin, level to pass at."""

    rows: tuple[int, int]
    counts: Counts
    margin: float
    alpha: float

    def statistic(self, look: int) -> Counts:
        return tango_statistic(self.counts[0, look], self.counts[1, look], self.rows[look], self.margin)


def _tests(tasks: Sequence[Flips], policy: GateSettings, alpha: float) -> Iterable[_SimulatedTest]:
    groups: dict[str, list[Flips]] = {}
    for task in tasks:
        yield _SimulatedTest(task.rows, task.step, policy.step_margin, alpha)
        yield _SimulatedTest(task.rows, task.life, policy.lifetime_budget, anchor_level(alpha, task.look))
        groups.setdefault(task.group, []).append(task)
    for members in groups.values():
        if len(members) > 1:
            rows = (sum(task.rows[0] for task in members), sum(task.rows[1] for task in members))
            counts: Counts = np.sum([task.step for task in members], axis=0)
            yield _SimulatedTest(rows, counts, policy.pooled_margin, alpha)


def _any_holm(statistics: Counts, alpha: float) -> NDArray[np.bool_]:
    """True where Holm's procedure rejects anything, which is where it rejects the smallest p-value."""
    return np.asarray(scipy.special.ndtr(-statistics.max(axis=0)) * len(statistics) <= alpha)


def _assumed_cells(rows: int, discordance: float) -> Cells:
    one = min(round(discordance / 2 * rows), round((1 - _HITS) * rows))
    return round(_HITS * rows) - one, one, one, rows - round(_HITS * rows) - one


def _cells(right: NDArray[np.bool_]) -> Cells:
    anchor, champion = right
    both, one, other = (int(x.sum()) for x in (anchor & champion, anchor & ~champion, champion & ~anchor))
    return both, one, other, right.shape[1] - both - one - other
