"""Telling MLflow again what a process that was stopped may have undone.

MLflow knows no leases: a process that was stopped while it moved the alias goes on where it was, long after others
decided and told otherwise. It can't be kept from that. So whoever told MLflow something looks at its lease again in the
transaction that notes it, and where that was taken over, the others' later words are told once more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from components.registry.outbox_rows import SERVING
from components.storage.database import Database
from components.storage.leases import Lease, StaleLease, check
from components.storage.tables import champion, outbox

NEWEST_FIRST = outbox.c.id.desc()


@dataclass(frozen=True)
class Retelling:
    """What may have been undone by telling MLflow something that was known when row `after` was the newest."""

    assistant: str
    digest: str | None
    """Of the version that it was about; None: of any."""
    after: int
    serving: bool
    """True if it said whom to serve."""

    @contextmanager
    def transaction(self, db: Database, lease: Lease) -> Iterator[Connection]:
        """A transaction that notes what was told, under the lease it was told with.

        Raises:
            StaleLease: others told MLflow meanwhile; nothing of the block is written, and theirs is told again.
        """
        overtaken: StaleLease | None = None
        with db.begin() as connection:
            try:
                check(connection, lease)
            except StaleLease as stale:
                overtaken = stale
                self.enter(connection)
            else:
                yield connection
        if overtaken is not None:
            raise overtaken

    def enter(self, connection: Connection) -> None:
        """Make the rows wait again; what MLflow serves is unknown until they are told."""
        past_rows = (outbox.c.assistant == self.assistant) & outbox.c.done_at.is_not(None)
        later = select(outbox.c.id, outbox.c.payload).where(
            past_rows, outbox.c.id > self.after, outbox.c.error.is_(None)
        )
        rows = connection.execute(later).all()
        again = [row.id for row in rows if self.digest in (None, row.payload.get("digest"))]
        if self.serving:
            newest = select(outbox.c.id).where(past_rows, outbox.c.kind.in_(SERVING)).order_by(NEWEST_FIRST).limit(1)
            again += connection.execute(newest).scalars().all()
            mine = champion.c.name == self.assistant
            connection.execute(update(champion).where(mine).values(served=None))
        connection.execute(update(outbox).where(outbox.c.id.in_(again)).values(done_at=None, parked_at=None))


def newest(connection: Connection, assistant: str) -> int:
    """Number of the newest row; 0 where there is none."""
    query = select(outbox.c.id).where(outbox.c.assistant == assistant).order_by(NEWEST_FIRST).limit(1)
    return connection.execute(query).scalar_one_or_none() or 0
