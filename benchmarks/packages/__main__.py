"""Runs both fuzzers and prints a line of JSON for each.

python -m benchmarks.packages --packages 2000
"""

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.packages import data_sets, fuzz

BAD = ("other exception", "changed meaning", "files outside")


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="200 of each")
    arguments = parser.parse_args()
    count, bad = 200 if arguments.quick else arguments.packages, 0
    for subject, check in (("data sets", data_sets.check), ("packages", fuzz.check)):
        outcomes: Counter[str] = Counter()
        start = time.perf_counter()
        for number in range(count):
            with tempfile.TemporaryDirectory() as name:
                outcomes[check(random.Random(f"{arguments.seed}-{number}"), Path(name), number)] += 1
        bad += sum(outcomes[outcome] for outcome in BAD)
        print(json.dumps({subject: count, **outcomes, "seconds": round(time.perf_counter() - start, 1)}))
    raise SystemExit(bad > 0)


if __name__ == "__main__":
    main()
