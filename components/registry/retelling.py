"""Retelling: updates that a paused process may have undone are sent to MLflow again.

MLflow knows no leases: a process that was paused while it moved the alias resumes there, even after others have decided
and sent something else, and nothing can stop it. So after each update the process checks its lease in the transaction
that records the update. If another process has taken the lease over, the later updates are sent once more.
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
    """Updates after row `after` that an older update, sent late, may have undone."""

    assistant: str
    digest: str | None
    """Digest of the version that the older update was about; None: any version."""
    after: int
    serving: bool
    """True if the older update said which version to serve."""

    @contextmanager
    def transaction(self, db: Database, lease: Lease) -> Iterator[Connection]:
        """Transaction that records an update, under the lease it was sent with.

        Raises:
            StaleLease: others updated MLflow meanwhile; nothing of the block is written, and their updates wait again.
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
        """Make the rows wait again; the served version is unknown until they are delivered."""
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
    """Number of the newest row; 0 if there is none."""
    query = select(outbox.c.id).where(outbox.c.assistant == assistant).order_by(NEWEST_FIRST).limit(1)
    return connection.execute(query).scalar_one_or_none() or 0
