"""Attempts at a task: how often versions of it were judged since the last one was promoted.

A task submitted again and again with small changes gets a new chance at the gate each time: tested at the whole level,
twenty resubmissions pass a margin once with probability up to .64. So attempts count by the task's name and owner,
whatever its rows and the champion they were learnt on, and attempt k is tested at `(1 - confidence) / 2^(k - 1)`. Old
attempts leave the count after `policy.gate.attempts_window_days`. The log has every registration, including those of
versions that were registered again. A version that only carries another over has its number: it learnt nothing anew.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from components.audit.log import Entry, newest
from components.storage.database import now
from components.storage.objects import ObjectStore
from components.storage.tables import candidates, promotions, queue

REGISTERED = "candidate.registered"
AGAIN = " again on "
"""Part of the name of a version on another base model, which learns everything again."""
LONGEST = 180
"""Most characters of such a name that are kept, besides the number of tasks."""


@dataclass(frozen=True)
class Family:
    """Tasks whose attempts count together: those of one name and owner, or of one base model if there is no owner."""

    assistant: str
    name: str
    owner: str | None = None

    def items(self, connection: Connection) -> frozenset[int]:
        """Queue items of these tasks; none without an owner."""
        mine = (queue.c.assistant == self.assistant) & (queue.c.name == self.name) & (queue.c.owner == self.owner)
        return frozenset(connection.execute(select(queue.c.id).where(mine)).scalars())


def base_model_family(assistant: str, base_model: str) -> Family:
    """The family of versions that learn every task again on a base model."""
    return Family(assistant, f"{AGAIN}{base_model}"[:LONGEST])


def attempts(connection: Connection, family: Family, window_days: float) -> int:
    """Versions of a family judged within the window and since its last promotion; the gate gets stricter with each.

    Raises:
        LogDamaged: a stored entry of the log can't be read.
    """
    items = family.items(connection)
    since = now(connection) - timedelta(days=window_days)
    last = _last_promotion(connection, items)
    count = 0
    for digest in _versions(connection, family, items):
        for entry in newest(connection, [REGISTERED], digest):
            if last is None or entry.index > last:
                count += datetime.fromisoformat(entry.at) >= since and _belongs(entry, family, items)
    return count


def _versions(connection: Connection, family: Family, items: frozenset[int]) -> list[str]:
    """Versions that may belong to a family. The log says how often each was registered."""
    query = select(candidates.c.digest).where(candidates.c.assistant == family.assistant)
    mine = candidates.c.item.in_(items) if family.owner is not None else candidates.c.item.is_(None)
    return list(connection.execute(query.where(mine)).scalars())


def _belongs(entry: Entry, family: Family, items: frozenset[int]) -> bool:
    if entry.details["assistant"] != family.assistant or "origin" in entry.details:
        return False
    item = entry.details.get("item")
    if family.owner is None:
        return item is None and str(entry.details["task_name"]).endswith(family.name)
    return item in items


def _last_promotion(connection: Connection, items: frozenset[int]) -> int | None:
    """The log entry of the family's last promotion. Earlier attempts don't count, whatever the clock said."""
    newest_entry = select(func.max(promotions.c.entry)).join(candidates, candidates.c.digest == promotions.c.version)
    mine = candidates.c.item.in_(items) & (promotions.c.kind == "promotion")
    entry: int | None = connection.execute(newest_entry.where(mine)).scalar_one()
    return entry


def anchor_looks(store: ObjectStore, gates: Iterable[str]) -> dict[str, int]:
    """Task -> number of the given gate reports that compared a candidate with its anchor."""
    return Counter(
        row["task"] for digest in gates for row in store.get_json(digest)["rows"] if row["rule"] == "lifetime"
    )
