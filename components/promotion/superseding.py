"""Superseding: learnt tasks that later ones replace leave the family of tasks that a candidate must not forget.

A package says so with `supersedes` in task.yaml, which counts if both tasks have one owner; otherwise a person has to
declare it, or a site could take another's task out of the gate. See docs/decisions/0016.
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
"""Answer in the queue item of a replaced task: `name@version` of the task that replaces it."""


class SupersedeRefused(LciaError):
    """The declaration would have no effect, or close a circle."""


def replacements(tasks: Iterable[Task], declarations: Mapping[str, str]) -> dict[str, str]:
    """`name@version` of every replaced task -> that of its replacement; both have to be learnt."""
    by_label = {task.label: task for task in tasks}
    successors = {old: new for old, new in declarations.items() if old in by_label and new in by_label}
    for task in by_label.values():
        old = by_label.get(task.supersedes or "")
        if old is not None and old.owner == task.owner and not _reaches(successors, task.label, old.label):
            successors.setdefault(old.label, task.label)
    return successors


def declarations(connection: Connection, assistant: str) -> dict[str, str]:
    """Replacements that people declared: `name@version` -> `name@version`."""
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
    standing = declarations(connection, old.assistant)
    if standing.get(label(old)) == label(new):
        return old
    if old.id == new.id or _reaches(standing, label(new), label(old)):
        raise SupersedeRefused(
            f"{label(old)} can't be superseded by {label(new)}: it is the same task, or supersedes that one itself"
        )
    append(connection, "task.superseded", actor, label(old), {"by": label(new), "reason": reason})
    return queue.note(connection, old.id, {ANSWER: label(new)})


def label(item: QueueItem) -> str:
    """`name@version`."""
    return f"{item.name}@{item.version}"


def _reaches(successors: Mapping[str, str], start: str, end: str) -> bool:
    """True if following replacements from `start` leads to `end`."""
    at: str | None = start
    for _ in range(len(successors) + 1):
        if at == end:
            return True
        at = successors.get(at) if at else None
    return False
