"""The three tasks about digits through the whole product, one after the other, and what was forgotten.

    python examples/multimodal/run.py build/digits            # with the method
    python examples/multimodal/run.py build/digits --plain    # without it

makes what is missing (make.py), then runs `lcia run`, `lcia approve`, `lcia matrix` and `lcia ask` with a state of its
own below the folder.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from make import TASKS, make

HERE = Path(__file__).parent
WAITING = 3
"""Exit code of `lcia run` where the version waits for people."""
PLAIN = ("tuning.ema.rule=none", "tuning.rehearsal.share=0", "tuning.pseudo_rehearsal.share=0")


def main() -> None:
    """See above."""
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("folder", type=Path)
    asked.add_argument("--plain", action="store_true", help="plain LoRA: no EMA, no rehearsal of any kind")
    asked.add_argument("--seed", type=int, default=0, help="of the tuning")
    told = asked.parse_args()
    folder = told.folder.absolute()
    make(folder)
    home = folder / f"{'plain' if told.plain else 'method'}-{told.seed}"
    changes = [f"base_model.name={folder / 'base'}", f"tuning.seed={told.seed}", *(PLAIN if told.plain else ())]
    os.environ["LCIA_HOME"] = str(home)
    os.environ |= {f"LCIA__{c.partition('=')[0].replace('.', '__').upper()}": c.partition("=")[2] for c in changes}
    for number, name in enumerate(TASKS, 1):
        lcia("run", folder / "tasks" / name, "--as", "site")
        lcia("approve", number, "--as", "ops", "--reason", "example: the matrix is what counts")
    lcia("matrix")
    package = folder / "tasks" / "read_digit"
    row = json.loads((package / "test.jsonl").read_text(encoding="utf-8").splitlines()[0])
    lcia("ask", row["instruction"], "--image", package / row["image"][0])
    print("right is:", row["output"])


def lcia(verb: str, *arguments: object) -> None:
    """Run a verb of the command line with this example's settings."""
    command = [sys.executable, "-m", "lcia.cli.main", verb, *map(str, arguments), "--config", str(HERE / "digits.yaml")]
    print("\n$ lcia", *command[3:-2], flush=True)
    done = subprocess.run(command, check=False)  # noqa: S603 - our own command line
    if done.returncode not in (0, WAITING):
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
