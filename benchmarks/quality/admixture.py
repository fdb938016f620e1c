"""Share of planted admixtures found, by size, and false alarms: `python -m benchmarks.quality.admixture`."""

from itertools import permutations
from pathlib import Path

import numpy as np

from components.quality.admixture import unlike_rows
from components.tasks.package import read_package
from components.tasks.rows import Example

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
RESPLITS = 6


def text_of(row: Example) -> str:
    return row.subject


def main() -> None:
    splits = {path.name: read_package(path).splits for path in sorted(EXAMPLES.iterdir()) if path.is_dir()}
    train = {name: [text_of(row) for row in found["train"]] for name, found in splits.items()}
    held = {n: [text_of(row) for row in (*found["validation"], *found["test"])] for n, found in splits.items()}
    rng = np.random.default_rng(1)
    alarms = [unlike_rows(held[name], train[name], 0).excess.low > 0 for name in splits]
    print(f"clean tasks: {sum(alarms)} alarms of {len(alarms)}", flush=True)
    again = []
    for name in splits:
        texts = [*train[name], *held[name]]
        for _ in range(RESPLITS):
            order = rng.permutation(len(texts))
            sides = [[texts[i] for i in part] for part in (order[600:], order[:600])]
            again.append(unlike_rows(*sides, 0).excess.low > 0)
    print(f"clean tasks split anew: {sum(again)} alarms of {len(again)}", flush=True)
    print("| foreign rows | admixtures found | rows named that are foreign | not found |\n|---|---|---|---|")
    for share in (0.02, 0.05, 0.1, 0.2):
        hits, right, missed = [], [], []
        for host, foreign in permutations(splits, 2):
            rows, planted = list(train[host]), rng.permutation(600)[: round(share * 600)]
            for place, index in enumerate(planted):
                rows[index] = train[foreign][place]
            found = unlike_rows(held[host], rows, 0)
            hits.append(found.excess.low > 0)
            if hits[-1]:
                right.append(np.mean([row in set(planted.tolist()) for row in found.rows[:20]]))
            else:
                missed.append(f"{foreign} in {host}")
        names = "; ".join(missed) if len(missed) <= 6 else f"{len(missed)} pairs"
        named = f"{np.mean(right):.2f}" if right else ""
        print(f"| {share:.0%} | {sum(hits)} of {len(hits)} | {named} | {names} |", flush=True)


if __name__ == "__main__":
    main()
