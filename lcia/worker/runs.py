"""Pipeline runs of a worker, and results of their steps, which are found again by key."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.promotion import candidates
from components.promotion.candidates import Candidate
from components.settings import Settings
from components.storage import results
from components.storage.keys import step_key
from components.storage.leases import Lease
from components.storage.objects import ObjectStore
from components.tasks import progress
from components.tasks.queue import QueueItem
from components.tuning.starting_point import starting_point
from infra.runs import PipelineRun, run_pipeline
from lcia.instance import Instance
from steps.order import NO_BASE_MODEL, LearnContext, LearnOrder, Order


def make_order(instance: Instance, package: str, parent: str | None, answers: Mapping[str, Any] = {}) -> Order:
    """Inputs of a run on a package; `answers` are what people decided about a held task."""
    return Order(
        settings=instance.store.put_json(instance.settings.for_steps()),
        package=package,
        parent=parent,
        lineage=tuple(instance.lineage(parent)),
        **answers,
    )


AHEAD = "ahead-"
"""Beginning of the names of runs before a task's turn."""
ASSESS = ("evaluation", "grouping", "model", "quality", "tasks")
TUNE = ("model", "tuning", "grouping")
EVALUATE = ("model", "tuning", "grouping", "evaluation")
LEARN = ("promotion", "evaluation", "gate")
"""Folders of `components` whose sources decide a result; a key also holds the keys of the steps before."""


@dataclass(frozen=True)
class LearnKeys:
    """Keys of the results of `learn_task`, each over everything that its step depends on.

    Narrower than the whole run, so that a change of the gate's policy repeats neither tuning nor evaluation, and a task
    that goes on from another version is not tuned again if its group is the same there.
    """

    tune: str
    evaluate: str
    learn: str

    @classmethod
    def of(cls, store: ObjectStore, settings: Settings, order: LearnOrder, tune: str) -> "LearnKeys":
        """Keys of an order; `tune` is its `tune_key`."""
        content, group = settings.content(), store.get_json(order.assessment)["group"]
        facts = {"tune": tune, "group": group, "lineage": list(order.lineage), "superseded": order.superseded}
        evaluate = step_key("evaluate", {**facts, "origin": order.origin}, content, EVALUATE)
        inputs = {"evaluate": evaluate, "assessment": order.assessment, "attempt": order.attempt, "looks": order.looks}
        return cls(tune, evaluate, step_key("learn", inputs, content, LEARN))


def tune_key(store: ObjectStore, settings: Settings, order: LearnOrder) -> str:
    """Key of the tuning that an order asks for, over all that it reads: attempts and looks are not among it."""
    context, content = LearnContext(store, order, settings), settings.content()
    record, pool, snapshot = context.assessment(), context.pool(NO_BASE_MODEL), context.snapshot()
    start = starting_point(store, settings, snapshot, pool, record["group"], context.replacements(), order.parent)
    inputs = {"task": record["task"], "rows": snapshot.splits["train"].object, "start": start}
    return step_key("tune", inputs, {name: content[name] for name in ("base_model", "adapter", "tuning")}, TUNE)


def with_gate_history(instance: Instance, item: QueueItem, order: LearnOrder, **links: str | None) -> LearnOrder:
    """The order with what the gate has to know of earlier candidates.

    `links`: what the item's evidence will rest on. If a version of it with the same was set aside, this is no further
    attempt and no further look at anything: it is carried over.
    """
    origin = _set_aside(instance, item, links)
    return order.model_copy(
        update={
            "attempt": origin.attempt if origin else instance.next_attempt(item.name, item.owner),
            "looks": instance.anchor_looks(without=origin),
            "origin": origin.evidence if origin else None,
        }
    )


def _set_aside(instance: Instance, item: QueueItem, links: Mapping[str, str | None]) -> Candidate | None:
    """The newest version of an item if what it stood on was passed over and its evidence has these links."""
    with instance.db.read() as connection:
        mine = [one for one in candidates.versions(connection, instance.assistant) if one.item == item.id]
    newest = max(mine, key=lambda one: one.changed_at, default=None)
    if newest is None or newest.state != "superseded":
        return None
    evidence = instance.evidence(newest)
    return newest if all(digest and evidence.get(name) == digest for name, digest in links.items()) else None


@dataclass(frozen=True)
class Learning:
    """Result of learning a task."""

    evidence: str
    run: str
    """Name of the run under which MLflow showed the curves meanwhile."""
    costs: dict[str, float] = field(default_factory=dict)
    """Seconds; empty if the result was found again."""
    reports: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Runs:
    """Runs and results of the worker that holds `lease`."""

    instance: Instance
    lease: Lease
    prefix: str = ""
    """Beginning of the names of its runs in ZenML, where another worker may run the same."""

    def find(self, key: str) -> str | None:
        """Output of an earlier step under this key."""
        with self.instance.db.read() as connection:
            result = results.find(connection, key)
        return result.output if result else None

    def record(self, key: str, step: str, output: str) -> str:
        """Record the output of a step; returns it, or the one that was recorded before."""
        with self.instance.db.begin() as connection:
            return results.record(connection, self.lease, key, step, output).output

    def record_steps(self, outputs: Mapping[str, str], keys: LearnKeys) -> None:
        """Record the steps of a whole or failed `learn_task` that ended, so that nobody repeats them."""
        for step, key in (("tune", keys.tune), ("evaluate_forgetting", keys.evaluate)):
            if outputs.get(step):
                self.record(key, step, outputs[step])

    def run(self, pipeline: str, item: QueueItem, order: Order) -> PipelineRun:
        """Run `assess_task`, `learn_task`, `change_task` or `tune_task` on an item.

        Raises:
            StepFailed: with the step's own words.
        """
        from pipelines.assess_task import assess_task
        from pipelines.change_task import change_task
        from pipelines.learn_task import learn_task
        from pipelines.tune_task import tune_task

        functions = (assess_task, learn_task, change_task, tune_task)
        function = next(one for one in functions if one.name == pipeline)
        instance, name = self.instance, self.prefix + run_name(pipeline, item)
        digest = instance.store.put_json(order.model_dump(mode="json"))
        progress.clear(instance.store, item.package)
        try:
            return run_pipeline(function, name, instance.settings, instance.home, digest)
        finally:
            progress.clear(instance.store, item.package)


def ahead_lease(instance: Instance, item: QueueItem) -> str:
    """Lease of whoever tunes an item before its turn."""
    return f"ahead:{instance.assistant}:{item.id}"


def run_name(pipeline: str, item: QueueItem) -> str:
    """Name of a run in ZenML."""
    return f"{pipeline}-{item.id}-{item.name}-{item.version.replace('+', '-')}"
