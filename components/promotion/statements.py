"""Signed statements of promotions and rollbacks: made from the log after the decision, kept as objects, handed out.

A decision never waits for its signature: missing statements are read off the history, so a crash or an absent key
delays a statement and loses none. Code that loads the champion does wait for it: see `need`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from components.audit import heads, keyring, log, statement
from components.audit.decisions import ADVICE, DECISIONS, need_decision, tells_of
from components.audit.heads import Keep
from components.audit.keys import SigningKey
from components.audit.log import Entry, LogDamaged
from components.audit.statement import Statement, StatementRefused
from components.errors import LciaError
from components.promotion import champion, trial_statements
from components.promotion.candidates import Candidate
from components.promotion.champion import Promotion, lineage
from components.registry.outbox import Delivery, enqueue, has_newest_decision
from components.storage.database import AccountRefused, Database, now
from components.storage.objects import Json, ObjectCorrupt, ObjectMissing, ObjectStore
from components.storage.tables import signing_keys, statements

TOLD = ("evidence", "trials", "verdict", "policy", "approvals", "override", "automatic", "previous", "reason", "marks")
"""Details of the log entry that the statement repeats."""


def due(connection: Connection, assistant: str, key: str | None) -> list[Promotion]:
    """Decisions without a statement, oldest first; the newest one needs a statement signed by `key` (None: by any)."""
    decisions = lineage(connection, assistant)
    query = select(statements.c.epoch, statements.c.key).where(statements.c.name == assistant)
    signatures = {(row.epoch, row.key) for row in connection.execute(query)}
    having = {epoch for epoch, _ in signatures}
    return [one for one in decisions if one.epoch not in having] + [
        one for one in decisions[-1:] if one.epoch in having and key is not None and (one.epoch, key) not in signatures
    ]


def sign_owed(db: Database, store: ObjectStore, key: SigningKey, assistant: str) -> list[Promotion]:
    """Make every missing statement; may be repeated, and run by several processes at once.

    Raises:
        LogDamaged: the log does not hold a decision of the history.
    """
    with db.read() as connection:
        decisions = due(connection, assistant, key.id)
        entries = entries_of(connection, decisions)
        records = keyring.records(connection)
    for one in decisions:
        entry = entries[one.epoch]
        number = int(entry.details["number"])
        payload = statement.payload(assistant, number, one.version, _predicate(one, entry))
        digest = store.put(statement.sign(key, payload, records))
        try:
            with db.begin() as connection:
                values = {"name": assistant, "epoch": one.epoch, "key": key.id, "statement": digest}
                connection.execute(insert(statements).values(**values, at=now(connection)))
                if one is decisions[-1] and has_newest_decision(connection, assistant):  # but without this statement
                    again = {"digest": one.version, "number": number, "epoch": one.epoch}
                    enqueue(connection, assistant, "rollback", again)
        except IntegrityError:  # another process has just made it
            continue
    return decisions


def entries_of(connection: Connection, decisions: list[Promotion]) -> Mapping[int, Entry]:
    """Epoch -> the log entry that the decision was written with: never another entry that says the same.

    Raises:
        LogDamaged: a decision has no entry, or one that is about something else.
    """
    entries: dict[int, Entry] = {}
    for one in decisions:
        entry = None if one.entry is None else log.at(connection, one.entry)
        if entry is None or not tells_of(entry, vars(one)):
            raise LogDamaged(
                f"the log has no entry for the decision of epoch {one.epoch} about {one.version[:12]}; {ADVICE}"
            )
        entries[one.epoch] = entry
    return entries


def newest(
    connection: Connection, assistant: str, version: str, payload: Mapping[str, Any] | None = None
) -> str | None:
    """Digest of the statement of the newest decision about a version, or of the decision that an outbox row carries.

    None if that decision is not signed yet: an earlier decision's statement does not stand in for it. Rows of earlier
    releases do not say which decision they carry.
    """
    epoch = (payload or {}).get("epoch")
    if epoch is None:
        epoch = max(
            (decision.epoch for decision in lineage(connection, assistant) if decision.version == version), default=None
        )
    query = select(statements.c.statement).join(signing_keys, signing_keys.c.id == statements.c.key)
    query = query.where(statements.c.name == assistant, statements.c.epoch == epoch)
    return connection.execute(query.order_by(signing_keys.c.number.desc()).limit(1)).scalar_one_or_none()


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
    db: Database, store: ObjectStore, assistant: str, version: Candidate, key: Ed25519PublicKey | None
) -> Statement:
    """The checked statement that loading a champion requires; `key` as in `statement.read`.

    It has to be that of the present decision: one of an earlier epoch is refused, whatever it says of this version.

    Raises:
        StatementRefused: there is no valid one.
        ChampionUnexplained: the log does not explain the champion.
    """
    with db.read() as connection:
        entry = need_decision(connection, assistant)
    result = statement.read(content(db, store, assistant, version), key, version.digest)
    origin = (result.predicate.get("assistant"), result.predicate["log"]["entry"], result.predicate["log"]["hash"])
    if entry is not None and entry.subject == version.digest and origin != (assistant, entry.index, entry.hash):
        raise StatementRefused(
            f"the statement of version {version.number} is of epoch {result.predicate.get('epoch')} (entry {origin[1]} "
            f"of the log), the present decision is epoch {entry.details['epoch']} (entry {entry.index}): `lcia sync` "
            "signs it where the key is"
        )
    return result


def _predicate(decision: Promotion, entry: Entry) -> dict[str, Json]:
    return {
        "assistant": decision.name,
        "number": entry.details["number"],
        "epoch": decision.epoch,
        "kind": DECISIONS[entry.action],
        "at": entry.at,
        "by": {"name": entry.actor.name, "assured": entry.actor.assured, "how": entry.actor.how},
        **{name: entry.details.get(name) for name in TOLD},
        "log": {"entry": entry.index, "hash": entry.hash, "root": entry.root},
    }


def attest(
    db: Database,
    store: ObjectStore,
    assistant: str,
    key: Callable[[], SigningKey],
    places: Sequence[str],
    keepers: Mapping[str, Keep],
) -> list[Delivery]:
    """Sign missing statements, also of trials, and write heads to their places; failures are returned, never raised.

    `key` is called only if there is something to sign. A process whose database account is for other work does nothing.
    """
    try:
        with db.read() as connection:
            newest_key = keyring.newest(connection)
            missing = due(connection, assistant, newest_key)
            trials = trial_statements.due(connection, assistant, newest_key)
            last = champion.lineage(connection, assistant)[-1:]
            length = max((entry.index + 1 for entry in entries_of(connection, last).values()), default=0)
            headless = heads.missing(connection, places, length) if length else []
            waiting = heads.waiting(connection, places)
        if missing:
            sign_owed(db, store, key(), assistant)
        if trials:
            trial_statements.sign_owed(db, store, key(), assistant)
        if headless:
            heads.enqueue(db, key(), headless)
        deliveries = heads.deliver(db, places, keepers) if headless or waiting else []
    except AccountRefused:
        return []
    except LciaError as error:
        return [Delivery(0, "statement", "", ok=False, message=f"not signed: {error}")]
    return [Delivery(0, "head", "", one.ok, f"{one.place}: {one.message}") for one in deliveries]
