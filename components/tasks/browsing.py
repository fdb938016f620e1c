"""A page of the queue for people: filtered, sorted and counted by the database, however long the queue is."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select

from components.storage.tables import queue
from components.tasks.queue import QueueItem

Order: TypeAlias = Literal["id", "name", "state", "owner", "submitted_by", "submitted_at", "changed_at"]


def page(
    connection: Connection,
    assistant: str,
    *,
    states: Sequence[str] = (),
    owner: str | None = None,
    text: str = "",
    order: Order = "id",
    falling: bool = True,
    start: int = 0,
    limit: int = 25,
) -> tuple[list[QueueItem], int]:
    """Items that fit, from position `start` on, and how many fit in all.

    `text` is looked for in name, version, owner, submitter and reason, whatever its letter case.
    """
    fitting = [queue.c.assistant == assistant, *_conditions(states, owner, text)]
    by = queue.c[order]
    query = select(queue).where(*fitting).order_by(by.desc() if falling else by, queue.c.id.desc())
    total = connection.execute(select(func.count()).select_from(queue).where(*fitting)).scalar_one()
    rows = connection.execute(query.offset(start).limit(limit)).mappings()
    return [QueueItem(**row) for row in rows], int(total)


def owners(connection: Connection, assistant: str) -> list[str]:
    """Every owner of a task, by name."""
    query: Select[tuple[str]] = select(queue.c.owner).where(queue.c.assistant == assistant).distinct()
    return sorted(connection.execute(query).scalars())


def _conditions(states: Sequence[str], owner: str | None, text: str) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if states:
        found.append(queue.c.state.in_(states))
    if owner:
        found.append(queue.c.owner == owner)
    if text:
        columns = (queue.c.name, queue.c.version, queue.c.owner, queue.c.submitted_by, queue.c.reason)
        found.append(or_(*(func.lower(column).contains(text.lower(), autoescape=True) for column in columns)))
    return found
