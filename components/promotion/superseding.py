"""Declarations of people that one learnt task replaces another.

`components.tasks.replaced` adds those of packages. See docs/decisions/0016.
"""

from sqlalchemy import Connection

from components.audit.log import Actor, append
from components.errors import LciaError
from components.promotion.reasons import need_reason
from components.tasks import queue
from components.tasks.queue import QueueItem
from components.tasks.replaced import reaches

ANSWER = "superseded_by"
"""Answer in the queue item of a replaced task: `name@version` of the task that replaces it."""


class SupersedeRefused(LciaError):
    """The declaration would have no effect, or close a circle."""


def declarations(connection: Connection, assistant: str) -> dict[str, str]:
    """Replacements that people declared: `name@version` -> `name@version`."""
    items = queue.items(connection, assistant, ("promoted",))
    return {item.label: str(item.answers[ANSWER]) for item in items if ANSWER in item.answers}


def declare(connection: Connection, old: QueueItem, new: QueueItem, actor: Actor, reason: str) -> QueueItem:
    """Record in the caller's transaction, and in the log, that `new` replaces `old`; repeating it does nothing.

    Raises:
        ReasonMissing: `reason` is blank.
        SupersedeRefused: one of them is not learnt, they are the same, or `old` replaces `new` already.
    """
    need_reason(reason)
    for item in (old, new):
        if item.state != "promoted":
            raise SupersedeRefused(f"{item.label} is {item.state}, expected a learnt task; `lcia tasks` lists them")
    standing = declarations(connection, old.assistant)
    if standing.get(old.label) == new.label:
        return old
    if old.id == new.id or reaches(standing, new.label, old.label):
        raise SupersedeRefused(
            f"{old.label} can't be superseded by {new.label}: it is the same task, or supersedes that one itself"
        )
    append(connection, "task.superseded", actor, old.label, {"by": new.label, "reason": reason})
    return queue.note(connection, old.id, {ANSWER: new.label})
