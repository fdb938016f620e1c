"""Tasks of many sites while people take their time: hours from submission to candidate and to champion (README).

    python -m benchmarks.flow --tasks 100
    python -m benchmarks.flow --tasks 100 --longest 1

Real components on a tiny model with real rows; only the clock is simulated. The worker's time is what it took here,
times --scale; people decide --hours after a version is ready, and reject a share of them. With --longest 1 every task
waits while one version is undecided, as it was before there were trains.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.long_stream.variants import variants, write_variants
from benchmarks.superni.methods import GOES_ON
from benchmarks.superni.stream import SECOND, SITE, answer_held, open_state
from components.promotion import candidates
from components.promotion.candidates import Candidate
from components.tasks import queue
from lcia.instance import Instance
from lcia.operations import decisions, tasks
from lcia.worker import loop
from tests.support.tiny_models import write_tiny_llama

ROWS = {"train": 30, "validation": 7, "test": 15}
TINY = (
    "base_model.device=cpu",
    "base_model.threads=1",
    "adapter.rank=2",
    "adapter.alpha=4",
    "adapter.top_layers=1",
    "tuning.steps=6",
    "tuning.batch_size=2",
    "tuning.learning_rate=0.02",
    "tuning.ema.fisher_rows=4",
    "evaluation.validation_rows=6",
    "quality.validation.min_rows=5",
    "evaluation.recheck_rows=2",
    "grouping.encoder=tfidf",
)
"""A tuning of seconds: this is about the way of tasks, not about what they learn."""


@dataclass
class Flow:
    """The installation, its clock, and the moments of each task, in hours."""

    instance: Instance
    hours: float
    rejected: float
    scale: float
    dice: random.Random
    clock: float = 0.0
    busy: float = 0.0
    submitted_at: dict[int, float] = field(default_factory=dict)
    candidate_at: dict[int, float] = field(default_factory=dict)
    champion_at: dict[int, float] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    """Undecided version -> moment of the decision."""
    answers: dict[int, bool] = field(default_factory=dict)
    """Item -> False if people will reject what it teaches."""
    work_seconds: list[float] = field(default_factory=list)
    longest: int = 0

    def submit(self, package: Path) -> None:
        """A site hands a task in now."""
        item = tasks.submit(self.instance, package, SITE)
        self.submitted_at[item.id] = self.clock

    def work(self) -> bool:
        """Advance one task as far as it goes; False if there is nothing to do."""
        item = loop.next_item(self.instance)
        if item is None:
            return False
        start = time.monotonic()
        for after in loop.work(self.instance, SITE, _quiet, item.id):
            if after.state == "held":
                answer_held(self.instance, after)
        seconds = time.monotonic() - start
        self.work_seconds.append(seconds)
        self.clock += seconds * self.scale / 3600
        self.busy += seconds * self.scale / 3600
        self._note()
        return True

    def decide(self) -> None:
        """Everything that people decide by now, in order."""
        while self.due and min(self.due.values()) <= self.clock:
            digest = min(self.due, key=self.due.__getitem__)
            moment = self.due.pop(digest)
            version = self.instance.version(digest)
            if version is None or version.state != "pending":
                continue
            item = int(version.item or 0)
            yes = self.answers.setdefault(item, self.dice.random() >= self.rejected)
            if yes:
                decisions.approve(self.instance, digest, SECOND, "benchmark")
            else:
                decisions.reject(self.instance, digest, SECOND, "benchmark")
            self._note(moment)

    def _note(self, moment: float | None = None) -> None:
        now = self.clock if moment is None else moment
        versions = self.versions()
        self.longest = max(self.longest, sum(one.state == "pending" for one in versions))
        for version in versions:
            item = int(version.item or 0)
            self.candidate_at.setdefault(item, now)
            if version.state == "pending":
                self.due.setdefault(version.digest, now + self.hours)
            elif version.state == "promoted":
                self.champion_at.setdefault(item, now)

    def versions(self) -> list[Candidate]:
        """Every version so far."""
        with self.instance.db.read() as connection:
            return candidates.versions(connection, self.instance.assistant)


def _quiet(_: str) -> None:
    """Nobody reads along."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the simulation and print the table and one JSON line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flow", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--hours", type=float, default=8.0, help="from a version to the decision about it")
    parser.add_argument("--rejected", type=float, default=0.1, help="share of tasks that people reject")
    parser.add_argument("--every", type=float, default=1.0, help="hours between two submissions, on average")
    parser.add_argument("--scale", type=float, default=240.0, help="simulated seconds for each second of work")
    parser.add_argument("--longest", type=int, default=20, help="train.longest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path(".lcia/flow"))
    parser.add_argument("--quick", action="store_true", help="6 tasks")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.tasks, arguments.every = 6, 0.3
    work = arguments.work.absolute()
    if work.exists():
        raise SystemExit(f"{work} is there already; a simulation begins with an empty state: name another --work")
    (work / "home").mkdir(parents=True)
    write_tiny_llama(work / "model")
    overrides = [*GOES_ON, *TINY, f"base_model.name={work / 'model'}", f"train.longest={arguments.longest}"]
    flow = Flow(
        open_state(work / "home", overrides),
        arguments.hours,
        arguments.rejected,
        arguments.scale,
        random.Random(arguments.seed),
    )
    packages = _packages(work / "packages", arguments.tasks, arguments.sites)
    arrivals, moment = [], 0.0
    for package in packages:
        arrivals.append((moment, package))
        moment += flow.dice.expovariate(1 / arguments.every)
    simulate(flow, arrivals)
    print(json.dumps({**vars(arguments), "work": None, **figures(flow)}))


def _packages(folder: Path, count: int, sites: int) -> list[Path]:
    packages = write_variants(variants(count), folder, ROWS)
    for number, package in enumerate(packages):
        file = package / "task.yaml"
        header = {**yaml.safe_load(file.read_text(encoding="utf-8")), "owner": f"site-{number % sites}"}
        file.write_text(yaml.safe_dump(header), encoding="utf-8")
    return packages


def simulate(flow: Flow, arrivals: list[tuple[float, Path]]) -> None:
    """Until every task is decided; a decision that falls during a piece of work counts at its end."""
    waiting = list(arrivals)
    while True:
        while waiting and waiting[0][0] <= flow.clock:
            flow.submit(waiting.pop(0)[1])
        flow.decide()
        if flow.work():
            continue
        ahead = [*(moment for moment, _ in waiting[:1]), *flow.due.values()]
        if not ahead:
            return
        flow.clock = max(flow.clock, min(ahead))


def figures(flow: Flow) -> dict[str, Any]:
    """Hours per task, and how much was done twice."""
    instance, versions = flow.instance, flow.versions()
    with instance.db.read() as connection:
        states = [one.state for one in queue.items(connection, instance.assistant)]
    tunings: dict[int, set[str]] = {}
    for version in versions:
        tunings.setdefault(int(version.item or 0), set()).add(str(instance.evidence(version)["tuning"]))
    to_candidate = [flow.candidate_at[item] - start for item, start in flow.submitted_at.items()
                    if item in flow.candidate_at]  # fmt: skip
    to_champion = [flow.champion_at[item] - start for item, start in flow.submitted_at.items()
                   if item in flow.champion_at]  # fmt: skip
    return {
        "learnt": len(to_candidate),
        "promoted": states.count("promoted"),
        "rejected_tasks": states.count("rejected"),
        "hours_to_candidate": {"median": round(median(to_candidate), 2), "most": round(max(to_candidate), 2)},
        "hours_to_champion": {"median": round(median(to_champion), 2), "most": round(max(to_champion), 2)},
        "hours_in_all": round(flow.clock, 1),
        "worker_busy": round(flow.busy / flow.clock, 3),
        "hours_of_one_task": round(median(flow.work_seconds) * flow.scale / 3600, 3),
        "carried_over": sum("origin" in instance.evidence(version) for version in versions),
        "learnt_again": sum(len(each) - 1 for each in tunings.values()),
        "most_undecided": flow.longest,
    }
