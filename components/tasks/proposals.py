"""Proposed wordings of learnt tasks: by a model, or because somebody asked so and no task answered.

Nothing is used before a person accepts it. A wording that was decided is not proposed again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from sqlalchemy import Connection, delete, insert, select, update

from components.errors import LciaError
from components.storage.database import now
from components.storage.objects import Json
from components.storage.tables import wording_proposals as table
from components.tasks import queue
from components.tasks.queue import QueueItem

Source: TypeAlias = Literal["model", "request"]
MOST_OPEN = 1000
"""Proposals of an assistant that may wait; further ones are dropped until people have decided some."""


class ProposalUnknown(LciaError):
    """No proposal that waits has this number."""


@dataclass(frozen=True)
class WordingProposal:
    """One proposed wording."""

    id: int
    assistant: str
    task: str
    """Digest of the snapshot of the task that it would be a wording of."""
    label: str
    """`name@version` of that task."""
    text: str
    source: Source
    times: int
    """Number of times that it came."""
    state: Literal["open", "accepted", "declined"]
    made_by: str
    at: datetime
    """Time at which it came last."""
    decided_by: str | None
    decided_at: datetime | None
    item: int | None
    """Queue item of the change that it became part of."""

    def to_json(self) -> dict[str, Json]:
        """For `--json`."""
        moment = self.decided_at and self.decided_at.isoformat()
        return {**vars(self), "at": self.at.isoformat(), "decided_at": moment}


def propose(
    connection: Connection,
    assistant: str,
    task: str,
    label: str,
    texts: Sequence[str],
    *,
    source: Source,
    made_by: str,
) -> int:
    """Put texts before people; returns the number that are new. One that came before is counted."""
    moment, new = now(connection), 0
    waiting = len(waiting_for_people(connection, assistant))
    for text in dict.fromkeys(texts):
        same = (table.c.assistant == assistant) & (table.c.task == task) & (table.c.text == text)
        earlier = connection.execute(select(table.c.id).where(same)).scalar()
        if earlier is not None:
            connection.execute(update(table).where(table.c.id == earlier).values(times=table.c.times + 1, at=moment))
        elif waiting + new < MOST_OPEN:
            values = {"assistant": assistant, "task": task, "label": label, "text": text, "source": source}
            connection.execute(insert(table).values(**values, times=1, state="open", made_by=made_by, at=moment))
            new += 1
    return new


def waiting_for_people(connection: Connection, assistant: str, task: str | None = None) -> list[WordingProposal]:
    """Proposals that nobody has decided, of all tasks or of one; what came most often first."""
    query = select(table).where(table.c.assistant == assistant, table.c.state == "open")
    if task is not None:
        query = query.where(table.c.task == task)
    rows = connection.execute(query.order_by(table.c.label, table.c.times.desc(), table.c.id)).mappings()
    return [WordingProposal(**row) for row in rows]


def find(connection: Connection, assistant: str, numbers: Sequence[int]) -> list[WordingProposal]:
    """Proposals that wait, by number.

    Raises:
        ProposalUnknown: one is not there, or was decided.
    """
    waiting = {each.id: each for each in waiting_for_people(connection, assistant)}
    missing = [number for number in numbers if number not in waiting]
    if missing or not numbers:
        names = ", ".join(map(str, missing)) or "an empty list"
        raise ProposalUnknown(f"no proposed wording {names} waits; `lcia wordings` lists those that do")
    return [waiting[number] for number in dict.fromkeys(numbers)]


def decide(
    connection: Connection, proposals: Sequence[WordingProposal], state: str, by: str, item: int | None = None
) -> None:
    """Record what a person decided; `item` is the change that accepted ones became part of."""
    numbers = [each.id for each in proposals]
    values = {"state": state, "decided_by": by, "decided_at": now(connection), "item": item}
    connection.execute(update(table).where(table.c.id.in_(numbers)).values(**values))


def changes_of(connection: Connection, assistant: str, label: str) -> list[QueueItem]:
    """Items of the queue that change the task `label` without learning it, in order."""
    items = queue.items(connection, assistant)
    return [item for item in items if item.is_change and item.label.startswith(f"{label}+")]


def forget(connection: Connection, *, task: str | None = None, before: datetime | None = None) -> None:
    """Delete all proposals of a task, or all requests that came last before a time."""
    if task is not None:
        connection.execute(delete(table).where(table.c.task == task))
    if before is not None:
        connection.execute(delete(table).where(table.c.source == "request", table.c.at < before))
