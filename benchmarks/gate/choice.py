"""Is the right point chosen? Points with a known true drop, put to the product's own `choose_point`.

    python -m benchmarks.gate.choice [--quick]

Two points of one curve: `ema`, which learnt nothing and forgot nothing, and `live`, which learnt `GAIN` of the new
task and forgot as each column says. Rows of earlier tasks that were right or wrong before flip either way by chance, at
`ema` half as often. The rule before is put to the same rows: best at the new task among the points whose largest drop
of a task is at most the margin, else the one with the smallest largest drop. The last line is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.gate.simulate import HITS, table
from components.evaluation.choose import Point, choose_point
from components.settings import EvaluationSettings

GAIN = 0.10
MARGIN = EvaluationSettings().choice_margin
HARMS = (("none", 0.0), ("one", 0.05), ("one", 0.10), ("all", 0.01), ("all", 0.03), ("all", 0.04))
"""Tasks that lose, and how much."""
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One situation: validation rows of each task, earlier tasks, share of rows that flip by chance."""

    rows: int
    tasks: int
    noise: float


@dataclass(frozen=True)
class Shares:
    """Shares of the runs in which `live` was left out, and chosen, by today's rule and by the one before."""

    left_out: float
    chosen: float
    left_out_before: float
    chosen_before: float


def after(before: Rows, noise: float, drop: float, generator: np.random.Generator) -> Rows:
    """Rows `before` (tasks, rows) with flips by chance; the first `len(drop)` tasks lose their drop on top."""
    losses = (noise / 2 + drop) / HITS
    chance = np.where(before == 1, losses, noise / 2 / (1 - HITS))
    return np.where(generator.random(before.shape) < chance, 1 - before, before)


def simulate(cell: Cell, where: str, drop: float, runs: int, seed: int) -> Shares:
    """Put `runs` pairs of points to both rules."""
    generator = np.random.default_rng([seed, cell.rows, cell.tasks, round(1e4 * cell.noise), round(1e4 * drop)])
    sums = np.zeros(4)
    for _ in range(runs):
        before = (generator.random((cell.tasks, cell.rows)) < HITS).astype(float)
        live = after(before, cell.noise, drop if where == "all" else 0.0, generator)
        if where == "one":
            live[:1] = after(before[:1], cell.noise, drop, generator)
        ema = after(before, cell.noise / 2, 0.0, generator)
        first = (generator.random(cell.rows) < 0.5).astype(float)
        flips = generator.random(cell.rows) < np.where(first == 1, cell.noise, cell.noise + 2 * GAIN)
        points = [Point("ema", first, _named(ema)), Point("live", np.where(flips, 1 - first, first), _named(live))]
        choice = choose_point(points, _named(before), MARGIN)
        worst = [float((before - one).mean(axis=1).max()) for one in (ema, live)]
        sums += [
            bool(choice.losses["live"].shown),
            choice.point.name == "live",
            worst[1] > MARGIN + 1e-9,
            _before(worst, [float(np.mean(point.new)) for point in points]),
        ]
    return Shares(*(float(share) for share in sums / runs))


def _named(rows: Rows) -> Mapping[str, Rows]:
    return {f"t{i}": each for i, each in enumerate(rows)}


def _before(worst: list[float], new: list[float]) -> bool:
    """True if the rule before chooses the second of two points."""
    inside = [drop <= MARGIN + 1e-9 for drop in worst]
    if inside[0] != inside[1]:
        return inside[1]
    return new[1] > new[0] if inside[0] else (worst[1], -new[1]) < (worst[0], -new[0])


def grid(quick: bool) -> Iterator[Cell]:
    for rows in (100,) if quick else (30, 100):
        for tasks in (1, 7, 30) if quick else (1, 7, 30, 100):
            for noise in (0.05,) if quick else (0.02, 0.05, 0.10):
                yield Cell(rows, tasks, noise)


def run(quick: bool) -> dict[str, float]:
    """Print both tables; returns the headline figures."""
    runs, began = 200 if quick else 500, time.process_time()
    cells = {cell: [simulate(cell, *harm, runs, 1) for harm in HARMS] for cell in grid(quick)}
    harms = " | ".join("none" if where == "none" else f"{drop:.2f} of {where}" for where, drop in HARMS)
    for name, left_out, chosen in (
        ("by confidence (today)", "left_out", "chosen"),
        ("by the largest drop (before)", "left_out_before", "chosen_before"),
    ):
        print(f"\n## Points {name}: probability that `live`, {GAIN:.2f} better at the new task, is chosen")
        lines = [
            f"{cell.rows} | {cell.tasks} | {cell.noise:.2f} | {getattr(each[0], left_out):.3f} | "
            + " | ".join(f"{getattr(one, chosen):.3f}" for one in each)
            for cell, each in cells.items()
        ]
        table(f"rows each | earlier tasks | flips | harmless left out | chosen: loses {harms}", lines)
    thirty = cells[Cell(100, 30, 0.05)]
    print(f"\nmargin {MARGIN}, {runs} runs a cell; CPU time {time.process_time() - began:.0f} s")
    return {
        "harmless_left_out": round(max(each[0].left_out for each in cells.values()), 4),
        "harmless_chosen_at_30_tasks": round(thirty[0].chosen, 4),
        "lost_tenth_of_one_chosen_at_30_tasks": round(thirty[2].chosen, 4),
        "lost_by_all_chosen_at_30_tasks": round(thirty[-1].chosen, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="100 rows, 5 % flips, fewer runs")
    print(json.dumps(run(parser.parse_args().quick)))


if __name__ == "__main__":
    main()
