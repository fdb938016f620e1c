"""The outbox: updates for the registry, each written in the transaction of its decision.

So there is no decision without its update and no update without its decision. `apply_outbox` sends them in order;
sending one twice does no harm, and a failed one is tried again next time. A row that the registry refuses is parked,
and the others go on. Rows that depend on it wait: all rows about a version that could not be published, and later rows
of the same kind about that version.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, insert, select, update

from components.errors import LciaError
from components.registry.differences import ExpectedVersion
from components.registry.outbox_rows import SERVING, OutboxRow, rows
from components.registry.registry import Registry, RegistryDenied, RegistryError
from components.registry.replay import STATEMENT, StatementOf, replay
from components.registry.retelling import Retelling
from components.registry.upload import NotSigned, publish, put_statement
from components.storage.database import AccountRefused, Database, now
from components.storage.leases import Lease, StaleLease, acquire, process_owner, release, renew
from components.storage.objects import Json, ObjectStore
from components.storage.tables import champion, outbox

LEASE_SECONDS = 120.0
"""Longest time of one delivery before another process takes over."""
FIRST_RETRY, LONGEST_RETRY = timedelta(minutes=1), timedelta(hours=6)
"""Pauses between two attempts at a parked row, doubled each time; `lcia sync` tries at once."""


@dataclass(frozen=True)
class Delivery:
    """One attempt to deliver a row."""

    id: int
    kind: str
    """candidate, state, marks, forget, promote or rollback; or, after a promotion, statement or head."""
    digest: str
    ok: bool
    message: str
    waits: bool = False
    """True if it was not refused but waits for a signature, or for a process whose account may send it."""


@dataclass(frozen=True)
class Undelivered:
    """A row that the registry has not accepted yet."""

    id: int
    kind: str
    digest: str
    number: int | None
    """Number of the version, if the row has it."""
    attempts: int
    error: str
    """Error of the last attempt; empty if there was none."""
    parked_at: datetime | None
    """Time of the registry's last refusal; None if it was only out of reach, or not asked."""

    @property
    def what(self) -> str:
        """Kind and version, for people."""
        return f"{self.kind} of version {self.number}" if self.number is not None else self.kind

    def to_json(self) -> dict[str, Json]:
        """For `--json` and people."""
        times = {"parked_at": self.parked_at.isoformat() if self.parked_at else None}
        return {"kind": self.kind, "version": self.number, "attempts": self.attempts, "error": self.error, **times}


def enqueue(connection: Connection, assistant: str, kind: str, payload: Mapping[str, Json]) -> None:
    """Add a row in the deciding transaction."""
    values = {"kind": kind, "payload": dict(payload), "at": now(connection), "attempts": 0}
    connection.execute(insert(outbox).values(assistant=assistant, **values))


def pending(connection: Connection, assistant: str) -> int:
    """Number of rows not delivered yet."""
    query = select(func.count()).where(outbox.c.assistant == assistant, outbox.c.done_at.is_(None))
    return int(connection.execute(query).scalar_one())


def backlog(connection: Connection, assistant: str) -> list[Undelivered]:
    """Every row that the registry has not accepted yet, oldest first."""
    return [
        Undelivered(
            row.id,
            row.kind,
            row.digest,
            row.payload.get("number"),
            row.attempts,
            row.error or row.damage,
            row.parked_at,
        )
        for row in rows(connection, outbox.c.assistant == assistant, outbox.c.done_at.is_(None))
    ]


def has_newest_decision(connection: Connection, assistant: str) -> bool:
    """True if the registry has the newest decision about the champion."""
    mine = (outbox.c.assistant == assistant) & outbox.c.kind.in_(SERVING)
    newest = select(outbox.c.done_at).where(mine).order_by(outbox.c.id.desc()).limit(1)
    return connection.execute(newest).scalar_one_or_none() is not None


def apply_outbox(
    db: Database,
    store: ObjectStore,
    registry: Registry,
    statement_of: StatementOf | None = None,
    *,
    retry: bool = False,
) -> list[Delivery]:
    """Deliver waiting rows to the registry, oldest first, until it can't be reached.

    With `statement_of` the alias moves only to a version with a signed statement, which is put beside its files. With
    `retry` parked rows are tried, too, however recently they were refused.

    One process at a time: nothing is done while another one delivers, or if this process has a database account for
    other work. Failures are recorded in the row and returned, never raised: decisions stand without the registry.
    """
    try:
        lease = acquire(db, f"outbox:{registry.name}", process_owner("outbox"), LEASE_SECONDS)
    except AccountRefused:
        return []
    if lease is None:
        return []
    deliveries: list[Delivery] = []
    waiting: set[tuple[str, str]] = set()
    last = 0
    try:
        while row := _next(db, registry.name, last):
            last = row.id
            if _rests_on(row, waiting) or not (retry or _due(db, row)):
                waiting.add((row.digest, row.kind))
                continue
            try:
                renew(db, lease)
            except StaleLease:
                break
            try:
                deliveries.append(_deliver(db, store, registry, row, statement_of, lease))
            except (
                StaleLease
            ):  # it paused too long; what it undid is sent again, by the process that holds the lease now
                return [*deliveries, *apply_outbox(db, store, registry, statement_of, retry=retry)]
            if not deliveries[-1].ok:
                waiting.add((row.digest, row.kind))
                if not (deliveries[-1].waits or row.damage) and not registry.answers():
                    break
                if not deliveries[-1].waits:
                    _park(db, last)
    finally:
        release(db, lease)
    return deliveries


def _rests_on(row: OutboxRow, waiting: Collection[tuple[str, str]]) -> bool:
    """True if a row has to wait for one of those in `waiting`, given by version and kind.

    A row that forgets a version waits for none, and a later decision for a version does not wait for an earlier one.
    """
    if row.kind == "forget" or row.damage:
        return False
    earlier = {"candidate"} if row.kind in SERVING else {"candidate", row.kind}
    return any((row.digest, kind) in waiting for kind in earlier)


def _next(db: Database, assistant: str, after: int) -> OutboxRow | None:
    mine = outbox.c.assistant == assistant, outbox.c.done_at.is_(None), outbox.c.id > after
    with db.read() as connection:
        first = connection.execute(select(func.min(outbox.c.id)).where(*mine)).scalar_one()
        return next(iter(rows(connection, outbox.c.id == first)), None)


def _due(db: Database, row: OutboxRow) -> bool:
    """True if a row is not parked, or its pause is over."""
    if row.parked_at is None:
        return True
    pause = min(FIRST_RETRY * 2 ** min(row.attempts, 20), LONGEST_RETRY)  # unbounded, a timedelta would overflow
    with db.read() as connection:
        return bool(now(connection) >= row.parked_at + pause)


def _park(db: Database, identity: int) -> None:
    """Park a row that failed although the registry can be reached: the registry refuses this row."""
    with db.begin() as connection:
        connection.execute(update(outbox).where(outbox.c.id == identity).values(parked_at=now(connection)))


def _deliver(
    db: Database, store: ObjectStore, registry: Registry, row: OutboxRow, statement_of: StatementOf | None, lease: Lease
) -> Delivery:
    """Deliver one row and record the outcome.

    Raises:
        StaleLease: this process paused for so long that another one updated MLflow meanwhile. Its updates about this
            version, and about the champion, wait again, because this process may have undone them.
    """
    identity, kind, payload = row.id, row.kind, row.payload
    error: str | None = None
    serving: str | None = None
    packing: dict[str, str] | None = None
    waits = False
    try:
        row.need_whole()
        if kind in SERVING:
            message = _serve(db, store, registry, row, statement_of)
            serving = registry.champion()
        elif kind == "candidate":
            publication = publish(store, registry, payload)
            message, packing = f"published as version {publication.version}", publication.packing
        elif kind == "forget":
            message = f"{registry.forget(row.digest)} version(s) removed, with their files"
        else:
            message = _tag(db, store, registry, row)
    except LciaError as refused:
        error = message = str(refused)
        waits = isinstance(refused, NotSigned | RegistryDenied)
    except Exception as broken:  # noqa: BLE001 - whatever a row holds, the others are delivered
        error = message = f"row {identity} ({kind}) can't be told: {type(broken).__name__}: {broken}"
    fence = Retelling(registry.name, str(payload.get("digest")), identity, serving=kind in SERVING and not waits)
    with fence.transaction(db, lease) as connection:
        moment = now(connection)
        outcome = {"done_at": moment, "parked_at": None} if error is None else {"done_at": None}
        connection.execute(
            update(outbox).where(outbox.c.id == identity).values(attempts=outbox.c.attempts + 1, error=error, **outcome)
        )
        keep_packing(connection, identity, packing)
        if kind == "forget" and error is None:
            _drop_earlier(connection, registry.name, identity, row.digest, moment)
        if serving is not None:
            connection.execute(update(champion).where(champion.c.name == registry.name).values(served=serving))
    return Delivery(identity, kind, row.digest, error is None, message, waits)


def keep_packing(connection: Connection, identity: int, packing: Mapping[str, str] | None) -> None:
    """Record the digests of MLflow's packing of the model that a row published; None: nothing new."""
    if packing is not None:
        connection.execute(update(outbox).where(outbox.c.id == identity).values(packing=dict(packing)))


def _drop_earlier(connection: Connection, assistant: str, identity: int, digest: str, moment: datetime) -> None:
    """End earlier rows that still wait about a version that is forgotten now."""
    earlier = rows(connection, outbox.c.assistant == assistant, outbox.c.done_at.is_(None), outbox.c.id < identity)
    mine = [row.id for row in earlier if row.digest == digest]
    values = {"done_at": moment, "parked_at": None, "error": "not told: the version was forgotten before"}
    connection.execute(update(outbox).where(outbox.c.id.in_(mine)).values(**values))


def _serve(
    db: Database, store: ObjectStore, registry: Registry, row: OutboxRow, statement_of: StatementOf | None
) -> str:
    """Deliver a decision about the champion: its statement, its version, a check that it loads; then move the alias.

    If a later decision was delivered already, because this row was parked, the alias stays with that one.
    """
    digest, tags = row.digest, row.payload.get("tags", {})
    with db.read() as connection:
        overtaken = _overtaken(connection, registry.name, row.id)
        statement = statement_of(connection, registry.name, digest, row.payload) if statement_of is not None else None
        past = replay(connection, store, registry.name, statement_of, only=digest, with_row=row.id)
    record = past.versions.get(digest)
    if statement_of is not None and not overtaken:
        put_statement(store, registry, digest, statement)
    if (
        record is not None and record.copy_tags is not None
    ):  # rows that came later but were delivered first have set these
        tags = {name: record.copy_tags[name] for name in tags}
    version = registry.add_promoted(digest, tags)
    if overtaken:
        return f"version {version} is promoted; a later champion is served"
    if record is not None:
        _need_loadable(registry, digest, record, statement)
    if row.kind == "rollback":
        return f"champion is again version {registry.rollback(digest)}"
    return f"champion is version {registry.promote(digest)}"


def _tag(db: Database, store: ObjectStore, registry: Registry, row: OutboxRow) -> str:
    """Deliver a state or marks, in the form that later rows delivered before this one have left."""
    with db.read() as connection:
        record = replay(connection, store, registry.name, None, only="", with_row=row.id).versions.get(row.digest)
    if record is None:
        raise RegistryError(
            f"MLflow was never told of the candidate {row.digest[:12]}, or to forget it since: nothing bears the tag"
        )
    copy_tags = None if record.copy_tags is None else {row.kind: record.copy_tags[row.kind]}
    registry.tag(row.digest, {row.kind: record.tags[row.kind]}, copy_tags)
    return f"tagged {record.tags[row.kind]}" if row.kind == "state" else "tagged with its marks"


def _need_loadable(registry: Registry, digest: str, record: ExpectedVersion, statement: str | None) -> None:
    record.copy_tags = record.copy_tags or {}
    if statement is not None:
        record.files[STATEMENT] = statement
    registry.need_loadable(digest, record)


def _overtaken(connection: Connection, assistant: str, identity: int) -> bool:
    """True if a later decision about the champion was delivered already."""
    later = (outbox.c.id > identity) & outbox.c.kind.in_(SERVING) & outbox.c.done_at.is_not(None)
    query = select(outbox.c.id).where(outbox.c.assistant == assistant, later).limit(1)
    return connection.execute(query).first() is not None
