"""One inbox, two workers that watch it and a one-shot beside them, killed at random: is each package learnt once?

Real processes (`lcia work`) on SQLite; packages are cut from the example tasks, no row twice.
A killer sends SIGKILL to one of the three at random times; it is started again, as Kubernetes would.
Each life begins with imports of many CPU seconds, so the one-shot rests between two, as that of a schedule does.
"""

import argparse
import contextlib
import json
import math
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
from lcia.instance import Instance, actor
from lcia.operations import audit, decisions, tasks
from lcia.operations import status as status_operations

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "tasks"
ROWS = {"train": 14, "validation": 6, "test": 6}
AHEAD = 10
"""Packages that lie in the inbox or wait in the queue."""
ONE_SHOT = 2
REST_SECONDS = 60
"""Between the end of the one-shot and its next start."""
DONE = {"promoted", "refused", "nothing_to_learn", "failed", "cancelled", "rejected"}
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
    parser.add_argument("--minutes", type=float, default=math.inf, help="after that no more packages come in")
    parser.add_argument("--base", help="folder of a tiny base model; default: the embedded one")
    parser.add_argument("--quick", action="store_true", help="six packages")
    arguments = parser.parse_args()
    count = 6 if arguments.quick else arguments.packages
    with tempfile.TemporaryDirectory() as name:
        dice, last = random.Random(arguments.seed), time.monotonic() + arguments.minutes * 60
        print(json.dumps(contest(Path(name), arguments.base, count, dice, arguments.every, last)))


def contest(
    folder: Path, base: str | None, count: int, dice: random.Random, every: float, last: float
) -> dict[str, object]:
    """Let them work until the inbox is empty and nothing is open; returns what was found.

    Packages come in one a second, each whole, but never more than `AHEAD` before the workers, until the time `last`.
    """
    inbox = folder / "inbox"
    inbox.mkdir()
    config = folder / "zenml.yaml"
    name = {"name": base} if base else {}
    settings = {"base_model": {**name, "device": "cpu", "threads": 1}, **SETTINGS}
    settings["inbox"] = {"url": str(inbox), "quiet_seconds": 0}
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    write_packages(folder / "made", count)
    instance = Instance.open(folder / "home", load_settings(config, home_folder=folder / "home"))
    packages = sorted((folder / "made").iterdir())
    began, given = time.monotonic(), 0
    crew = Crew(config, folder / "home", dice, every)
    try:
        while True:
            states = answer(instance)
            is_open = given - sum(states[state] for state in DONE)
            packages = packages if time.monotonic() < last else []
            if packages and is_open < AHEAD:  # they come in while the workers are at work
                package = packages.pop(0)
                shutil.move(package, inbox / f".{package.name}")
                (inbox / f".{package.name}").rename(inbox / package.name)
                given += 1
            elif not is_open:
                break
            crew.live_on()
            time.sleep(1)
    finally:
        crew.end()
    status = status_operations.status(instance)
    labels = Counter(candidate["task_name"] for candidate in status["candidates"])
    parents = [candidate["parent"] for candidate in status["candidates"]]
    return {
        "packages": given,
        "states": dict(Counter(item["state"] for item in status["queue"]["items"])),
        "learnt_twice": sum(n > 1 for n in labels.values()),
        "serial": parents == [None, *(candidate["digest"] for candidate in status["candidates"][:-1])],
        "kills": crew.kills,
        "log_verifies": audit.verify(instance).ok,
        "seconds": round(time.monotonic() - began),
    }


class Crew:
    """Two workers that watch and a one-shot; SIGKILL comes to one of them every `every` seconds in the mean."""

    def __init__(self, config: Path, home: Path, dice: random.Random, every: float) -> None:
        self.where, self.dice, self.every, self.kills = ["--config", str(config)], dice, every, 0
        self.environment = {**os.environ, "LCIA_HOME": str(home), "OMP_NUM_THREADS": "1"}
        self.workers = [self._start(number) for number in range(3)]
        self.due = [0.0] * 3
        self.next_kill = time.monotonic() + dice.expovariate(1 / every)

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        mode = ["--once"] if number == ONE_SHOT else ["--watch", "--every", "1"]
        return subprocess.Popen(
            [sys.executable, "-m", "lcia.cli.main", "work", *mode, *self.where], cwd=ROOT, env=self.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def live_on(self) -> None:
        """Start again what has ended, and kill where it is time to."""
        moment = time.monotonic()
        for number, worker in enumerate(self.workers):
            if worker.poll() is None:
                self.due[number] = moment + (REST_SECONDS if number == ONE_SHOT else 0)
            elif moment >= self.due[number]:
                self.workers[number] = self._start(number)
        running = [worker for worker in self.workers if worker.poll() is None]
        if moment > self.next_kill and running:
            self.dice.choice(running).kill()
            self.kills += 1
            self.next_kill = moment + self.dice.expovariate(1 / self.every)

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()


def answer(instance: Instance) -> Counter[str]:
    """Approve what waits, answer what is held; returns how many tasks are in each state."""
    status = status_operations.status(instance)
    for candidate in status["candidates"]:
        if candidate["state"] == "pending":
            decisions.approve(instance, str(candidate["number"]), actor("ops"), "as every one here")
    for item in status["queue"]["items"]:
        if item["state"] == "held":
            with contextlib.suppress(LciaError):
                tasks.regroup(instance, actor("ops"), item["id"], "new", "a group of its own")
    return Counter(item["state"] for item in status["queue"]["items"])


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
