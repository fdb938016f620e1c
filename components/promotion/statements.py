"""Signed statements of promotions and rollbacks: made from the log after the decision, kept as objects, handed out.

A decision never waits for its signature: what is owed is read off the history, so a crash or an absent key delays a
statement and loses none. What loads the champion waits for it: see `need`.
"""

from collections.abc import Mapping
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from components.audit import keyring, log, statement
from components.audit.keys import SigningKey
from components.audit.log import Entry, LogDamaged
from components.audit.statement import Statement, StatementRefused
from components.promotion.candidates import Candidate
from components.promotion.champion import Promotion, lineage
from components.promotion.outbox import enqueue, told
from components.storage.database import Database, now
from components.storage.objects import Json, ObjectCorrupt, ObjectMissing, ObjectStore
from components.storage.tables import statements

KINDS = {"champion.promoted": "promotion", "champion.rolled_back": "rollback"}
TOLD = ("evidence", "verdict", "policy", "approvals", "override", "automatic", "previous", "reason", "marks")
"""Details of the log entry that the statement repeats."""


def owed(connection: Connection, assistant: str, key: str | None) -> list[Promotion]:
    """Decisions without a statement, oldest first; the newest must have one signed by `key` (None: by any)."""
    made = lineage(connection, assistant)
    query = select(statements.c.epoch, statements.c.key).where(statements.c.name == assistant)
    known = {(row.epoch, row.key) for row in connection.execute(query)}
    having = {epoch for epoch, _ in known}
    return [one for one in made if one.epoch not in having] + [
        one for one in made[-1:] if one.epoch in having and key is not None and (one.epoch, key) not in known
    ]


def sign_owed(db: Database, store: ObjectStore, key: SigningKey, assistant: str) -> list[Promotion]:
    """Make every statement that is owed; may be repeated and run at once by several processes.

    Raises:
        LogDamaged: the log does not hold a decision of the history.
    """
    with db.read() as connection:
        made = owed(connection, assistant, key.id)
        found = entries_of(connection, made)
        records = keyring.records(connection)
    for one in made:
        entry = found[one.epoch]
        number = int(entry.details["number"])
        payload = statement.payload(assistant, number, one.version, _predicate(one, entry))
        digest = store.put(statement.signed(key, payload, records))
        try:
            with db.begin() as connection:
                values = {"name": assistant, "epoch": one.epoch, "key": key.id, "statement": digest}
                connection.execute(insert(statements).values(**values, at=now(connection)))
                if one is made[-1] and told(connection, assistant):  # without this statement
                    enqueue(connection, assistant, "rollback", {"digest": one.version, "number": number})
        except IntegrityError:  # another process was as fast
            continue
    return made


def entries_of(connection: Connection, made: list[Promotion]) -> Mapping[int, Entry]:
    """The log entry of each decision, by epoch; the newest are found at once.

    Raises:
        LogDamaged: one has none.
    """
    wanted = {one.epoch: one for one in made}
    found: dict[int, Entry] = {}
    for entry in log.backwards(connection) if wanted else ():
        if entry.action in KINDS:
            one = wanted.get(int(entry.details.get("epoch", 0)))
            if one and (entry.details.get("assistant"), entry.subject) == (one.name, one.version):
                found[one.epoch] = entry
                if len(found) == len(wanted):
                    break
    for epoch in wanted.keys() - found.keys():
        raise LogDamaged(
            f"the log has no entry for the decision of epoch {epoch} about {wanted[epoch].version[:12]}; "
            "`lcia audit verify` says what was changed"
        )
    return found


def newest(connection: Connection, assistant: str, version: str, until: datetime | None = None) -> str | None:
    """Object of the newest statement about a version, made `until` then; None where there is none."""
    epochs = [made.epoch for made in lineage(connection, assistant) if made.version == version]
    mine = (statements.c.name == assistant) & statements.c.epoch.in_(epochs)
    query = select(statements.c.statement).where(mine).order_by(statements.c.epoch.desc(), statements.c.at.desc())
    if until is not None:
        query = query.where(statements.c.at <= until)
    return connection.execute(query.limit(1)).scalar_one_or_none()


def content(db: Database, store: ObjectStore, assistant: str, version: Candidate) -> bytes:
    """The newest statement file about a version.

    Raises:
        StatementRefused: there is none, or its bytes were altered.
    """
    with db.read() as connection:
        digest = newest(connection, assistant, version.digest)
    if digest is None:
        why = "it was never champion" if version.state != "promoted" else "`lcia sync` signs it where the key is"
        raise StatementRefused(f"version {version.number} has no signed statement of its promotion: {why}")
    try:
        return store.get(digest)
    except (ObjectMissing, ObjectCorrupt) as error:
        raise StatementRefused(f"the statement of version {version.number} can't be read: {error}") from error


def need(
    db: Database, store: ObjectStore, assistant: str, version: Candidate, trusted: Ed25519PublicKey | None
) -> Statement:
    """The checked statement without which a champion is not loaded; `trusted` as in `statement.read`.

    Raises:
        StatementRefused: there is none that holds.
    """
    return statement.read(content(db, store, assistant, version), trusted, version.digest)


def _predicate(made: Promotion, entry: Entry) -> dict[str, Json]:
    return {
        "assistant": made.name,
        "number": entry.details["number"],
        "epoch": made.epoch,
        "kind": KINDS[entry.action],
        "at": entry.at,
        "by": {"name": entry.actor.name, "assured": entry.actor.assured, "how": entry.actor.how},
        **{name: entry.details.get(name) for name in TOLD},
        "log": {"entry": entry.index, "hash": entry.hash, "root": entry.root},
    }
