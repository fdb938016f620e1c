"""Runs every attack against a real installation; the last line of the output is one JSON object.

python -m benchmarks.attacks            needs root, PostgreSQL's programs and setpriv
python -m benchmarks.attacks --only streams
"""

import argparse
import json
import logging
import time

from benchmarks.attacks import accounts, bombs, files, network, people
from benchmarks.attacks.attack import ATTACKS, GotThrough
from benchmarks.attacks.installation import installation

MODULES = (accounts, files, network, bombs, people)
"""In the order of their attacks; those of `people` move the champion, so they come last."""


def main() -> None:
    """Run and report.

    Raises:
        SystemExit: an attack got through, or is broken.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="attacks of one kind, or one by name")
    parser.add_argument("--verbose", action="store_true", help="what each bomb took")
    arguments = parser.parse_args()
    only = arguments.only
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="%(message)s")
    chosen = [one for one in ATTACKS if only in (None, one.kind, one.name)]
    outcomes: list[bool] = []
    with installation() as system:
        print("| kind | attacker holds | attack | outcome | seconds |\n|---|---|---|---|---|")
        for one in chosen:
            begun, outcome = time.monotonic(), "held"
            try:
                one.run(system)
            except GotThrough as through:
                outcome = f"GOT THROUGH: {through}"
            except Exception as error:  # noqa: BLE001 - an attack that breaks off proves nothing
                outcome = f"broken: {type(error).__name__}: {error}"
            outcomes.append(outcome == "held")
            words = outcome.replace("\n", " ").replace("|", "/")[:1500]
            print(f"| {one.kind} | {one.by} | {one.words} | {words} | {time.monotonic() - begun:.1f} |", flush=True)
    print(json.dumps({"attacks": len(outcomes), "held": sum(outcomes)}))
    raise SystemExit(not all(outcomes))


if __name__ == "__main__":
    main()
