"""Is the gate right? Candidates with a known true drop, put to the gate's own decision functions.

    python -m benchmarks.gate.simulate [--quick] [--plot FILE]

Every run draws the rows of one earlier harmless retraining (anchor against champion), then a candidate that flips the
champion's hits: by chance as often each way, and by its true drop. So flips against anchor and champion hang together.
The last line is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import gammaln, xlogy

from components.evaluation.statistics import within_margin
from components.gate.levels import look_levels
from components.gate.power import Flips, TaskRows, combine, judge, level, policy_power, rows_needed
from components.proportions import wilson_interval
from components.settings import GateSettings

HITS = 0.8
CHUNK = 2_500
CLOSE_RUNS = 100_000
"""Runs of the cells whose probability to pass at the margin comes close to its limit, or seems to exceed it."""
BIASED = 0.02
"""Drop that a gate on means refuses from: tighter than the margin, as peers set it."""


@dataclass(frozen=True)
class Cell:
    """One situation: `rows` test rows each, drop as a share of the margin, in one task or in `all`."""

    rows: int
    tasks: int
    noise: float
    margins: float
    where: str = "one"
    reserve: float = 0.0

    @property
    def policy(self) -> GateSettings:
        return GateSettings(reserve_share=self.reserve)

    @property
    def drop(self) -> float:
        return self.margins * self.policy.step_margin


@dataclass(frozen=True)
class Seen:
    """Shares of the runs."""

    cell: Cell
    passed: float
    failed: float
    naive: float
    naive_wide: float
    runs: int


def states(rows: int, noise: float, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Rows in each (anchor, champion) cell after one harmless retraining: (cells, draws)."""
    shares = [HITS - noise / 2, noise / 2, noise / 2, 1 - HITS - noise / 2]
    return generator.multinomial(rows, shares, size=draws).T


def flip(parts: np.ndarray, noise: float, drop: float, generator: np.random.Generator, hits=HITS) -> np.ndarray:
    """Rows of each cell whose hit the candidate flips; `hits` is the champion's true score."""
    losses, wins = (noise / 2 + drop) / hits, (noise / 2) / (1 - hits)
    chance = np.array([losses, wins, losses, wins]).reshape(4, -1)
    return generator.binomial(parts, np.minimum(chance, 1.0))


def candidates(cell: Cell, draws: int, generator: np.random.Generator) -> tuple[list[Flips], list[np.ndarray]]:
    """Simulated candidates, and the (anchor, champion) rows of each task that they were drawn on."""
    reserve = round(cell.reserve * cell.rows)
    flips, tables = [], []
    for task in range(cell.tasks):
        parts = np.stack([states(n, cell.noise, draws, generator) for n in (cell.rows - reserve, reserve)])
        drop = cell.drop if cell.where == "all" or task == 0 else 0.0
        flips.append(combine("g1", parts, flip(parts, cell.noise, drop, generator)))
        tables.append(parts[..., 0])
    return flips, tables


def simulate(cell: Cell, runs: int, seed: int) -> Seen:
    """Put `runs` candidates of a cell to the gate, and to two gates on mean drops."""
    generator = np.random.default_rng([seed, cell.rows, cell.tasks, round(1e4 * cell.noise), round(1e4 * cell.drop)])
    sums = np.zeros(4)
    for start in range(0, runs, CHUNK):
        flips, _ = candidates(cell, min(CHUNK, runs - start), generator)
        passed, failed = judge(flips, cell.policy, level(cell.policy, 1))
        worst = np.max([(task.step[0, 1] - task.step[1, 1]) / task.rows[1] for task in flips], axis=0)
        sums += [x.sum() for x in (passed, failed, worst <= BIASED, worst <= cell.policy.step_margin)]
    return Seen(cell, *(float(x) for x in sums / runs), runs)


def printed_power(cell: Cell, tables: int, seed: int) -> float:
    """Mean of the power that the gate prints on `tables` lineages like this."""
    generator = np.random.default_rng(seed)
    powers = []
    for _ in range(tables):
        _, parts = candidates(replace(cell, margins=0), 1, generator)
        tasks = [TaskRows("t", "g1", *(tuple(int(x) for x in look) for look in part)) for part in parts]
        powers.append(policy_power(tasks, cell.policy, discordance=cell.noise).pass_probability)
    return float(np.mean(powers))


def exact_level(rows: int, noise: float, margin: float, alpha: float) -> float:
    """Probability to pass one comparison at a true drop of the margin, by enumeration: no simulation error."""
    losses, wins = margin + noise / 2, noise / 2
    most = [int(rows * p + 9 * np.sqrt(rows * p)) + 9 for p in (losses, wins)]
    x, y = np.meshgrid(*(np.arange(min(m, rows) + 1.0) for m in most), indexing="ij")
    rest = rows - x - y
    inside = rest >= 0
    rest = np.where(inside, rest, 0)
    weight = gammaln(rows + 1) - gammaln(x + 1) - gammaln(y + 1) - gammaln(rest + 1)
    weight += xlogy(x, losses) + xlogy(y, wins) + xlogy(rest, 1 - losses - wins)
    return float((np.exp(weight) * inside * within_margin(x, y, rows, margin, alpha)).sum())


def stubborn(rows: int, noise: float, runs: int, seed: int) -> float:
    """Share of submitters with three attempts, all at a true drop of the margin on the same rows, who pass once."""
    policy, generator = GateSettings(), np.random.default_rng(seed)
    parts = np.stack([states(n, noise, runs, generator) for n in (rows, 0)])
    through = np.zeros(runs, dtype=bool)
    for attempt in range(1, policy.max_attempts + 1):
        candidate = combine("g1", parts, flip(parts, noise, policy.step_margin, generator))
        through |= judge([candidate], policy, level(policy, attempt))[0]
    return float(through.mean())


def decay(
    rows: int, noise: float, drop: float, runs: int, seed: int, gate: str, candidates: int = 20
) -> tuple[float, float, float]:
    """A lineage that loses `drop` with each of 20 candidates; a refused one leaves the champion as it is.

    Returns the share of lineages that end beyond the lifetime budget, their mean true loss, and mean promotions.
    """
    policy, generator = GateSettings(), np.random.default_rng(seed)
    at = np.zeros((4, runs), dtype=np.int64)
    at[0] = generator.binomial(rows, HITS, runs)
    at[3] = rows - at[0]
    drops = np.zeros(runs)
    for look in range(1, candidates + 1):
        parts = np.stack([at, np.zeros_like(at)])
        flips = flip(parts, noise, drop, generator, HITS - drops * drop)
        candidate = combine("g1", parts, flips, look if gate == "lcia" else 1)
        if gate != "mean":
            passes = judge([candidate], policy, level(policy, 1))[0]
        else:
            passes = (candidate.step[0, 1] - candidate.step[1, 1]) / rows <= BIASED
        both, anchor, champion, neither = flips[0] * passes
        at = at + np.stack([anchor - both, both - anchor, neither - champion, champion - neither])
        drops += passes
    loss = drops * drop
    return float((loss > policy.lifetime_budget + 1e-9).mean()), float(loss.mean()), float(drops.mean())


def grid(quick: bool) -> Iterator[Cell]:
    for rows in (200,) if quick else (100, 200, 1000):
        for tasks in (1, 5, 20) if quick else (1, 5, 20, 100):
            for noise in (0.02, 0.05, 0.10):
                for margins in (0, 0.5, 1, 2):
                    yield Cell(rows, tasks, noise, margins)
                    if tasks > 1 and margins and not quick:
                        yield Cell(rows, tasks, noise, margins, "all")


def table(head: str, lines: list[str]) -> None:
    print(f"\n| {head} |\n|{'---|' * (head.count('|') + 1)}")
    print("\n".join(f"| {line} |" for line in lines), flush=True)


def report_grid(results: list[Seen], powers: dict[Cell, float]) -> None:
    head = "rows | tasks | flips | printed power | P(pass): 0 | margin/2 | margin | 2 margins | P(fail): 0 | 2 margins"
    naive = "rows | tasks | flips | P(pass): 0 | margin/2 | margin | 2 margins | wide: 0 | wide: margin"
    by = {(s.cell.rows, s.cell.tasks, s.cell.noise, s.cell.margins): s for s in results if s.cell.where == "one"}
    lines, plain = [], []
    for rows, tasks, noise in dict.fromkeys(key[:3] for key in by):
        each = [by[rows, tasks, noise, m] for m in (0, 0.5, 1, 2)]
        shares = " | ".join(f"{s.passed:.3f}" for s in each)
        start = f"{rows} | {tasks} | {noise:.2f}"
        lines.append(f"{start} | {powers[each[0].cell]:.3f} | {shares} | {each[0].failed:.3f} | {each[3].failed:.3f}")
        means = " | ".join(f"{s.naive:.3f}" for s in each)
        plain.append(f"{start} | {means} | {each[0].naive_wide:.3f} | {each[2].naive_wide:.3f}")
    print("\n## The gate: drop in one task, all tasks in one group")
    table(head, lines)
    print(f"\n## A gate on mean drops: passes when no task's mean drop is over {BIASED} (wide: over the margin)")
    table(naive, plain)
    everywhere = [s for s in results if s.cell.where == "all"]
    if everywhere:
        print("\n## The gate: the same drop in all tasks")
        lines = []
        for rows, tasks, noise in dict.fromkeys((s.cell.rows, s.cell.tasks, s.cell.noise) for s in everywhere):
            each = [s for s in everywhere if (s.cell.rows, s.cell.tasks, s.cell.noise) == (rows, tasks, noise)]
            lines.append(" | ".join([f"{rows} | {tasks} | {noise:.2f}", *(f"{s.passed:.3f}" for s in each),
                                     *(f"{s.failed:.3f}" for s in each)]))  # fmt: skip
        table("rows | tasks | flips | P(pass): margin/2 | margin | 2 margins | P(fail): margin/2 | margin | 2 margins",
              lines)  # fmt: skip


def report_needed(quick: bool, runs: int) -> float:
    print("\n## Rows the policy demands, and P(pass) of a harmless candidate there")
    lines, least = [], 1.0
    for tasks in (1, 5) if quick else (1, 5, 20, 100):
        for noise in (0.05,) if quick else (0.02, 0.05, 0.10):
            rows = rows_needed(tasks, GateSettings(), noise)
            assert rows
            passed = simulate(Cell(rows, tasks, noise, 0), runs, 3).passed
            least = min(least, passed)
            lines.append(f"{tasks} | {noise:.2f} | {rows} | {passed:.3f}")
    table("tasks in the group | flips | rows each | P(pass)", lines)
    return least


def report_reserve(runs: int) -> float:
    print("\n## With and without a reserve of 30 % (200 rows in all, one task)")
    lines, worst = [], 0.0
    for noise in (0.02, 0.05, 0.10):
        for share in (0.0, 0.3):
            each = [simulate(Cell(200, 1, noise, m, reserve=share), runs, 4) for m in (0, 0.5, 1, 2)]
            worst = max(worst, each[2].passed)
            lines.append(f"{share:.1f} | {noise:.2f} | " + " | ".join(f"{s.passed:.3f}" for s in each)
                         + f" | {opened(Cell(200, 1, noise, 0, reserve=share), runs):.3f}")  # fmt: skip
    table("reserve | flips | P(pass): 0 | margin/2 | margin | 2 margins | reserve opened at 0", lines)
    return worst


def opened(cell: Cell, runs: int) -> float:
    """Share of harmless candidates that the first look leaves inconclusive."""
    if not cell.reserve:
        return 0.0
    flips, _ = candidates(cell, runs, np.random.default_rng(6))
    first = look_levels(level(cell.policy, 1), cell.reserve).first
    alone = [Flips(t.group, (t.rows[0], t.rows[0]), t.step[:, [0, 0]], t.life[:, [0, 0]]) for t in flips]
    passed, failed = judge(alone, GateSettings(confidence=1 - first), first)
    return float((~passed & ~failed).mean())


def report_decay(quick: bool, runs: int) -> float:
    print("\n## Twenty candidates that each lose a little: lineages that end beyond the lifetime budget")
    lines, worst = [], 0.0
    for rows in (200,) if quick else (100, 200, 1000):
        for noise in (0.05,) if quick else (0.02, 0.05, 0.10):
            for drop in (0.0, 0.0075, 0.0105, 0.015, 0.0205, 0.03, 0.0355):
                over, loss, count = decay(rows, noise, drop, runs, 7, "lcia")
                plain, plain_loss, _ = decay(rows, noise, drop, runs, 7, "mean")
                same = decay(rows, noise, drop, runs, 7, "same level")[0]
                worst = max(worst, over)
                numbers = [over, loss, same, plain, plain_loss]
                cells = " | ".join(f"{x:.3f}" for x in numbers)
                lines.append(f"{rows} | {noise:.2f} | {drop:.4f} | {count:.1f} | {cells}")
    head = "rows | flips | true drop each | promoted | **over budget** | mean true loss"
    table(f"{head} | all looks at 5 %: over | mean gate: over | its loss", lines)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="200 rows, up to 20 tasks, fewer tables")
    print(json.dumps(run(parser.parse_args().quick)))


def run(quick: bool) -> dict[str, float]:
    """Print every table; returns the headline figures."""
    runs, began = 10_000, time.process_time()
    results = [simulate(cell, runs, 1) for cell in grid(quick)]
    results = [simulate(s.cell, CLOSE_RUNS, 1) if s.cell.margins >= 1 and s.passed > 0.045 else s for s in results]
    harmless = [s for s in results if not s.cell.margins]
    powers = {s.cell: printed_power(s.cell, max(10, 400 // s.cell.tasks), 2) for s in harmless}
    report_grid(results, powers)
    least = report_needed(quick, runs)
    with_reserve = report_reserve(runs)
    over = report_decay(quick, runs)
    policy = GateSettings()
    sizes = {s.cell.rows for s in results}
    exact = max(exact_level(n, d, policy.step_margin, level(policy, 1)) for n in sizes for d in (0.02, 0.05, 0.10))
    at_margin = max((s for s in results if s.cell.margins == 1), key=lambda s: s.passed)
    band = wilson_interval(at_margin.passed * at_margin.runs, at_margin.runs)
    error = max(abs(s.passed - powers[s.cell]) for s in harmless)
    attempts = max(stubborn(n, d, runs, 8) for n in sizes for d in (0.02, 0.05, 0.10))
    print(
        f"\nlargest P(pass) at the margin: {at_margin.passed:.4f} [{band.low:.4f}, {band.high:.4f}], {at_margin.cell}"
    )
    print(f"exact for one comparison, no simulation: at most {exact:.4f}; with a reserve of 30 %: {with_reserve:.4f}")
    print(f"three attempts at the margin, any passes: at most {attempts:.4f}")
    print(f"least P(pass) of a harmless candidate where tasks have the rows the policy demands: {least:.3f}")
    print(f"most lineages over the lifetime budget: {over:.4f}; CPU time {time.process_time() - began:.0f} s")
    return {
        "passed_at_margin": round(at_margin.passed, 4),
        "failed_at_zero": round(max(s.failed for s in harmless), 4),
        "power_error": round(error, 4),
    }


if __name__ == "__main__":
    main()
