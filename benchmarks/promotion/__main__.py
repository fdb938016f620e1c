"""Promotion and rollback under load: many approvers at once over HTTP, on SQLite and PostgreSQL.

The rounds are those of tests/promotion/test_many_approvers.py, which checks each of them: one promotion, the others
refused with the reason, a log that verifies. The last line of the output is one JSON object, seconds by database.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST = "tests/promotion/test_many_approvers.py"


def measure(approvers: int, rounds: int) -> list[dict[str, object]]:
    """One line per database.

    Raises:
        SystemExit: a round went wrong.
    """
    environment = {"LCIA_APPROVERS": str(approvers), "LCIA_ROUNDS": str(rounds), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", TEST, "-q", "-s", "-p", "no:cacheprovider"]
    process = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=False
    )
    lines = [line.lstrip(".") for line in process.stdout.splitlines()]
    results = [json.loads(line) for line in lines if line.startswith('{"database"')]
    if process.returncode or not results:
        raise SystemExit(process.stdout)
    return results


def main() -> None:
    """Print a table and one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.promotion", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="12 approvers and 2 rounds instead of 50 and 20")
    quick = parser.parse_args().quick
    results = measure(12, 2) if quick else measure(50, 20)
    print("| database | approvers | rounds | seconds a round | seconds of a rollback |\n|---|---|---|---|---|")
    for one in results:
        print("|", " | ".join(str(value) for value in one.values()), "|")
    print(json.dumps({str(one["database"]): {k: v for k, v in one.items() if k != "database"} for one in results}))


if __name__ == "__main__":
    main()
