"""Tuning ahead: further workers tune tasks before their turn, while another one registers versions in order.

A tuning depends on its group alone, so it may be made on the version that stands now if no task before it in the queue
changes that group. Nothing but the result under its key is left behind: the worker that holds the lineage finds it when
the task's turn comes, and would tune itself if it were not there. So the digests are those of one worker alone.
"""

from components.audit.log import Actor
from components.grouping.pool import GroupTask, Pool
from components.grouping.router import decide
from components.storage.leases import Lease
from components.tasks import queue
from components.tasks.queue import QueueItem
from components.tasks.snapshot import load_snapshot
from components.tasks.turns import WAITING
from infra.runs import StepFailed
from lcia.instance import Instance
from lcia.lineage import hold
from lcia.operations.turns import waiting_order
from lcia.worker.loop import Advance, Say
from lcia.worker.runs import AHEAD, ahead_lease, make_order, tune_key
from steps.order import NO_BASE_MODEL

MOST = 4
"""Tasks whose turn comes next that are looked at: each is assessed anew on every version, so few of a long queue."""
PLACEHOLDER = "0" * 64
"""Adapter of a group that a task before will change, in the pool as it may be then."""


def tune_ahead(instance: Instance, actor: Actor, say: Say) -> list[int]:
    """Tune the next waiting tasks whose group no task before them changes; returns their queue items.

    None before there is a version: the first one sets up ZenML and the base model, which is one process's work. A step
    that fails is left to the worker that learns the task: it will say so.
    """
    if instance.base() is None:
        return []
    numbers = []
    waiting = [one for one in waiting_order(instance.current()) if one.state in WAITING and not one.is_change]
    for item in waiting[:MOST]:
        with hold(instance.db, ahead_lease(instance, item), "ahead") as lease:
            if lease is None:
                continue
            try:
                if _tune(instance.current(), lease, actor, item, say):
                    numbers.append(item.id)
            except StepFailed as failure:
                say(f"{item.label} is left to its turn: {failure}")
    return numbers


def _tune(instance: Instance, lease: Lease, actor: Actor, item: QueueItem, say: Say) -> bool:
    """Tune a task if its group will be what it is now; False if not, or if there is nothing to do."""
    worker = Advance(instance, lease, actor, say, AHEAD)
    with instance.db.read() as connection:
        item = queue.item(connection, item.id)
    if item.state not in WAITING:  # its turn has come meanwhile
        return False
    base = instance.base()
    parent = base.digest if base else None
    assessment = worker.assessment(item, parent)
    if instance.store.get_json(assessment)["verdict"] != "learn":
        return False
    pool = _pool_at_its_turn(worker, item, parent)
    if pool is None or not _stays(instance, pool, item, assessment):
        return False
    order = make_order(instance, item.package, parent, item.decisions)
    learning = order.to_learn(assessment, superseded=instance.replacements())
    key = tune_key(instance.store, instance.settings, learning)
    if worker.runs.find(key) is not None:
        return False
    say(f"{item.label}: tune_task (before its turn)")
    run = worker.runs.run("tune_task", item, learning.model_copy(update={"scratch": key}))
    worker.runs.record(key, "tune", run.outputs["tune"])
    return True


def _pool_at_its_turn(worker: Advance, item: QueueItem, parent: str | None) -> Pool | None:
    """The pool with all tasks that are before an item, in the groups where they belong; None if nobody can say yet."""
    instance = worker.instance
    pool = instance.pool(parent) if parent else Pool.empty(instance.assistant, NO_BASE_MODEL)
    for other in waiting_order(instance):
        if other.id == item.id:
            return pool
        if other.is_change and "+revert." not in other.version:  # wordings change no adapter
            continue
        assessment = None if other.is_change else worker.find_assessment(other, parent)
        if assessment is None:
            return None
        record = instance.store.get_json(assessment)
        if record["verdict"] == "learn":
            pool = _with(instance, pool, record)
    return None


def _with(instance: Instance, pool: Pool, record: dict[str, object]) -> Pool:
    """The pool after a task that is still to be learnt: its place is known, its adapter is not."""
    snapshot = load_snapshot(instance.store, str(record["task"]))
    instructions = snapshot.instructions()
    decision = decide(pool, instructions, instance.settings.grouping)
    entry = GroupTask(snapshot.digest, f"{snapshot.task.label} {snapshot.digest[:8]}", instructions)
    return pool.with_task(
        entry,
        group=decision.group if decision.action == "reuse" else None,
        adapter=PLACEHOLDER,
        curvature=None,
        parent=None,
        config=PLACEHOLDER,
        router={},
    )


def _stays(instance: Instance, pool: Pool, item: QueueItem, assessment: str) -> bool:
    """True if a task goes to the group where it was assessed to go, and no task before it changes that group."""
    record = instance.store.get_json(assessment)
    instructions = load_snapshot(instance.store, record["task"]).instructions()
    place = item.answers.get("placed")
    decision = decide(pool, instructions, instance.settings.grouping, placement=str(place) if place else None)
    group = decision.group if decision.action == "reuse" else None
    if decision.action == "hold" or group != record["group"]:
        return False
    return group is None or pool.group(group).adapter != PLACEHOLDER
