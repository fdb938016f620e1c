"""Mending of the log by the owner of the tables: set aside a damaged end, or disown an entry that nobody decided.

Both leave the old rows in the database, and enter in the log what was done, why and by whom. A backup is better if
there is one: it also brings back the content of the end.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, delete, insert, select, text

from components.audit import log
from components.audit.decisions import DECISIONS, DISOWNED, disownments
from components.audit.keys import Head
from components.audit.log import Actor
from components.audit.verify import whole_entries
from components.errors import LciaError
from components.storage.database import AccountRefused, Database
from components.storage.objects import Json, digest_of
from components.storage.tables import log as rows
from components.storage.tables import log_set_aside, promotions

SET_ASIDE = "log.set_aside"


class NotMended(LciaError):
    """There is nothing to mend, or mending would lose what is known to have been there."""


def set_aside(db: Database, heads: Iterable[tuple[str, Head]], actor: Actor, reason: str) -> dict[str, Any]:
    """Move every row after the last whole entry into `log_set_aside`, and enter what was moved.

    `heads`: signed heads that somebody holds, by name; entries that they cover are not moved.

    Raises:
        NotMended: every entry is whole; a head covers what would be moved; or a decision rests on it.
        AccountRefused: this account does not own the tables.
    """
    with db.begin() as connection:
        good = whole_entries(connection)
        bad_rows = connection.execute(select(rows).where(rows.c.position >= good).order_by(rows.c.position)).all()
        if not bad_rows:
            raise NotMended(f"all {good} entries of the log are whole; there is nothing to set aside")
        for name, head in heads:
            if head.entries > good:
                raise NotMended(
                    f"{name} speaks of {head.entries} entries, and {good} are whole: what it speaks of was there and "
                    "is not given up; restore the database from a backup"
                )
        resting = select(promotions.c.epoch).where(promotions.c.entry >= good).order_by(promotions.c.epoch)
        epoch = connection.execute(resting.limit(1)).scalar_one_or_none()
        if epoch is not None:
            raise NotMended(
                f"the decision of epoch {epoch} was entered after the last whole entry {good - 1}: without its entry "
                "nothing explains the champion; restore the database from a backup"
            )
        _take_out(connection, good)
        hashes: list[Json] = [{"position": row.position, "sha256": digest_of(bytes(row.body))} for row in bad_rows]
        details: dict[str, Json] = {"from": good, "rows": len(bad_rows), "hashes": hashes[:1000], "reason": reason}
        entry = log.append(connection, SET_ASIDE, actor, "log", details)
        columns = ("position", "body", "hash", "root", "peaks")
        values = [{name: getattr(row, name) for name in columns} for row in bad_rows]
        connection.execute(insert(log_set_aside), [{**one, "entry": entry.index} for one in values])
        return {"kept": good, "rows": len(bad_rows), "entry": entry.index}


def disown(db: Database, index: int, actor: Actor, reason: str) -> dict[str, Any]:
    """Enter that an entry about the champion was never decided; from then on it counts for nothing.

    Raises:
        NotMended: there is no such entry, it moves no champion, it is disowned, or a decision was written with it.
        AccountRefused: this account does not own the tables.
    """
    with db.begin() as connection:
        _need_owner(connection, db)
        entry = log.at(connection, index)
        if entry is None or entry.action not in DECISIONS:
            raise NotMended(f"entry {index} moves no champion; `lcia audit verify` names the one that nobody decided")
        if disownments(connection).get(index) == entry.hash:
            raise NotMended(f"entry {index} is disowned already; nothing was changed")
        epoch = connection.execute(select(promotions.c.epoch).where(promotions.c.entry == index)).scalar_one_or_none()
        if epoch is not None:
            raise NotMended(f"entry {index} was written with the decision of epoch {epoch}; it stands")
        details: dict[str, Json] = {"entry": index, "hash": entry.hash, "reason": reason}
        new_entry = log.append(connection, DISOWNED, actor, entry.subject, details)
        return {"disowned": index, "entry": new_entry.index}


def _need_owner(connection: Connection, db: Database) -> None:
    if connection.dialect.name != "postgresql":
        return
    owner = "SELECT pg_has_role(current_user, relowner, 'USAGE') FROM pg_class WHERE oid = CAST('log' AS regclass)"
    if not connection.execute(text(owner)).scalar_one():
        raise AccountRefused(f"the account of {db.url} does not own the tables; only their owner may do this")


def _take_out(connection: Connection, good: int) -> None:
    """Delete rows with the log's own guard switched off; it is on again before the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("ALTER TABLE log DISABLE TRIGGER log_no_change"))
        connection.execute(delete(rows).where(rows.c.position >= good))
        connection.execute(text("ALTER TABLE log ENABLE TRIGGER log_no_change"))
        return
    query = "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = 'log_no_delete'"
    guard = connection.execute(text(query)).scalar_one()
    connection.execute(text("DROP TRIGGER log_no_delete"))
    connection.execute(delete(rows).where(rows.c.position >= good))
    connection.execute(text(str(guard)))
