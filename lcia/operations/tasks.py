"""Tasks of the queue: submit, list, answer those that wait, and outcomes after work."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.audit.log import Actor
from components.errors import LciaError
from components.promotion import candidates, champion, superseding
from components.promotion.candidates import Candidate
from components.retention import withdrawal
from components.storage.objects import Json, ObjectMissing
from components.tasks import queue, turns
from components.tasks.isolation import take
from components.tasks.problems import PackageError
from components.tasks.quarantine import quarantine
from components.tasks.queue import QueueItem
from components.tasks.snapshot import load_snapshot
from lcia.instance import Instance
from lcia.operations import delivery, figures
from lcia.operations.costs import costs_of
from lcia.operations.params import FilterUnknown


class GroupUnknown(LciaError):
    """A group that the champion has not."""


def submit(
    instance: Instance,
    package: Path,
    actor: Actor,
    need_owner: Callable[[str], None] | None = None,
    label: str | None = None,
    *,
    sender_known: bool = True,
) -> QueueItem:
    """Put a task package, a folder or a container, into the queue.

    `allowed` refuses owners that the actor may not submit for; `called` names the package in messages where its path
    means nothing to whoever sent it. A task that would replace another waits for a person where its sender is not
    known.

    Raises:
        PackageError: it is refused; the report is in `quarantine/`, nothing else was changed.
    """
    try:
        read = take(
            package,
            instance.store,
            instance.settings.packages,
            instance.home / "unpacked",
            label=label,
            check_owner=need_owner,
        )
    except PackageError as error:
        report = quarantine(instance.home, package, error.problems)
        error.add_note(f"The report is in {report}; the package itself was not touched.")
        raise
    with instance.db.begin() as connection:
        item = queue.submit(
            connection,
            assistant=instance.assistant,
            package=read.package,
            name=read.task.name,
            version=read.task.version,
            owner=read.task.owner,
            submitted_by=actor,
            task=read.snapshot.digest,
        )
        if not sender_known and read.task.supersedes and not item.known:
            why = (
                f"it would replace {read.task.supersedes} and came through an inbox, which does not know its sender: "
                f"`lcia release {item.id}` lets it go on, `lcia cancel {item.id}` does not"
            )
            item = queue.move(connection, None, item.id, "held", why, actor=actor)
    return replace(item, cut=read.cut, remarks=read.remarks)


def tasks(instance: Instance, state: str | None = None, owner: str | None = None) -> dict[str, Any]:
    """Every task, in order of submission: state, scores, what its owner lets us keep.

    Raises:
        FilterUnknown: `state` is no state of a task.
    """
    if state is not None and state not in queue.MOVES:
        raise FilterUnknown(f"{state!r} is no state of a task, expected one of {', '.join(queue.MOVES)}")
    with instance.db.read() as connection:
        items = queue.items(connection, instance.assistant, (state,) if state else None)
        versions = candidates.versions(connection, instance.assistant)
        champions = {promotion.version for promotion in champion.lineage(connection, instance.assistant)}
    by_item: dict[int, Candidate] = {v.item: v for v in versions if v.item is not None and v.digest in champions}
    now = instance.champion()
    groups = {t.task: (g.id, t.name) for g in instance.pool(now.digest).groups for t in g.tasks} if now else {}
    scores, anchors = figures.scores(instance, now.digest if now else None), _anchors(instance, now)
    rows = []
    for item in items:
        if owner is None or item.owner == owner:
            version = by_item.get(item.id)
            group, name = groups.get(version.task, (None, "")) if version else (None, "")
            figures_of_task = {"group": group, "score": scores.get(name), "anchor": anchors.get(name)}
            rows.append({**_task(instance, item, version), **figures_of_task})
    return {"tasks": rows}


def _anchors(instance: Instance, now: Candidate | None) -> dict[str, float | None]:
    """By name of a task in the champion: its score in the version that first promoted it."""
    if now is None:
        return {}
    anchors = instance.store.get_json(str(instance.evidence(now)["evaluation"]))["anchors"]
    return {name: figures.mean_of_rows(instance.store, anchor["predictions"]) for name, anchor in anchors.items()}


def _task(instance: Instance, item: QueueItem, version: Candidate | None) -> dict[str, Any]:
    retention: dict[str, Any] | None = None
    try:
        if item.task:
            retention = load_snapshot(instance.store, item.task).task.retention.model_dump(mode="json")
    except ObjectMissing:  # withdrawn
        retention = None
    return {
        "id": item.id,
        "name": item.name,
        "version": item.version,
        "state": item.state,
        "reason": item.reason,
        "owner": item.owner,
        "submitted_by": item.submitted_by,
        "learnt_in": version.number if version else None,
        "retention": retention,
        "cost": costs_of(instance, item),
    }


def supersede(instance: Instance, actor: Actor, old: str, new: str, reason: str) -> Json:
    """Declare that a learnt task replaces an earlier one; names, `name@version` or numbers in the queue."""
    with instance.db.begin() as connection:
        before, after = (withdrawal.find(connection, instance.assistant, name) for name in (old, new))
        return superseding.declare(connection, before, after, actor, reason).to_json()


def retry(instance: Instance, actor: Actor, item: int, *, force: bool = False) -> Json:
    """Put a task that failed, was refused or rejected back into the queue."""
    with instance.db.begin() as connection:
        if force:
            why, answers = "to be learnt although it is known", {"forced": True}
            return queue.answer(connection, item, "nothing_to_learn", answers, actor=actor, reason=why).to_json()
        return queue.move(connection, None, item, "submitted", "tried again", actor=actor).to_json()


def release(instance: Instance, actor: Actor, item: int, reason: str) -> Json:
    """Let a held task go on: one unlike everything seen, or one that replaces another and whose sender is unknown."""
    with instance.db.begin() as connection:
        turns.need_not_paused(connection, item)
        is_assessed = "assessment" in queue.item(connection, item).reports
        answers: dict[str, Json] = {"released": True} if is_assessed else {}
        return queue.answer(connection, item, "held", answers, actor=actor, reason=reason).to_json()


def regroup(instance: Instance, actor: Actor, item: int, group: str, reason: str) -> Json:
    """Choose the group that learns a task which is held between two.

    Raises:
        GroupUnknown: the version that it will be learnt on has no such group, and it is not `new`.
    """
    _need_group(instance, item, group)
    with instance.db.begin() as connection:
        return queue.answer(connection, item, "held", {"placed": group}, actor=actor, reason=reason).to_json()


def cancel(instance: Instance, actor: Actor, item: int, reason: str) -> Json:
    """Take a task out of the queue."""
    with instance.db.begin() as connection:
        return queue.move(connection, None, item, "cancelled", reason, actor=actor).to_json()


def _need_group(instance: Instance, item: int, group: str) -> None:
    """Refuse a group that a held task can't be put into.

    Raises:
        GroupUnknown: the version that it will be learnt on has no such group, and it is not `new`.
        QueueError: there is no such task.
    """
    with instance.db.read() as connection:
        task = queue.item(connection, item)
    base = instance.base()
    groups = [one.id for one in instance.pool(base.digest).groups] if base else []
    if task.state == "held" and group not in (*groups, "new"):
        raise GroupUnknown(f"{group!r} is no group of the newest version, expected {', '.join([*groups, 'new'])}")


OUTCOME = {"candidate": 3, "held": 3, "waiting": 3, "refused": 1, "failed": 1}
"""Exit code by the state a task ended in; a candidate that the gate refused gives 2."""


def candidate_of(instance: Instance, item: QueueItem) -> Candidate | None:
    """The newest candidate that a task has led to."""
    with instance.db.read() as connection:
        versions = [c for c in candidates.versions(connection, instance.assistant) if c.item == item.id]
    return versions[-1] if versions else None


def outcomes(instance: Instance, items: list[QueueItem]) -> list[dict[str, Any]]:
    """Tasks after work, each with its state, version, verdict, delivery to MLflow, and exit code."""
    answers = []
    for item in items:
        version = candidate_of(instance, item)
        code = OUTCOME.get(item.state, 0)
        verdict = version.verdict if version else None
        if item.state == "candidate" and verdict != "pass" and instance.settings.policy.gate.enforce:
            code = 2
        delivery_state = delivery.standing(instance, version.digest if version else "")
        if item.state == "promoted":  # by policy.approval.auto
            code = delivery_state["exit_code"]
        answers.append(
            {
                **item.to_json(),
                "candidate": version.number if version else None,
                "digest": version.digest if version else None,
                "verdict": verdict,
                **delivery_state,
                "exit_code": code,
            }
        )
    return answers
