"""Loop of the worker: it holds the lease, runs the pipelines, and turns their results into rows and log entries."""

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from components.audit.log import Actor
from components.promotion import candidates
from components.promotion.automatic import promote_waiting
from components.promotion.candidates import Candidate, ParentOvertaken
from components.quality.fingerprints import result_name, store_fingerprints
from components.quality.omissions import Omission
from components.registry.publication import publication
from components.storage import leases
from components.storage.keys import step_key
from components.storage.leases import Lease
from components.storage.objects import ObjectMissing
from components.tasks import queue
from components.tasks.problems import Problem
from components.tasks.quarantine import quarantine
from components.tasks.queue import QueueItem
from components.tasks.snapshot import load_snapshot
from components.tuning.progress_curves import read_curves
from infra.runs import StepFailed, describe_run, finished_outputs, load
from lcia.instance import Instance
from lcia.lineage import hold_lineage
from lcia.operations.turns import waiting_order
from lcia.worker import changes, estimates, inbox, live_curves
from lcia.worker.limits import over_limit
from lcia.worker.runs import (
    ASSESS,
    Learning,
    LearnKeys,
    Runs,
    ahead_lease,
    make_order,
    run_name,
    tune_key,
    with_gate_history,
)
from lcia.worker.waiting import Undecided
from steps.order import LearnOrder, Order

LOG = logging.getLogger("lcia.worker.loop")

REFUSALS = frozenset({"PackageError", "SnapshotError"})
"""Step errors that are the package's fault, not the machine's."""

LOOK_SECONDS = 1.0
"""Between two looks at what another worker does."""
Say = Callable[[str], None]


def work(instance: Instance, actor: Actor, say: Say, only: int | None = None) -> list[QueueItem]:
    """Bring every open item of the queue (or only one) as far as it can go; returns these items.

    Without `only` packages are taken from the inbox too, before each task: the lease is the only lock of both.

    Raises:
        InboxUnusable: see `inbox.take`.
        LineageBusy: another live worker holds the lease.
    """
    items: dict[int, QueueItem] = {}
    with hold_lineage(instance.db, instance.assistant, "worker") as lease:
        _tell(instance, say)  # left over from a crash
        while True:
            instance = instance.current()  # admins may accept another policy between two tasks
            if only is None:
                for package in inbox.take(instance, say):
                    say(f"{package.name}@{package.version} came through the inbox: item {package.id}")
            item = next_item(instance, only)
            if item is None:
                break
            item = Advance(instance, lease, actor, say).run(item)
            items[item.id] = item
            _tell(instance, say)
    return list(items.values())


def _tell(instance: Instance, say: Say) -> None:
    for delivery in instance.tell_registry():
        if not delivery.ok:
            say(f"  MLflow not updated yet: {delivery.message}")


def next_item(instance: Instance, only: int | None = None) -> QueueItem | None:
    """Next item that can go on; a `waiting` one only if nothing keeps it waiting any more."""
    with instance.db.read() as connection:
        waiting = queue.items(connection, instance.assistant, ("waiting",))
    undecided = Undecided.of(instance)
    kept_waiting = {one.id for one in waiting if undecided.why_wait(one.reports.get("assessment"))}
    return next((one for one in waiting_order(instance, only) if one.id not in kept_waiting), None)


class Advance:
    """Advance of one item through the pipelines."""

    def __init__(self, instance: Instance, lease: Lease, actor: Actor, say: Say, prefix: str = "") -> None:
        self.instance, self.lease, self.actor, self.say = instance, lease, actor, say
        self.runs = Runs(instance, lease, prefix)

    def run(self, item: QueueItem) -> QueueItem:
        """Bring the item as far as it can go now."""
        if item.state == "waiting":
            item = self.move(item, "submitted", "nothing keeps it waiting any more; it is assessed again")
        base = self.instance.base()
        parent = base.digest if base else None
        if item.is_change:
            return changes.advance(self, item, parent)
        if item.state == "learning" and self._assessment(item)["parent"] != parent:
            item = self.move(item, "submitted", "the version to build on is another now; it is assessed again")
        if item.state == "learning" and self._assessment(item)["grouping"].get("merge"):  # of an earlier release
            item = self.move(item, "submitted", "groups are no longer merged at the cap; it is assessed again")
        if item.state in ("submitted", "assessing"):
            item = self._assess(item, parent)
        return self._learn(item, parent) if item.state == "learning" else item

    def _assess(self, item: QueueItem, parent: str | None) -> QueueItem:
        item = self.move(item, "assessing", "data validation, drift check and grouping")
        try:
            digest = self.assessment(item, parent)
        except StepFailed as failure:
            return self._refuse(item, failure)
        record = self.instance.store.get_json(digest)
        self._fingerprint(record["task"])  # now of the rows that are learnt, without those set aside
        for reason in record["reasons"]:
            self.say(f"  {record['verdict']}: {reason}")
        for omission in Omission.of(record):
            self.say(f"  {omission}")
        return self._judge(item, digest, record)

    def assessment(self, item: QueueItem, parent: str | None) -> str:
        """Digest of an item's assessment on `parent`; found again if it was made before.

        Raises:
            StepFailed: with the step's own words.
        """
        digest = self.find_assessment(item, parent)
        if digest is not None:
            return digest
        self.say(f"{item.name}@{item.version}: assess_task (validation, drift, grouping)")
        order = self._order(item, parent).model_copy(update={"fingerprints": self._fingerprints(item, parent)})
        run = self.runs.run("assess_task", item, order)
        return self.runs.record(self._assess_key(item, parent), "assess", run.outputs["group_instructions"])

    def find_assessment(self, item: QueueItem, parent: str | None) -> str | None:
        """Digest of an item's assessment on `parent`, if there is one."""
        return self.runs.find(self._assess_key(item, parent))

    def _assess_key(self, item: QueueItem, parent: str | None) -> str:
        inputs = {"package": item.package, "parent": parent, "answers": item.decisions}
        return step_key("assess", inputs, self.instance.settings.content(), ASSESS)

    def _judge(self, item: QueueItem, digest: str, record: dict[str, Any]) -> QueueItem:
        reports = {"assessment": digest, **record["reports"]}
        why, facts = "; ".join(record["reasons"]), {"task": record["submitted_task"], "reports": reports}
        if record["verdict"] == "refuse":
            folder = quarantine(self.instance.home, item.package, self._problems(record))
            return self.move(item, "refused", f"{why}; the report is in {folder}", **facts)
        if record["verdict"] == "hold":
            return self.move(item, "held", why, **facts)
        if record["verdict"] == "nothing_to_learn":
            return self.move(item, "nothing_to_learn", why, **facts)
        return self.begin(item, why, **facts)

    def begin(self, item: QueueItem, why: str, **facts: Any) -> QueueItem:  # noqa: ANN401 - fields of the queue
        """Let an assessed item go on to its candidate, or wait for people to decide about versions before it."""
        assessment = facts.get("reports", {}).get("assessment")
        limit = None if item.answers.get("released") else over_limit(self.instance, item, assessment)
        if limit:
            return self.move(item, "held", limit, **facts)
        wait = Undecided.of(self.instance).why_wait(assessment)
        if wait:
            return self.move(item, "waiting", wait, **facts)
        return self.move(item, "learning", why, launched_by=self.actor.name, **facts)

    def _learn(self, item: QueueItem, parent: str | None) -> QueueItem:
        instance, assessment = self.instance, item.reports["assessment"]
        self._wait_for_others(item)
        order = self._order(item, parent).to_learn(assessment, superseded=instance.replacements())
        tune = tune_key(instance.store, instance.settings, order)
        try:
            order = with_gate_history(instance, item, order, tuning=self.runs.find(tune))
            if order.origin:
                self.say("  its group is what it was, so it is carried over without tuning")
            learning = self.learn(item, order, tune)
        except StepFailed as failure:
            self.say(f"  failed: {failure}")
            return self.move(item, "failed", str(failure))
        return self.register(item, parent, learning)

    def learn(self, item: QueueItem, order: LearnOrder, tune: str) -> Learning:
        """Learn a task as its assessment says; finished steps are found again, an interrupted one goes on.

        `tune` is the order's `tune_key`.

        Raises:
            StepFailed: with the step's own words.
        """
        instance, record = self.instance, self.instance.store.get_json(order.assessment)
        keys = LearnKeys.of(instance.store, instance.settings, order, tune)
        evidence = self.runs.find(keys.learn)
        if evidence is not None:
            return Learning(evidence, keys.tune)
        self.say(f"{item.name}@{item.version}: learn_task (tune, evaluate, gate, register)")
        outputs = {"tune": self.runs.find(keys.tune), "evaluate_forgetting": self.runs.find(keys.evaluate)}
        earlier = {step: digest for step, digest in outputs.items() if digest}
        order = order.model_copy(update={"known": earlier, "scratch": keys.tune})
        work = record["estimate"]
        forecast = estimates.estimate(instance, work)
        self.say(f"  about {forecast['seconds']:.0f} seconds ({forecast['basis']})")
        for remark in record.get("length", {}).get("remarks", ()):
            self.say(f"  {remark}")
        # a run that goes on from a checkpoint says nothing about how long a whole one takes
        partial = bool(earlier) or bool(read_curves(instance.store.scratch(keys.tune)))
        load()
        # MLflow shows only what becomes a candidate: not what is learnt again on the way to another base model
        curves = live_curves.show(instance, item, keys.tune, self.lease) if item.state == "learning" else nullcontext()
        try:
            with curves, estimates.measure() as watch:
                run = self.runs.run("learn_task", item, order)
        except StepFailed:
            self.runs.record_steps(finished_outputs(run_name("learn_task", item)), keys)
            raise
        cost = estimates.record(instance, work, forecast, watch, partial=partial)
        self.runs.record_steps(run.outputs, keys)
        evidence = self.runs.record(keys.learn, "learn", run.outputs["register_candidate"])
        instance.store.scratch(keys.tune).clear()
        describe_run(run.name, instance.store.get_json(evidence)["candidate"], instance.registry.models_page())
        seconds = {"learn": round(watch.seconds, 1), "estimated": forecast["seconds"]}
        return Learning(evidence, keys.tune, seconds, {"cost": cost})

    def register(self, item: QueueItem, parent: str | None, learning: Learning) -> QueueItem:
        """Turn a finished run into a candidate with its log entry.

        If people passed over its parent meanwhile, it is queued again instead.
        """
        try:
            return self._register(item, parent, learning)
        except ParentOvertaken:
            why = "people passed over the version that it was learnt on; it goes on from what stands now"
            self.say(f"  {why}")
            return self.move(item, "submitted", why)

    def _register(self, item: QueueItem, parent: str | None, learning: Learning) -> QueueItem:
        instance = self.instance
        evidence = instance.store.get_json(learning.evidence)
        lineage = [*instance.lineage(parent), evidence["evaluation"]]
        page = {**publication(instance.store, evidence, lineage, learning.costs), "learning": learning.run}
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
                evidence=learning.evidence,
                verdict=verdict,
                submitted_by=item.submitted_by,
                launched_by=item.launched_by or self.actor.name,
                attempt=gate["attempt"],
                item=item.id,
                marks=[f"changed {key}" for key in instance.pool(evidence["candidate"]).overrides]
                + ([] if inbox.sender_known(item.submitted_by) else [candidates.SENDER_UNKNOWN]),
                publication=page,
                origin=evidence.get("origin"),
            )
            why = f"version {candidate.number}: gate {verdict}; {what_next(candidate, instance)}"
            item = queue.move(connection, self.lease, item.id, "candidate", why, reports=learning.reports)
        self.say(f"  {why}")
        own = instance.settings.policy
        for outcome in promote_waiting(instance.db, instance.promoter, instance.store, instance.assistant, own):
            self.say(f"  {outcome.words}")
        with instance.db.read() as connection:
            return queue.item(connection, item.id)

    def _refuse(self, item: QueueItem, failure: StepFailed) -> QueueItem:
        self.say(f"  {failure}")
        if failure.cause not in REFUSALS:
            return self.move(item, "failed", str(failure))
        return self.move(item, "refused", str(failure))

    def _wait_for_others(self, item: QueueItem) -> None:
        """Wait while another worker tunes the item before its turn."""
        is_said = False
        while True:
            with self.instance.db.read() as connection:
                other = leases.holder(connection, ahead_lease(self.instance, item))
            if other is None:
                return
            if not is_said:
                self.say(f"  {other.owner} is tuning it already")
            is_said = True
            time.sleep(LOOK_SECONDS)

    # -- small pieces -------------------------------------------------------------------------------

    def _order(self, item: QueueItem, parent: str | None) -> Order:
        return make_order(self.instance, item.package, parent, item.decisions)

    def _fingerprints(self, item: QueueItem, parent: str | None) -> dict[str, str]:
        """Keyed hashes of the task and of every task the parent has learnt, except those whose rows are gone."""
        earlier = [entry.task for entry in self.instance.pool(parent).tasks()] if parent else []
        hashes = {task: self._fingerprint(task) for task in [*earlier, *([item.task] if item.task else [])]}
        return {task: digest for task, digest in hashes.items() if digest}

    def _fingerprint(self, task: str) -> str | None:
        """Hashes of a task's rows, made while the rows are there and found again afterwards; None if neither works."""
        key = self.instance.leak_key()
        name = result_name(task, key)
        digest = self.runs.find(name)
        if digest is not None:
            return digest
        try:
            hashes = store_fingerprints(load_snapshot(self.instance.store, task), key, self.instance.store)
        except ObjectMissing:
            return None
        return self.runs.record(name, "fingerprints", hashes)

    def _assessment(self, item: QueueItem) -> dict[str, Any]:
        record: dict[str, Any] = self.instance.store.get_json(item.reports["assessment"])
        return record

    def _problems(self, record: dict[str, Any]) -> list[Problem]:
        """Failed hard checks, in the form of the quarantine report."""
        checks = self.instance.store.get_json(record["validation"])["checks"]
        failures = [c for c in checks if c["severity"] == "hard" and not c["success"]]
        return [Problem(f"{c['split']} split", None, c["name"], str(c["seen"]), str(c["expected"])) for c in failures]

    def move(self, item: QueueItem, state: str, reason: str, **facts: Any) -> QueueItem:  # noqa: ANN401
        """Change an item's state under the lease; see `queue.move`."""
        with self.instance.db.begin() as connection:
            return queue.move(connection, self.lease, item.id, state, reason, **facts)


def what_next(candidate: Candidate, instance: Instance) -> str:
    """Next step for a candidate, with the command that does it."""
    if instance.settings.policy.approval.auto:
        return "policy.approval.auto decides"
    if candidate.verdict == "pass" or not instance.settings.policy.gate.enforce:
        return f"waits for `lcia approve {candidate.number}`"
    return f"not approvable; `lcia show {candidate.number}` says why, `lcia reject {candidate.number}` ends it"
