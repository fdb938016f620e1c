"""Which learnt tasks are replaced by later ones, and so leave the family of tasks that a candidate must not forget.

A package says so with `supersedes` in task.yaml, which counts where both tasks have one owner; anything else is for a
person to declare, or a site could take another's task out of the gate. See docs/decisions/0016.
"""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection

from components.audit.log import Actor, append
from components.errors import LciaError
from components.promotion.reasons import need_reason
from components.tasks import queue
from components.tasks.queue import QueueItem
from components.tasks.task_file import Task

ANSWER = "superseded_by"
"""What the queue item of a replaced task says: `name@version` of the task that replaces it."""


class SupersedeRefused(LciaError):
    """The declaration would mean nothing, or lead in a circle."""


def superseded(tasks: Iterable[Task], declared: Mapping[str, str]) -> dict[str, str]:
    """`name@version` of every replaced task -> of what replaces it; both have to be learnt."""
    known = {task.label: task for task in tasks}
    found = {old: new for old, new in declared.items() if old in known and new in known}
    for task in known.values():
        old = known.get(task.supersedes or "")
        if old is not None and old.owner == task.owner and not _reaches(found, task.label, old.label):
            found.setdefault(old.label, task.label)
    return found


def declared(connection: Connection, assistant: str) -> dict[str, str]:
    """What people have declared."""
    items = queue.items(connection, assistant, ("promoted",))
    return {label(item): str(item.answers[ANSWER]) for item in items if ANSWER in item.answers}


def declare(connection: Connection, old: QueueItem, new: QueueItem, actor: Actor, reason: str) -> QueueItem:
    """Record in the caller's transaction, and in the log, that `new` replaces `old`; repeating it does nothing.

    Raises:
        ReasonMissing: `reason` is blank.
        SupersedeRefused: one of them is not learnt, they are the same, or `old` replaces `new` already.
    """
    need_reason(reason)
    for item in (old, new):
        if item.state != "promoted":
            raise SupersedeRefused(f"{label(item)} is {item.state}, expected a learnt task; `lcia tasks` lists them")
    known = declared(connection, old.assistant)
    if known.get(label(old)) == label(new):
        return old
    if old.id == new.id or _reaches(known, label(new), label(old)):
        raise SupersedeRefused(
            f"{label(old)} can't be superseded by {label(new)}: it is the same task, or supersedes that one itself"
        )
    append(connection, "task.superseded", actor, label(old), {"by": label(new), "reason": reason})
    return queue.note(connection, old.id, {ANSWER: label(new)})


def label(item: QueueItem) -> str:
    """`name@version`."""
    return f"{item.name}@{item.version}"


def _reaches(found: Mapping[str, str], start: str, end: str) -> bool:
    """Whether following replacements from `start` comes to `end`."""
    at: str | None = start
    for _ in range(len(found) + 1):
        if at == end:
            return True
        at = found.get(at) if at else None
    return False
