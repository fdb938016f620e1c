"""Outcomes of a server's recurring work, which `doctor` and the console read from another process."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from components.storage.database import now
from components.storage.tables import rounds

FORGOTTEN = timedelta(days=1)
"""Time after which a silent process is forgotten."""
MOST = 1000
"""Characters of an error that are kept."""


@dataclass(frozen=True)
class Round:
    """Last outcome of one recurring piece of work in one process."""

    name: str
    process: str
    """Role and host."""
    at: datetime
    ok_at: datetime | None
    failing_since: datetime | None
    failures: int
    """Number of failures in a row."""
    error: str | None

    @property
    def words(self) -> str:
        """The sentence for people."""
        since = f"{self.failing_since:%Y-%m-%d %H:%M} UTC" if self.failing_since else "never"
        return f"{self.name} ({self.process}) fails since {since}, {self.failures} times in a row: {self.error}"


def record(connection: Connection, name: str, process: str, error: str | None) -> None:
    """Record a round of this process: done, or failed with `error`. Processes silent for a day are forgotten."""
    moment = now(connection)
    stands = connection.execute(select(rounds).where(rounds.c.name == name, rounds.c.process == process)).one_or_none()
    before = None if stands is None else stands.failing_since
    values = {
        "at": moment,
        "ok_at": moment if error is None else None if stands is None else stands.ok_at,
        "failing_since": None if error is None else before or moment,
        "failures": 0 if error is None else 1 + (0 if stands is None else stands.failures),
        "error": None if error is None else error[:MOST],
    }
    if stands is None:
        connection.execute(insert(rounds).values(name=name, process=process, **values))
    else:
        mine = (rounds.c.name == name) & (rounds.c.process == process)
        connection.execute(update(rounds).where(mine).values(**values))
    role = process.partition("/")[0]
    connection.execute(delete(rounds).where(rounds.c.process.like(f"{role}/%"), rounds.c.at < moment - FORGOTTEN))


def failing(connection: Connection) -> list[Round]:
    """Rounds that failed the last time."""
    query = select(rounds).where(rounds.c.failing_since.is_not(None)).order_by(rounds.c.name, rounds.c.process)
    return [Round(**row) for row in connection.execute(query).mappings()]
