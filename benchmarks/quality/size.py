"""Time and memory of checking 100,000 rows: `python -m benchmarks.quality.size [ROWS]`."""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from components.quality.validation import validate
from components.settings import ValidationSettings
from components.storage.objects import ObjectStore
from components.tasks.package import Package, read_package
from components.tasks.rows import Example
from components.tasks.snapshot import load_snapshot, take_snapshot

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"


def rows_like(package: Package, count: int, seed: int) -> list[Example]:
    """Rows of an example task's words, each drawn anew: no two alike."""
    rng = np.random.default_rng(seed)
    train = package.splits["train"]
    vocabulary = np.array(sorted({word for row in train for word in (row.input or "").split()}))
    out = []
    for index in range(count):
        row = train[index % len(train)]
        words = rng.choice(vocabulary, max(4, len((row.input or "").split())))
        out.append(Example(row.instruction, f"{' '.join(words)} {seed}-{index}", row.output))
    return out


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    package = read_package(EXAMPLES / "movie_sentiment")
    with tempfile.TemporaryDirectory() as folder:
        store = ObjectStore(f"file://{folder}/objects")
        sizes = {"train": count * 8 // 10, "validation": count // 10, "test": count // 10}
        splits = {s: tuple(rows_like(package, n, seed)) for seed, (s, n) in enumerate(sizes.items())}
        digest = take_snapshot(Package(package.path, package.task, splits, ()), store).digest
        del splits
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        wall, cpu = time.perf_counter(), time.process_time()
        result = validate(load_snapshot(store, digest), [], ValidationSettings())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    measured = {"rows": count, "wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "peak_mb": round(peak)}
    print(json.dumps({**measured, "peak_before_mb": round(before), "verdict": result.verdict}))
    print({(c.name, c.split): c.seen for c in result.checks if not c.success} or "all checks hold")


if __name__ == "__main__":
    main()
