"""One inbox, two workers that watch it and a one-shot beside them, killed at random: is each package learnt once?

Real processes (`lcia work`) on SQLite; packages are cut from the example tasks, no row twice.
A killer sends SIGKILL to one of the three at random times and starts it again, as Kubernetes would.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml

from components.errors import LciaError
from components.settings import load_settings
from lcia import auditing, verbs
from lcia.workplace import Workplace, actor

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "tasks"
ROWS = {"train": 14, "validation": 6, "test": 6}
SETTINGS = {
    "adapter": {"rank": 2, "alpha": 4, "top_layers": 1},
    "tuning": {"steps": 4, "batch_size": 2, "checkpoint_every": 2, "learning_rate": 0.02, "ema": {"fisher_rows": 4}},
    "evaluation": {"validation_rows": 4, "recheck_rows": 2},
    "quality": {"validation": {"min_rows": 5}, "known": {"force": True}},
    "policy": {"gate": {"enforce": False}},
    "inbox": {"quiet_seconds": 0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=25.0, help="mean seconds between two kills")
    parser.add_argument("--base", help="folder of a tiny base model; default: the embedded one")
    parser.add_argument("--quick", action="store_true", help="six packages")
    given = parser.parse_args()
    count = 6 if given.quick else given.packages
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(contest(Path(name), given.base, count, random.Random(given.seed), given.every)))


def contest(folder: Path, base: str | None, count: int, dice: random.Random, every: float) -> dict[str, object]:
    """Let them work until the inbox is empty and nothing is open; returns what was found."""
    inbox = folder / "inbox"
    inbox.mkdir()
    config = folder / "zenml.yaml"
    named = {"name": base} if base else {}
    told = {"base_model": {**named, "device": "cpu", "threads": 1}, **SETTINGS}
    told["inbox"] = {"url": str(inbox), "quiet_seconds": 0}
    config.write_text(yaml.safe_dump(told), encoding="utf-8")
    write_packages(folder / "made", count)
    environment = {**os.environ, "LCIA_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    lcia = [sys.executable, "-m", "lcia.cli"]
    where = ["--config", str(config)]
    log = (folder / "log").open("wb")

    def start(number: int) -> subprocess.Popen[bytes]:
        mode = ["--watch", "--every", "1"] if number < 2 else ["--once"]
        return subprocess.Popen([*lcia, "work", *mode, *where], cwd=ROOT, env=environment, stdout=log, stderr=log)

    place = Workplace.open(folder / "home", load_settings(config, home_folder=folder / "home"))
    packages = sorted((folder / "made").iterdir())
    began, kills = time.monotonic(), 0
    workers = [start(number) for number in range(3)]
    next_kill = time.monotonic() + dice.expovariate(1 / every)
    try:
        while True:
            if packages:  # they come in while the workers are at work
                shutil.move(packages[0], inbox / f".{packages[0].name}")
                (inbox / f".{packages[0].name}").rename(inbox / packages.pop(0).name)
            for number, worker in enumerate(workers):
                if worker.poll() is not None:
                    workers[number] = start(number)
            if time.monotonic() > next_kill:
                dice.choice(workers).kill()
                kills += 1
                next_kill = time.monotonic() + dice.expovariate(1 / every)
            time.sleep(1)
            states = answer(place)
            waits = [path for path in inbox.iterdir() if path.name not in ("done", "refused")]
            if (
                not packages
                and not waits
                and not states & {"submitted", "assessing", "waiting", "learning", "candidate"}
            ):
                break
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    status = verbs.status(place)
    labels = Counter(candidate["task_name"] for candidate in status["candidates"])
    parents = [candidate["parent"] for candidate in status["candidates"]]
    return {
        "packages": count,
        "states": dict(Counter(item["state"] for item in status["queue"]["items"])),
        "learnt_twice": sum(n > 1 for n in labels.values()),
        "serial": parents == [None, *(candidate["digest"] for candidate in status["candidates"][:-1])],
        "kills": kills,
        "log_verifies": auditing.verify(place).ok,
        "seconds": round(time.monotonic() - began),
    }


def answer(place: Workplace) -> set[str]:
    """Approve what waits, answer what is held; returns the states that tasks are in."""
    status = verbs.status(place)
    for candidate in status["candidates"]:
        if candidate["state"] == "pending":
            verbs.approve(place, str(candidate["number"]), actor("ops"), "as every one here")
    for item in status["queue"]["items"]:
        if item["state"] == "held":
            with contextlib.suppress(LciaError):
                verbs.regroup(place, item["id"], "new", actor("ops"), "a group of its own")
    return {item["state"] for item in verbs.status(place)["queue"]["items"]}


def write_packages(folder: Path, count: int) -> None:
    """Packages of rows that no other has."""
    names = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
    for number in range(count):
        name, turn = names[number % len(names)], number // len(names)
        task = yaml.safe_load((EXAMPLES / name / "task.yaml").read_text(encoding="utf-8"))
        package = folder / f"{number:03}-{name}"
        package.mkdir(parents=True)
        if task.get("choices"):
            task["decoding"] = {"mode": "choose"}
        task.pop("target", None)
        header = {**task, "name": f"{name}_{turn}", "version": "1"}
        (package / "task.yaml").write_text(yaml.safe_dump(header), encoding="utf-8")
        for split, rows in ROWS.items():
            lines = (EXAMPLES / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
            mine = lines[turn * rows : (turn + 1) * rows]
            (package / f"{split}.jsonl").write_text("\n".join(mine) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
