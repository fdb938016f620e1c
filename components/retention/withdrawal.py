"""Withdrawal of a task: its end in the database. The sweep that follows erases what may no longer be kept.

Weights are derived from the rows and can't unlearn them. So a withdrawal says which versions were tuned on the rows and
either marks them (`keep`) or gives them up (`refuse`), which it refuses while one of them is the champion.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from components.audit import log
from components.audit.log import Actor
from components.errors import LciaError
from components.promotion import candidates, champion, train
from components.promotion.candidates import Candidate
from components.promotion.reasons import need_reason
from components.registry.outbox import enqueue
from components.retention.rules import REFUSE, snapshots, versions_with
from components.storage.leases import Lease, check
from components.storage.objects import Json
from components.storage.reach import Index
from components.storage.tables import candidates as candidates_table
from components.storage.tables import promotions
from components.tasks import proposals, queue
from components.tasks.queue import QueueItem


class TaskUnknown(LciaError):
    """No task goes by this name, or more than one version of it does."""


class WithdrawalRefused(LciaError):
    """The champion was tuned on the rows and the policy does not let it stay."""


@dataclass(frozen=True)
class Withdrawal:
    """Outcome for a task and for the versions tuned on its rows."""

    item: QueueItem
    versions: tuple[Candidate, ...]
    """Every version that has learnt the task, promoted or not."""
    policy: str
    repeat: bool
    """True when it was withdrawn before."""


def find(connection: Connection, assistant: str, name: str) -> QueueItem:
    """The task called `name@version`, or `name` if it has one version, or by its number in the queue.

    Raises:
        TaskUnknown: no task has this name, or several have.
    """
    items = [item for item in queue.items(connection, assistant) if not item.is_change]
    if name.isdigit():
        matches = [item for item in items if item.id == int(name)]
    else:
        matches = [item for item in items if name in (item.name, item.label)]
        matches = [item for item in matches if item.state != "withdrawn"] or matches[-1:]
    if len(matches) == 1:
        return matches[0]
    several = ", ".join(f"{item.id} ({item.label})" for item in matches)
    raise TaskUnknown(
        f"{name!r} is {'several tasks: ' + several if matches else 'no task of ' + assistant}; "
        "give a number or name@version as `lcia status` lists them"
    )


def withdraw(
    connection: Connection,
    leases: Sequence[Lease],
    index: Index,
    item: QueueItem,
    *,
    policy: str,
    actor: Actor,
    reason: str,
) -> Withdrawal:
    """End a task in the caller's transaction: queue, candidates, marks, log, registry; repeating it does nothing.

    With `keep` only its own waiting candidate ends; with `refuse` every waiting one that has learnt it.

    Raises:
        ReasonMissing: `reason` is blank.
        WithdrawalRefused: see the class.
        StaleLease: the lineage's lease was taken over.
    """
    need_reason(reason)
    for lease in leases:
        check(connection, lease)
    having = versions_with(index, set(snapshots(index, item)))
    versions = [v for v in candidates.versions(connection, item.assistant) if v.digest in having or v.item == item.id]
    if item.state == "withdrawn":
        return Withdrawal(item, tuple(versions), str(item.answers.get("withdrawn")), repeat=True)
    if policy == REFUSE:
        _need_other_champion(connection, item, versions)
    for task in snapshots(index, item):
        proposals.forget(connection, task=task)
    changes = proposals.changes_of(connection, item.assistant, item.label)
    own = [item.id, *(each.id for each in changes if each.state != "withdrawn")]
    for version in versions:
        if version.state == "pending" and (version.item in own or policy == REFUSE):
            _end(connection, version, item, own, actor, reason)
    train.set_aside(connection, item.assistant, f"a version that it stood on had learnt {item.label}", actor)
    answers = {"withdrawn": policy, "versions": [version.number for version in versions]}
    for number in own:
        why = f"withdrawn by {actor.name}: {reason}"
        queue.move(connection, None, number, "withdrawn", why, actor=actor, answers=answers)
    after = queue.item(connection, item.id)
    _mark(connection, [v for v in versions if v.state == "promoted"], after)
    return Withdrawal(after, tuple(versions), policy, repeat=False)


def _need_other_champion(connection: Connection, item: QueueItem, versions: Sequence[Candidate]) -> None:
    now = champion.current(connection, item.assistant)
    version = next((v for v in versions if now and v.digest == now.version), None)
    if version is None:
        return
    numbers = {v.digest: v.number for v in candidates.versions(connection, item.assistant)}
    tuned_digests = {v.digest for v in versions}
    clean = [m.version for m in champion.lineage(connection, item.assistant) if m.version not in tuned_digests]
    way = (
        f"`lcia rollback {numbers[clean[-1]]} --reason ...` makes the newest version without it the champion"
        if clean
        else "no earlier champion is without it"
    )
    raise WithdrawalRefused(
        f"version {version.number}, the champion, was tuned on the rows of {item.label} and can't unlearn them, and "
        f"retention.withdrawn_adapters is refuse: {way}; `--set retention.withdrawn_adapters=keep` erases the rows "
        "and lets marked versions stay in use. `lcia revert` makes a version without the task that keeps all others. "
        "Nothing was changed"
    )


def _end(
    connection: Connection, version: Candidate, item: QueueItem, own: Sequence[int], actor: Actor, reason: str
) -> None:
    """Reject a waiting candidate; a task that only built upon the withdrawn one is queued again."""
    why = f"it has learnt {item.label}, which was withdrawn: {reason}"
    candidates.move(connection, version, "rejected", why)
    details: dict[str, Json] = {"evidence": version.evidence, "reason": why}
    log.append(connection, "candidate.rejected", actor, version.digest, details)
    if version.item is not None and version.item not in own:
        queue.move(connection, None, version.item, "submitted", f"learns again without {item.label}", actor=actor)


def _mark(connection: Connection, versions: Sequence[Candidate], item: QueueItem) -> None:
    """Mark versions and their promotions, here and in the registry, as tuned on rows that were withdrawn."""
    mark = f"tuned on rows of {item.label}, withdrawn since"
    for version in versions:
        marks = sorted({*version.marks, mark})
        mine = candidates_table.c.digest == version.digest
        connection.execute(update(candidates_table).where(mine).values(marks=marks))
        for promotion in connection.execute(select(promotions).where(promotions.c.version == version.digest)).all():
            here = (promotions.c.name == promotion.name) & (promotions.c.epoch == promotion.epoch)
            connection.execute(update(promotions).where(here).values(marks=sorted({*promotion.marks, mark})))
        payload: dict[str, Json] = {"digest": version.digest, "number": version.number, "marks": marks}
        enqueue(connection, version.assistant, "marks", payload)
