"""Tables and the plot of a results file: means, and differences with 95 % intervals by paired bootstrap.

    python -m benchmarks.method.report [--baseline plain] [--plot benchmarks/method/plane.svg]

A cell is one (order, seed). Two methods are compared on the cells both have: cells and, within each task,
test rows are drawn with replacement, the same for both.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
DRAWS = 2000


@dataclass(frozen=True)
class Cell:
    """Scores per task of one chain, tasks in a fixed order: (tasks, rows) on the diagonal and at the end."""

    new: NDArray[np.float64]
    final: NDArray[np.float64]
    last: int
    """Place of the task learnt last, which has not had the chance to be forgotten."""
    forgetting: float
    facts: dict[str, Any]


def read(file: Path) -> dict[tuple[str, str], dict[tuple[str, int], Cell]]:
    """Cells by (setting, method), then by (order, seed)."""
    cells: dict[tuple[str, str], dict[tuple[str, int], Cell]] = defaultdict(dict)
    for line in file.read_text().splitlines():
        row = json.loads(line)
        cells[row["setting"], row["method"]][row["order"], row["seed"]] = _cell(row)
    return cells


def _cell(row: dict[str, Any]) -> Cell:
    order, scores = row["tasks"], row["scores"]
    names = sorted(order)
    bits = [{task: np.array([int(c) for c in text], float) for task, text in step.items()} for step in scores]
    steps = len(order) - 1
    first = {task: order.index(task) if len(scores) > 1 else 0 for task in order}
    short = min(len(text) for step in scores for text in step.values())
    losses = [
        max(bits[j][t][:short].mean() for j in range(first[t], len(scores) - 1)) - bits[-1][t][:short].mean()
        for t in order[:-1]
        if len(scores) > 1
    ]
    return Cell(
        new=np.stack([bits[first[t]][t] for t in names]),
        final=np.stack([bits[-1][t] for t in names]),
        last=names.index(order[steps]),
        forgetting=float(np.mean(losses)) if losses else 0.0,
        facts=row,
    )


def measures(cell: Cell, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """(Avg.ACC, New.ACC, BWT) on the given rows per task (tasks, draws)."""
    new, final = cell.new, cell.final
    if rows is not None:
        new, final = np.take_along_axis(new, rows, 1), np.take_along_axis(final, rows, 1)
    a, b = new.mean(1), final.mean(1)
    others = np.arange(len(a)) != cell.last
    return np.array([b.mean(), a.mean(), (b - a)[others].mean()])


def intervals(
    cells: dict[tuple[str, int], Cell], against: dict[tuple[str, int], Cell] | None = None, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Mean measures (or differences to `against`), their 95 % intervals (2, 3), and the number of cells."""
    keys = sorted(cells.keys() & against.keys() if against else cells)
    draw = np.random.default_rng(seed)
    tasks, count = cells[keys[0]].new.shape

    def value(sample: list[tuple[str, int]], rows: NDArray[np.int64] | None) -> NDArray[np.float64]:
        own = np.mean([measures(cells[k], rows) for k in sample], axis=0)
        return own - np.mean([measures(against[k], rows) for k in sample], axis=0) if against else own

    samples = []
    for _ in range(DRAWS):
        sample = [keys[i] for i in draw.integers(len(keys), size=len(keys))]
        samples.append(value(sample, draw.integers(count, size=(tasks, count))))
    return value(keys, None), np.quantile(samples, [0.025, 0.975], axis=0), len(keys)


def table(results: dict[tuple[str, str], dict[tuple[str, int], Cell]], setting: str, baseline: str) -> str:
    """One Markdown row per method of a setting."""
    lines = [
        f"| {setting} | runs | Avg.ACC | New.ACC | BWT | Forgetting | adapters | CPU s | Avg.ACC - {baseline} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    reference = results.get((setting, baseline)) or {}
    for (where, method), cells in results.items():
        if where != setting:
            continue
        mean, ends, count = intervals(cells)
        parts = [
            f"{mean[i]:{sign}.3f} [{ends[0, i]:{sign}.3f}, {ends[1, i]:{sign}.3f}]"
            for i, sign in enumerate(["", "", "+"])
        ]
        difference = ""
        if reference and method != baseline and cells.keys() & reference.keys():
            gap, span, pairs = intervals(cells, reference)
            difference = f"{gap[0]:+.3f} [{span[0, 0]:+.3f}, {span[1, 0]:+.3f}] ({pairs})"
        loss = np.mean([c.forgetting for c in cells.values()])
        cost = np.mean([c.facts["cpu_seconds"] for c in cells.values()])
        adapters = next(iter(cells.values())).facts["adapters"]
        lines.append(
            f"| {method} | {count} | {' | '.join(parts)} | {loss:.3f} | {adapters} | {cost:.0f} | {difference} |"
        )
    return "\n".join(lines)


def plot(results: dict[tuple[str, str], dict[tuple[str, int], Cell]], setting: str, file: Path) -> None:
    """New.ACC against BWT: every method a point with its intervals, every sweep (name:value) a line."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6))
    sweeps = defaultdict(list)
    for (where, method), cells in results.items():
        if where == setting and len(next(iter(cells.values())).facts["scores"]) > 1:
            sweeps[method.partition(":")[0]].append((method, *intervals(cells)[:2]))
    for number, (name, points) in enumerate(sweeps.items()):
        points.sort(key=lambda p: p[1][2])
        x, y = [p[1][2] for p in points], [p[1][1] for p in points]
        spread = [[[abs(p[2][end, i] - p[1][i]) for p in points] for end in (0, 1)] for i in (2, 1)]
        style = {"marker": "os^Dv<>P*X"[number % 10], "color": plt.get_cmap("tab20")(number % 20), "capsize": 2}
        axes.errorbar(x, y, xerr=spread[0], yerr=spread[1], label=name, lw=1.5, elinewidth=0.5, **style)
    axes.axvline(0, color="0.8", zorder=0)
    axes.set(xlabel="BWT (right: forgets less)", ylabel="New.ACC (up: learns more)", title=f"setting: {setting}")
    axes.legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    figure.savefig(file)


def main() -> None:
    """Print the tables, write the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl")
    parser.add_argument("--baseline", default="plain")
    parser.add_argument("--against", help="print differences to this method instead, all measures")
    parser.add_argument("--plot", type=Path, help="folder for the plots")
    arguments = parser.parse_args()
    results = read(arguments.results)
    for setting in dict.fromkeys(where for where, _ in results):
        print(table(results, setting, arguments.baseline), end="\n\n")
        if arguments.against and (setting, arguments.against) in results:
            for (where, method), cells in results.items():
                shared = cells.keys() & results[setting, arguments.against].keys()
                if where == setting and method != arguments.against and shared:
                    gap, span, count = intervals(cells, results[setting, arguments.against])
                    words = (
                        f"{n} {gap[i]:+.3f} [{span[0, i]:+.3f}, {span[1, i]:+.3f}]"
                        for i, n in enumerate(("Avg", "New", "BWT"))
                    )
                    print(f"{method} - {arguments.against} ({count}): {', '.join(words)}")
        if arguments.plot:
            plot(results, setting, arguments.plot / f"{setting}.svg")


if __name__ == "__main__":
    main()
