"""Watch on serving: every round of a server compares the version MLflow serves with the one that was decided."""

from sqlalchemy import Connection, select

from components.audit.log import SYSTEM, append
from components.promotion import champion
from components.registry.outbox_rows import SERVING
from components.registry.registry import Registry
from components.registry.retelling import NEWEST_FIRST, Retelling, newest
from components.storage import leases
from components.storage.database import Database
from components.storage.tables import outbox


def watch(db: Database, registry: Registry) -> str | None:
    """Check the version that MLflow serves; returns a sentence if it is another than the one decided, else None.

    A difference goes into the log, and the next update moves the alias back. Nothing is done while an update of MLflow
    is under way or due.

    Raises:
        RegistryError: MLflow can't be reached.
        AccountRefused: this process has an account for other work.
    """
    name = registry.name
    with db.read() as connection:
        before = champion.current(connection, name)
        quiet = _quiet(connection, name)
    if before is None or not quiet:
        return None
    digest = registry.champion()
    if digest == before.version:
        return None
    words = f"MLflow serves {_short(digest)}, decided was {_short(before.version)} (epoch {before.epoch})"
    with db.begin() as connection:
        if champion.current(connection, name) != before or not _quiet(connection, name):
            return None  # a decision or update came meanwhile: the answer may be older than it
        difference = {"kind": "alias", "digest": before.version, "words": words, "repaired": False}
        details = {"differences": [{**difference, "why_not": "MLflow is told again right after this entry"}]}
        append(connection, "registry.repaired", SYSTEM, name, details)
        Retelling(name, before.version, newest(connection, name), serving=True).enter(connection)
    return words


def _quiet(connection: Connection, assistant: str) -> bool:
    """True if no update of MLflow is under way and it has the newest decision about the champion."""
    if leases.holder(connection, f"outbox:{assistant}") is not None:
        return False
    mine = (outbox.c.assistant == assistant) & outbox.c.kind.in_(SERVING)
    last = select(outbox.c.done_at).where(mine).order_by(NEWEST_FIRST).limit(1)
    return connection.execute(last).scalar_one_or_none() is not None


def _short(digest: str | None) -> str:
    return f"version {digest[:12]}" if digest else "no version"
