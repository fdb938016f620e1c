"""The worker: holds the lease, runs the pipelines, turns their results into rows and log entries."""

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from components.audit.log import Actor
from components.promotion import candidates
from components.promotion.automatic import promote_waiting
from components.promotion.candidates import Candidate
from components.quality.fingerprints import result_name, store_fingerprints
from components.quality.omissions import Omission
from components.registry.publication import publication
from components.settings import changed_keys
from components.storage import results
from components.storage.keys import step_key
from components.storage.leases import Lease
from components.storage.objects import ObjectMissing
from components.tasks import progress, queue
from components.tasks.problems import Problem
from components.tasks.quarantine import quarantine
from components.tasks.queue import QueueItem
from components.tasks.snapshot import load_snapshot
from components.tuning.progress_curves import read_curves
from infra.runs import PipelineRun, StepFailed, describe_run, finished_outputs, load, run_pipeline
from lcia.instance import Instance
from lcia.lineage import hold_lineage
from lcia.worker import costs as estimates
from lcia.worker import inbox, live_curves
from steps.order import LearnOrder, Order

LOG = logging.getLogger("lcia.worker.loop")

REFUSALS = frozenset({"PackageError", "SnapshotError"})
"""Step errors that are the package's fault, not the machine's."""

Say = Callable[[str], None]


def work(instance: Instance, actor: Actor, say: Say, only: int | None = None) -> list[QueueItem]:
    """Bring every open item of the queue (or only one) as far as it can go; returns the items touched.

    Without `only` packages are taken from the inbox too, before each task: the lease is the only lock of both.

    Raises:
        InboxUnusable: see `arrivals.take`.
        LineageBusy: another live worker holds the lease.
    """
    touched: dict[int, QueueItem] = {}
    with hold_lineage(instance.db, instance.assistant, "worker") as lease:
        _tell(instance, say)  # what a crash left untold
        while True:
            instance = instance.current()  # admins may have accepted another policy meanwhile
            if only is None:
                for arrived in inbox.take(instance, say):
                    say(f"{arrived.name}@{arrived.version} came through the inbox: item {arrived.id}")
            item = _next(instance, only)
            if item is None:
                break
            item = Advance(instance, lease, actor, say).run(item)
            touched[item.id] = item
            _tell(instance, say)
    return list(touched.values())


def _tell(instance: Instance, say: Say) -> None:
    for delivery in instance.tell_registry():
        if not delivery.ok:
            say(f"  MLflow not updated yet: {delivery.message}")


def _next(instance: Instance, only: int | None) -> QueueItem | None:
    """The next item something can be done about; `waiting` ones only when no candidate is undecided."""
    with instance.db.read() as connection:
        undecided = candidates.versions(connection, instance.assistant, "pending")
        ready = tuple(state for state in queue.OPEN if state != "waiting" or not undecided)
        return queue.next_item(connection, instance.assistant, ready, only)


class Advance:
    """One item on its way through the pipelines."""

    def __init__(self, instance: Instance, lease: Lease, actor: Actor, say: Say) -> None:
        self.instance, self.lease, self.actor, self.say = instance, lease, actor, say

    def run(self, item: QueueItem) -> QueueItem:
        """As far as this item can go now."""
        if item.state == "waiting":
            item = self._move(item, "submitted", "nothing is undecided any more; assessed on the present champion")
        champion = self.instance.champion()
        parent = champion.digest if champion else None
        if item.state == "learning" and self._assessment(item)["parent"] != parent:
            item = self._move(item, "submitted", "the champion moved on; it is assessed again")
        if item.state == "learning" and self._assessment(item)["grouping"].get("merge"):  # of an earlier release
            item = self._move(item, "submitted", "groups are no longer merged at the cap; it is assessed again")
        if item.state in ("submitted", "assessing"):
            item = self._assess(item, parent)
        return self._learn(item, parent) if item.state == "learning" else item

    def _assess(self, item: QueueItem, parent: str | None) -> QueueItem:
        item = self._move(item, "assessing", "data validation, drift check and grouping")
        self.say(f"{item.name}@{item.version}: assess_task (validation, drift, grouping)")
        order = self._order(item, parent).model_copy(update={"fingerprints": self._fingerprints(item, parent)})
        key = step_key(
            "assess",
            {"package": item.package, "parent": parent, "answers": item.answers},
            self.instance.settings.content(),
            ("evaluation", "grouping", "model", "quality", "tasks"),
        )
        digest = self._known(key)
        if digest is None:
            try:
                run = self._pipeline("assess_task", item, order)
            except StepFailed as failure:
                return self._refuse(item, failure)
            digest = self._record(key, "assess", run.outputs["group_instructions"])
        record = self.instance.store.get_json(digest)
        self._fingerprint(record["task"])  # the rows that are learnt, without those set aside
        for reason in record["reasons"]:
            self.say(f"  {record['verdict']}: {reason}")
        for omission in Omission.of(record):
            self.say(f"  {omission}")
        return self._judge(item, digest, record)

    def _judge(self, item: QueueItem, digest: str, record: dict[str, Any]) -> QueueItem:
        reports = {"assessment": digest, **record["reports"]}
        why, facts = "; ".join(record["reasons"]), {"task": record["submitted_task"], "reports": reports}
        if record["verdict"] == "refuse":
            folder = quarantine(self.instance.home, item.package, self._problems(record))
            return self._move(item, "refused", f"{why}; the report is in {folder}", **facts)
        if record["verdict"] == "hold":
            return self._move(item, "held", why, **facts)
        if record["verdict"] == "nothing_to_learn":
            return self._move(item, "nothing_to_learn", why, **facts)
        with self.instance.db.read() as connection:
            undecided = candidates.versions(connection, self.instance.assistant, "pending")
        if undecided:
            first = undecided[0]
            return self._move(
                item, "waiting", f"version {first.number} ({first.task_name}) waits for people to decide", **facts
            )
        return self._move(item, "learning", why, launched_by=self.actor.name, **facts)

    def _learn(self, item: QueueItem, parent: str | None) -> QueueItem:
        instance, assessment = self.instance, item.reports["assessment"]
        order = self._order(item, parent).to_learn(
            assessment,
            attempt=instance.next_attempt(item.name, item.owner),
            looks=instance.anchor_looks(),
            superseded=instance.superseded(),
        )
        try:
            learnt = self.learn(item, order)
        except StepFailed as failure:
            self.say(f"  failed: {failure}")
            return self._move(item, "failed", str(failure))
        return self._register(item, parent, learnt)

    def learn(self, item: QueueItem, order: LearnOrder) -> "LearningResult":
        """Learn what an order's assessment says; finished steps are found again, an interrupted one goes on.

        Raises:
            StepFailed: with the step's own words.
        """
        instance, settings = self.instance, self.instance.settings.content()
        record = instance.store.get_json(order.assessment)
        rows = {"rows": record["rows"]["train"]} if "rows" in record else {}
        tune_key = step_key(
            "tune",
            {"task": record["task"], "parent": order.parent, "group": record["group"], **rows},
            {name: settings[name] for name in ("base_model", "adapter", "tuning")},
            ("model", "tuning", "grouping"),
        )
        evaluate_key = step_key(
            "evaluate",
            {"tune": tune_key, "lineage": list(order.lineage)},
            settings,
            ("model", "tuning", "grouping", "evaluation"),
        )
        replaced = {"superseded": order.superseded} if order.superseded else {}
        learn_key = step_key(
            "learn",
            {
                "evaluate": evaluate_key,
                "assessment": order.assessment,
                "attempt": order.attempt,
                "looks": order.looks,
                **replaced,
            },
            settings,
            ("promotion", "evaluation"),
        )
        known = self._known(learn_key)
        if known is not None:
            return LearningResult(known, tune_key)
        self.say(f"{item.name}@{item.version}: learn_task (tune, evaluate, gate, register)")
        done = {"tune": self._known(tune_key), "evaluate_forgetting": self._known(evaluate_key)}
        order = order.model_copy(
            update={"known": {step: digest for step, digest in done.items() if digest}, "scratch": tune_key}
        )
        work = record["estimate"]
        expected = estimates.estimate(instance, work)
        self.say(f"  about {expected['seconds']:.0f} seconds ({expected['basis']})")
        resumed = bool(order.known) or bool(read_curves(instance.store.scratch(tune_key)))
        load()
        # MLflow shows only what becomes a candidate: not what is learnt again on the way to another base model
        watched = live_curves.shown(instance, item, tune_key, self.lease) if item.state == "learning" else nullcontext()
        try:
            with watched, estimates.measured() as taken:
                run = self._pipeline("learn_task", item, order)
        except StepFailed:
            self._record_steps(finished_outputs(self._run_name("learn_task", item)), tune_key, evaluate_key)
            raise
        cost = estimates.record(instance, work, expected, taken, resumed=resumed)
        self._record_steps(run.outputs, tune_key, evaluate_key)
        evidence = self._record(learn_key, "learn", run.outputs["register_candidate"])
        instance.store.scratch(tune_key).clear()
        describe_run(run.name, instance.store.get_json(evidence)["candidate"], instance.registry.models_page())
        costs = {"learn": round(taken.seconds, 1), "estimated": expected["seconds"]}
        return LearningResult(evidence, tune_key, costs, {"cost": cost})

    def _register(self, item: QueueItem, parent: str | None, learnt: "LearningResult") -> QueueItem:
        instance = self.instance
        evidence = instance.store.get_json(learnt.evidence)
        lineage = [*instance.lineage(parent), evidence["evaluation"]]
        shown = {**publication(instance.store, evidence, lineage, learnt.costs), "learning": learnt.run}
        gate = instance.store.get_json(evidence["gate"])
        verdict = gate["verdict"]
        with instance.db.begin() as connection:
            candidate = candidates.register(
                connection,
                self.lease,
                assistant=instance.assistant,
                digest=evidence["candidate"],
                task=evidence["task"],
                task_name=f"{item.name}@{item.version}",
                parent=parent,
                evidence=learnt.evidence,
                verdict=verdict,
                submitted_by=item.submitted_by,
                launched_by=item.launched_by or self.actor.name,
                attempt=gate["attempt"],
                item=item.id,
                marks=[f"changed {key}" for key in changed_keys(instance.settings)]
                + ([] if inbox.sender_known(item.submitted_by) else [candidates.SENDER_UNKNOWN]),
                publication=shown,
            )
            why = f"version {candidate.number}: gate {verdict}; {what_next(candidate, instance)}"
            item = queue.move(connection, self.lease, item.id, "candidate", why, reports=learnt.reports)
        self.say(f"  {why}")
        own = instance.settings.policy
        for outcome in promote_waiting(instance.db, instance.promoter, instance.store, instance.assistant, own):
            self.say(f"  {outcome.words}")
        with instance.db.read() as connection:
            return queue.item(connection, item.id)

    def _refuse(self, item: QueueItem, failure: StepFailed) -> QueueItem:
        self.say(f"  {failure}")
        if failure.cause not in REFUSALS:
            return self._move(item, "failed", str(failure))
        return self._move(item, "refused", str(failure))

    # -- small pieces -------------------------------------------------------------------------------

    def _order(self, item: QueueItem, parent: str | None) -> Order:
        return make_order(self.instance, item.package, parent, item.answers)

    def _fingerprints(self, item: QueueItem, parent: str | None) -> dict[str, str]:
        """Keyed hashes of the task and of every task the parent has learnt, as far as they are or can be made."""
        earlier = [entry.task for entry in self.instance.pool(parent).tasks()] if parent else []
        made = {task: self._fingerprint(task) for task in [*earlier, *([item.task] if item.task else [])]}
        return {task: digest for task, digest in made.items() if digest}

    def _fingerprint(self, task: str) -> str | None:
        """Hashes of a task's rows, made while they are there and found again when they are gone."""
        key = self.instance.leak_key()
        name = result_name(task, key)
        known = self._known(name)
        if known is not None:
            return known
        try:
            made = store_fingerprints(load_snapshot(self.instance.store, task), key, self.instance.store)
        except ObjectMissing:
            return None
        return self._record(name, "fingerprints", made)

    def _pipeline(self, name: str, item: QueueItem, order: Order) -> PipelineRun:
        from pipelines.assess_task import assess_task
        from pipelines.learn_task import learn_task

        pipeline = {"assess_task": assess_task, "learn_task": learn_task}[name]
        instance = self.instance
        digest = instance.store.put_json(order.model_dump(mode="json"))
        run_name = self._run_name(name, item)
        progress.clear(instance.store, item.package)
        try:
            return run_pipeline(pipeline, run_name, instance.settings, instance.home, digest)
        finally:
            progress.clear(instance.store, item.package)

    def _run_name(self, pipeline: str, item: QueueItem) -> str:
        return f"{pipeline}-{item.id}-{item.name}-{item.version}"

    def _assessment(self, item: QueueItem) -> dict[str, Any]:
        record: dict[str, Any] = self.instance.store.get_json(item.reports["assessment"])
        return record

    def _problems(self, record: dict[str, Any]) -> list[Problem]:
        """Failed hard checks as the quarantine report wants them."""
        checks = self.instance.store.get_json(record["validation"])["checks"]
        failed = [c for c in checks if c["severity"] == "hard" and not c["success"]]
        return [Problem(f"{c['split']} split", None, c["name"], str(c["seen"]), str(c["expected"])) for c in failed]

    def _move(self, item: QueueItem, state: str, reason: str, **facts: Any) -> QueueItem:  # noqa: ANN401
        with self.instance.db.begin() as connection:
            return queue.move(connection, self.lease, item.id, state, reason, **facts)

    def _known(self, key: str) -> str | None:
        with self.instance.db.read() as connection:
            found = results.find(connection, key)
        return found.output if found else None

    def _record(self, key: str, step: str, output: str) -> str:
        with self.instance.db.begin() as connection:
            return results.record(connection, self.lease, key, step, output).output

    def _record_steps(self, outputs: dict[str, str], tune_key: str, evaluate_key: str) -> None:
        for step, key in (("tune", tune_key), ("evaluate_forgetting", evaluate_key)):
            if outputs.get(step):
                self._record(key, step, outputs[step])


@dataclass(frozen=True)
class LearningResult:
    """What learning gave."""

    evidence: str
    run: str
    """Names the run whose curves MLflow showed meanwhile."""
    costs: dict[str, float] = field(default_factory=dict)
    """Seconds; empty where the result was found again."""
    reports: dict[str, str] = field(default_factory=dict)


def make_order(instance: Instance, package: str, parent: str | None, answers: Mapping[str, Any] = {}) -> Order:
    """What a run on a package is told; `answers` are what people said about a held task."""
    return Order(
        settings=instance.store.put_json(instance.settings.for_steps()),
        package=package,
        parent=parent,
        lineage=tuple(instance.lineage(parent)),
        **answers,
    )


def what_next(candidate: Candidate, instance: Instance) -> str:
    """Who decides about a candidate, and by which command."""
    if instance.settings.policy.approval.auto:
        return "policy.approval.auto decides"
    if candidate.verdict == "pass" or not instance.settings.policy.gate.enforce:
        return f"waits for `lcia approve {candidate.number}`"
    return f"not approvable; `lcia show {candidate.number}` says why, `lcia reject {candidate.number}` ends it"
