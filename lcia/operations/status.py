"""The state at a glance: `lcia status`, and what the console's first page shows beside it."""

from typing import Any

from components.audit import log
from components.identity import appointments
from components.promotion import candidates, champion, policy, train
from components.promotion.candidates import Candidate
from components.registry.outbox import backlog
from components.storage import leases, rounds
from components.tasks import progress, queue
from components.tasks.queue import QueueItem
from lcia.instance import Instance
from lcia.operations import approvals, delivery, relocation, serving, trials, turns

BUSY = ("assessing", "learning")
"""States of tasks that a worker has in hand."""


def status(instance: Instance) -> dict[str, Any]:
    """Champion, gateways, queue, candidates and log, as `docs/json.md` describes."""
    with instance.db.read() as connection:
        items = queue.items(connection, instance.assistant)
        counts = queue.counts(connection, instance.assistant)
        versions = candidates.versions(connection, instance.assistant)
        line = train.members(connection, instance.assistant, instance.settings.policy.gate)
        head = log.head(connection)
    now, places = champion_now(instance), turns.waits(instance)
    return {
        "assistant": instance.assistant,
        "champion": now and {**now, "tasks": _in_order(instance, str(now["digest"]))},
        "queue": {**counts, "items": [{**item.to_json(), "turn": places.get(item.id)} for item in items]},
        "candidates": [_candidate(instance, version) for version in versions],
        "train": [version.number for version in line],
        "gateways": serving.fleet(instance),
        "trials": trials.standing(instance),
        "audit": {"entries": head.entries, "head": head.root},
        "registry": {
            **registry(instance),
            "empty": now is not None and relocation.mlflow_empty(instance),
            "links": relocation.links(instance.home, instance.settings),
        },
    }


def champion_now(instance: Instance) -> dict[str, Any] | None:
    """The version in use, and its groups; None before the first promotion."""
    with instance.db.read() as connection:
        now = champion.current(connection, instance.assistant)
        if now is None:
            return None
        version = candidates.get(connection, instance.assistant, now.version)
        marks = champion.lineage(connection, instance.assistant)[-1].marks
    pool = instance.pool(now.version)
    return {
        "version": version.number,
        "digest": now.version,
        "task_name": version.task_name,
        "epoch": now.epoch,
        "since": now.decided_at.isoformat(),
        "served": delivery.seen_served(instance, now),
        "groups": [{"id": g.id, "tasks": [t.name for t in g.tasks], "adapter": g.adapter} for g in pool.groups],
        "marks": marks,
    }


def registry(instance: Instance) -> dict[str, Any]:
    """The part of `status` about MLflow that needs no look at its files."""
    with instance.db.read() as connection:
        waiting = backlog(connection, instance.assistant)
    return {
        "pending": len(waiting),
        "parked": [row.to_json() for row in waiting if row.parked_at is not None],
        "moved": relocation.former_place(instance),
    }


def live(instance: Instance, *, proposals: bool) -> dict[str, Any]:
    """Work under way and everything that waits for people; with `proposals` those that admins answer, too."""
    with instance.db.read() as connection:
        busy = queue.items(connection, instance.assistant, BUSY)
        on_hold = queue.items(connection, instance.assistant, ("held",))
        counts = queue.counts(connection, instance.assistant)
        pending = candidates.versions(connection, instance.assistant, "pending")
        workers = [one for one in leases.standing(connection) if one.name == f"lineage:{instance.assistant}"]
        policies = policy.proposals(connection, instance.assistant) if proposals else []
        roles = appointments.waiting(connection) if proposals else []
        failing = rounds.failing(connection)
    return {
        "busy": [_progress(instance, item) for item in busy],
        "waiting": [{**one.to_json(), "decision": approvals.decision(instance, one)} for one in pending],
        "held": [item.to_json() for item in on_hold],
        "proposed": [{"by": one.proposed_by, "reason": one.reason} for one in policies if one.state == "open"],
        "appointments": [{"person": one.person, "by": one.proposed_by, "reason": one.reason} for one in roles],
        "counts": {state: count for state, count in counts.items() if count},
        "worker": {"lost": workers[0].is_lost, "silent": workers[0].silent} if workers else None,
        "registry": registry(instance),
        "trials": trials.standing(instance),
        "failing": [
            {"name": one.name, "failures": one.failures, "since": one.failing_since, "error": one.error}
            for one in failing
        ],
    }


def fingerprint(instance: Instance) -> str:
    """A text that changes when anything that `live` shows does."""
    with instance.db.read() as connection:
        busy = queue.items(connection, instance.assistant, BUSY)
        size = log.count(connection)
    steps = [progress.read(instance.store, item.package) for item in busy]
    return "-".join([str(size), *(f"{one.what}{one.done}" if one else "" for one in steps)]).replace(" ", "")


def _candidate(instance: Instance, version: Candidate) -> dict[str, Any]:
    """A version with, while it waits, its quorum by site and the approvals that do not count."""
    if version.state != "pending":
        return {**version.to_json(), "quorum": [], "not_counted": []}
    state = approvals.decision(instance, version)
    return {**version.to_json(), "quorum": state["quorum"], "not_counted": approvals.not_counted(state)}


def _progress(instance: Instance, item: QueueItem) -> dict[str, Any]:
    """A task in hand; `far` is how much of its present step is done, None before the first word of it."""
    step = progress.read(instance.store, item.package)
    return {**item.to_json(), "far": vars(step) if step else None}


def _in_order(instance: Instance, version: str) -> list[str]:
    """Names of a version's tasks in the order in which they were learnt."""
    entries = {entry.task: entry.name for entry in instance.pool(version).tasks()}
    tasks = (record["task"] for record in instance.learnt(version))
    return list(dict.fromkeys(entries[task] for task in tasks if task in entries))
