"""Fifty tasks in five groups out of the rows of five example tasks, tuned a little, learnt one after the other."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.evaluation.forgetting import Forgetting, ParentVersion
from components.evaluation.prediction import Evaluator
from components.grouping.pool import Pool
from components.model.adapters import store_adapter
from components.model.prompts import render
from components.model.workbench import Workbench
from components.settings import BaseModelSettings, EmaSettings, EvaluationSettings, Settings, StorageSettings
from components.storage.objects import ObjectStore
from components.tasks.package import Package, read_package
from components.tasks.snapshot import Snapshot, take_snapshot
from components.tuning.tuner import Parent, tune

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
GROUPS = ("movie_sentiment", "request_domain", "passive_voice", "grammar_check", "assistant_intent")
CONFIG = "c" * 64
STRIDE = 40
"""Rows of the example task from one of its parts to the next."""


@dataclass(frozen=True)
class Size:
    """Tasks a group, rows a task, and optimizer steps of a group's first and later tasks."""

    tasks: int
    train: int
    test: int
    validation: int
    steps: tuple[int, int]
    recheck: int = 1
    """Carried rows predicted again; the default of 8 is for tasks of a few hundred rows."""


FULL = Size(tasks=10, train=20, test=6, validation=2, steps=(40, 5))
QUICK = Size(tasks=2, train=12, test=6, validation=2, steps=(10, 2))


@dataclass
class Clock:
    """CPU seconds of the model's work within one evaluation."""

    seconds: float = 0.0

    def around(self, function):
        def timed(*args, **options):
            start = time.process_time()
            try:
                return function(*args, **options)
            finally:
                self.seconds += time.process_time() - start

        return timed


@dataclass
class Learnt:
    """One evaluation: its record, CPU seconds of predicting the test rows in all and of the model's part of it.

    Validation, which chooses a point of the curve, is no part of it: every evaluator does that.
    """

    name: str
    record: dict[str, Any]
    seconds: float
    model_seconds: float

    @property
    def overhead(self) -> float:
        """CPU seconds beside the model's work."""
        return self.seconds - self.model_seconds


@dataclass
class Chain:
    """The tasks, their adapters, and the versions that learn them."""

    work: Path
    models: str
    size: Size
    settings: Settings = field(init=False)
    bench: Workbench = field(init=False)
    store: ObjectStore = field(init=False)

    def __post_init__(self) -> None:
        self.settings = Settings(
            base_model=BaseModelSettings(device="cpu", threads=1),
            storage=StorageSettings(models=self.models),
            evaluation=EvaluationSettings(validation_rows=self.size.validation, recheck_rows=self.size.recheck),
        )
        self.bench = Workbench.load(self.settings, print)
        self.store = ObjectStore(f"file://{self.work.absolute()}/objects")

    @property
    def nobody(self) -> ParentVersion:
        """The base model alone."""
        return ParentVersion(None, Pool.empty("assistant", self.bench.base.digest), None)

    def snapshots(self) -> list[Snapshot]:
        """All tasks, the groups taking turns; each has rows of its own."""
        packages = [read_package(EXAMPLES / name) for name in GROUPS]
        return [self._snapshot(package, k) for k in range(self.size.tasks) for package in packages]

    def _snapshot(self, package: Package, k: int) -> Snapshot:
        size, rows = self.size, package.splits["train"]
        start, middle = k * STRIDE, k * STRIDE + size.train
        splits = {
            "train": rows[start:middle],
            "test": rows[middle : middle + size.test],
            "validation": package.splits["validation"][k * size.validation : (k + 1) * size.validation],
        }
        task = package.task.model_copy(update={"name": f"{package.task.name}_{k + 1:02d}"})
        return take_snapshot(Package(package.path, task, splits, ()), self.store)

    def adapter(self, snapshot: Snapshot, parent: str | None) -> str:
        """The parent adapter after a few steps on the task; tuned once and remembered."""
        index = self.work / "adapters.json"
        digests = json.loads(index.read_text()) if index.exists() else {}
        key = f"{snapshot.splits['train'].object} {parent} {self.size.steps}"
        if key not in digests:
            slot, base = self.bench.slot, self.bench.base
            rows = [
                render(base.tokenizer, base.settings, r.instruction, r.input, r.output) for r in snapshot.rows("train")
            ]
            steps = self.size.steps[1 if parent else 0]
            start = Parent(slot.fetch(self.store, parent), None) if parent else None
            settings = self.settings.tuning.model_copy(update={"steps": steps, "ema": EmaSettings(rule="none")})
            tensors = tune(self.bench.trunk, slot, rows, (), start, settings, None).points["live"]
            digests[key] = store_adapter(self.store, slot.files(tensors, base.digest))
            index.write_text(json.dumps(digests))
        return digests[key]

    def learn(self, snapshot: Snapshot, champion: ParentVersion, group: str | None, evaluator: Evaluator) -> Learnt:
        """Evaluate a candidate that learnt the task, with the clock running."""
        adapter = self.adapter(snapshot, champion.pool.group(group).adapter if group else None)
        tuning = {"group": group, "points": {"live": adapter}, "curvature": None, "kept_rows": None}
        clock = Clock()
        evaluation = Forgetting(self.store, self.settings, evaluator, champion, snapshot)
        validation = Clock()
        validate = evaluation._validate  # noqa: SLF001

        def validated(tuning):
            before = clock.seconds
            result = validation.around(validate)(tuning)
            clock.seconds = before
            return result

        evaluation._validate = validated  # noqa: SLF001
        evaluation._canary = clock.around(evaluation._canary)  # noqa: SLF001
        predict, evaluator.predict = evaluator.predict, clock.around(evaluator.predict)
        start = time.process_time()
        digest = evaluation.run(tuning, CONFIG)
        seconds = time.process_time() - start - validation.seconds
        evaluator.predict = predict
        return Learnt(evaluation.name, self.store.get_json(digest), seconds, clock.seconds)

    def champion(self, record: dict[str, Any]) -> ParentVersion:
        """The candidate of an evaluation as the next one's champion."""
        return ParentVersion(record["pool"], Pool.from_manifest(self.store.get_json(record["pool"])), record)

    def run(self, *, kept_states: bool) -> Iterator[tuple[Learnt, ParentVersion, Snapshot]]:
        """Learn all tasks; gives each evaluation with the champion it started from. `kept_states`: one trunk cache."""
        champion, evaluator = self.nobody, self.evaluator()
        for number, snapshot in enumerate(self.snapshots()):
            group = None if number < len(GROUPS) else f"g{number % len(GROUPS) + 1}"
            learnt = self.learn(snapshot, champion, group, evaluator if kept_states else self.evaluator())
            yield learnt, champion, snapshot
            champion = self.champion(learnt.record)

    def evaluator(self, batch_rows: int | None = None) -> Evaluator:
        """An evaluator with an empty trunk cache."""
        return Evaluator(self.bench.trunk, self.bench.slot, batch_rows or self.settings.evaluation.batch_rows)
