"""The outbox: what the registry has to be told, written in the transaction that decided it.

So a decision without its announcement, or an announcement without its decision, can't exist. `apply_outbox`
tells the registry in order; telling it twice does no harm, and what failed is tried again next time. A row that the
registry refuses is parked: later rows about the same version wait for it, all others go on.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from components.errors import LciaError
from components.promotion.registry import Registry, RegistryDenied
from components.promotion.registry_check import Told, model_place
from components.promotion.replay import SERVING, STATEMENT, Signed, replay
from components.promotion.retelling import Retelling
from components.storage.database import AccountRefused, Database, now
from components.storage.leases import Lease, StaleLease, acquire, process_owner, release, renew
from components.storage.objects import FolderRefused, Json, ObjectStore
from components.storage.tables import champion, outbox
from components.tuning.progress_curves import curves

LEASE_SECONDS = 120.0
"""How long one delivery may take before another process takes over."""
FIRST_RETRY, LONGEST_RETRY = timedelta(minutes=1), timedelta(hours=6)
"""Pauses between two attempts at a parked row, doubled each time; `lcia sync` tries at once."""


class OutboxDamaged(LciaError):
    """A row that no version of this program wrote."""


class NotSigned(LciaError):
    """A promotion without a statement: what loads the champion would refuse it."""


@dataclass(frozen=True)
class Delivery:
    """One row that was tried."""

    id: int
    kind: str
    """candidate, state, marks, forget, promote or rollback; statement or head of what follows a promotion."""
    digest: str
    ok: bool
    message: str
    waits: bool = False
    """It was not refused: it waits for a signature, or for a process whose account may tell it."""


@dataclass(frozen=True)
class Undelivered:
    """A row that the registry has not taken yet."""

    id: int
    kind: str
    digest: str
    number: int | None
    """The version's, where the row names it."""
    attempts: int
    error: str
    """Of the last attempt; empty where there was none."""
    parked_at: datetime | None
    """When the registry refused it last; None where it only could not be reached, or was not asked."""

    def to_json(self) -> dict[str, Json]:
        """For `--json` and people."""
        parked = {"parked_at": self.parked_at.isoformat() if self.parked_at else None}
        return {"kind": self.kind, "version": self.number, "attempts": self.attempts, "error": self.error, **parked}


def enqueue(connection: Connection, assistant: str, kind: str, payload: Mapping[str, Json]) -> None:
    """Add a row in the deciding transaction."""
    values = {"kind": kind, "payload": dict(payload), "at": now(connection), "attempts": 0}
    connection.execute(insert(outbox).values(assistant=assistant, **values))


def pending(connection: Connection, assistant: str) -> int:
    """How many rows the registry has not been told yet."""
    query = select(func.count()).where(outbox.c.assistant == assistant, outbox.c.done_at.is_(None))
    return int(connection.execute(query).scalar_one())


def undelivered(connection: Connection, assistant: str) -> list[Undelivered]:
    """Every row that the registry has not taken yet, oldest first."""
    query = select(outbox).where(outbox.c.assistant == assistant, outbox.c.done_at.is_(None)).order_by(outbox.c.id)
    return [
        Undelivered(
            int(row["id"]),
            str(row["kind"]),
            str(row["payload"].get("digest", "")),
            row["payload"].get("number"),
            int(row["attempts"]),
            row["error"] or "",
            row["parked_at"],
        )
        for row in connection.execute(query).mappings()
    ]


def told(connection: Connection, assistant: str) -> bool:
    """Whether the registry was told of the newest decision about the champion."""
    mine = (outbox.c.assistant == assistant) & outbox.c.kind.in_(SERVING)
    newest = select(outbox.c.done_at).where(mine).order_by(outbox.c.id.desc()).limit(1)
    return connection.execute(newest).scalar_one_or_none() is not None


def apply_outbox(
    db: Database,
    store: ObjectStore,
    registry: Registry,
    signed: Signed | None = None,
    *,
    retry: bool = False,
) -> list[Delivery]:
    """Tell the registry what it does not know yet, oldest first, stopping where it can't be reached.

    With `signed` the alias moves only to a version that has a signed statement, which is put beside its files. With
    `retry` parked rows are tried too, however short ago they were refused.

    One process at a time: while another one delivers, nothing is done; neither where this process has a database
    account for other work. Failures are recorded in the row and returned, never raised, for the decisions stand without
    the registry.
    """
    try:
        lease = acquire(db, f"outbox:{registry.name}", process_owner("outbox"), LEASE_SECONDS)
    except AccountRefused:
        return []
    if lease is None:
        return []
    done: list[Delivery] = []
    waiting: set[str] = set()
    last = 0
    try:
        while row := _next(db, registry.name, last):
            last = int(row["id"])
            digest = str(row["payload"].get("digest", ""))
            forgets = row["kind"] == "forget"  # nothing that came before matters to it
            if (digest in waiting and not forgets) or not (retry or _due(db, row)):
                waiting.add(digest)
                continue
            try:
                renew(db, lease)
            except StaleLease:
                break
            try:
                done.append(_deliver(db, store, registry, row, signed, lease))
            except StaleLease:  # stopped meanwhile; what it undid is told again, by whoever holds the lease now
                return [*done, *apply_outbox(db, store, registry, signed, retry=retry)]
            if not done[-1].ok:
                waiting.add(digest)
                if not done[-1].waits and not _parked(db, registry, last):
                    break
    finally:
        release(db, lease)
    return done


def _next(db: Database, assistant: str, after: int) -> RowMapping | None:
    query = select(outbox).where(outbox.c.assistant == assistant, outbox.c.done_at.is_(None), outbox.c.id > after)
    with db.read() as connection:
        return connection.execute(query.order_by(outbox.c.id).limit(1)).mappings().one_or_none()


def _due(db: Database, row: RowMapping) -> bool:
    """True if a row that was parked may be tried again."""
    if row["parked_at"] is None:
        return True
    pause = min(FIRST_RETRY * 2 ** min(int(row["attempts"]), 20), LONGEST_RETRY)
    with db.read() as connection:
        return bool(now(connection) >= row["parked_at"] + pause)


def _parked(db: Database, registry: Registry, identity: int) -> bool:
    """Park a row that failed, if the registry can be reached: then it is this row that it does not take."""
    if not registry.answers():
        return False
    with db.begin() as connection:
        connection.execute(update(outbox).where(outbox.c.id == identity).values(parked_at=now(connection)))
    return True


def _deliver(
    db: Database, store: ObjectStore, registry: Registry, row: RowMapping, signed: Signed | None, lease: Lease
) -> Delivery:
    """Tell of one row and note what came of it.

    Raises:
        StaleLease: this process was stopped for so long that another one told MLflow meanwhile. What it told of this
            version, and of the champion, is to be told again, for this process may have undone it.
    """
    identity, kind, payload = int(row["id"]), str(row["kind"]), dict(row["payload"])
    error: str | None = None
    served: str | None = None
    waits = False
    try:
        if kind in SERVING:
            message = _serve(db, store, registry, row, signed)
            served = registry.champion()
        else:
            message = _tell(store, registry, kind, payload)
    except LciaError as refused:
        error = message = str(refused)
        waits = isinstance(refused, NotSigned | RegistryDenied)
    except Exception as broken:  # noqa: BLE001 - whatever a row holds, the others are delivered
        error = message = f"row {identity} ({kind}) can't be told: {type(broken).__name__}: {broken}"
    fence = Retelling(registry.name, str(payload.get("digest")), identity, serving=kind in SERVING and not waits)
    with fence.written(db, lease) as connection:
        moment = now(connection)
        told_ = {"done_at": moment, "parked_at": None} if error is None else {"done_at": None}
        connection.execute(
            update(outbox).where(outbox.c.id == identity).values(attempts=outbox.c.attempts + 1, error=error, **told_)
        )
        if kind == "forget" and error is None:
            _drop_earlier(connection, registry.name, identity, payload["digest"], moment)
        if served is not None:
            connection.execute(update(champion).where(champion.c.name == registry.name).values(served=served))
    return Delivery(identity, kind, str(payload.get("digest", "")), error is None, message, waits)


def _drop_earlier(connection: Connection, assistant: str, identity: int, digest: str, moment: datetime) -> None:
    """Rows that still wait about a version that is forgotten now are never told."""
    query = select(outbox.c.id, outbox.c.payload).where(
        outbox.c.assistant == assistant, outbox.c.done_at.is_(None), outbox.c.id < identity
    )
    mine = [row.id for row in connection.execute(query).all() if row.payload.get("digest") == digest]
    values = {"done_at": moment, "parked_at": None, "error": "not told: the version was forgotten before"}
    connection.execute(update(outbox).where(outbox.c.id.in_(mine)).values(**values))


def _serve(db: Database, store: ObjectStore, registry: Registry, row: RowMapping, signed: Signed | None) -> str:
    """Tell of a champion: its statement, its version, and that it can be loaded; then the alias moves.

    Where a later decision was told already the alias stays there: this row was parked meanwhile.
    """
    kind, payload = str(row["kind"]), dict(row["payload"])
    digest = str(payload["digest"])
    with db.read() as connection:
        overtaken = _overtaken(connection, registry.name, int(row["id"]))
        statement = signed(connection, registry.name, digest, None) if signed is not None else None
        known = replay(connection, store, registry.name, signed, only=digest).told.get(digest)
    if signed is not None and not overtaken:
        put_statement(store, registry, digest, statement)
    version = registry.add_promoted(digest, payload.get("tags", {}))
    if overtaken:
        return f"version {version} is promoted; a later champion is served"
    if known is not None:
        _need_loadable(registry, digest, known, statement)
    if kind == "rollback":
        return f"champion is again version {registry.rollback(digest)}"
    return f"champion is version {registry.promote(digest)}"


def _need_loadable(registry: Registry, digest: str, known: Told, statement: str | None) -> None:
    known.copy_tags = known.copy_tags or {}
    if statement is not None:
        known.files[STATEMENT] = statement
    registry.need_loadable(digest, known)


def _overtaken(connection: Connection, assistant: str, identity: int) -> bool:
    """True if a decision about the champion that came later was told already."""
    later = (outbox.c.id > identity) & outbox.c.kind.in_(SERVING) & outbox.c.done_at.is_not(None)
    query = select(outbox.c.id).where(outbox.c.assistant == assistant, later).limit(1)
    return connection.execute(query).first() is not None


def _tell(store: ObjectStore, registry: Registry, kind: str, payload: dict[str, Json]) -> str:
    if kind == "candidate":
        return f"published as version {publish(store, registry, payload)}"
    if kind == "state":
        registry.tag(payload["digest"], {"state": payload["state"]})
        return f"tagged {payload['state']}"
    if kind == "marks":
        registry.tag(payload["digest"], {"marks": ", ".join(payload["marks"])})
        return "tagged with its marks"
    if kind == "forget":
        return f"{registry.forget(payload['digest'])} version(s) removed, with their files"
    raise OutboxDamaged(f"outbox row of kind {kind!r}, expected candidate, state, marks, forget, promote or rollback")


def publish(store: ObjectStore, registry: Registry, payload: Mapping[str, Json]) -> int:
    """Publish a candidate with the files and curves that the payload names by digest; returns MLflow's version."""
    with tempfile.TemporaryDirectory(prefix="lcia-publish-") as name:
        _lay_out(store, payload, Path(name))
        shown = {**payload, "curves": curves(store.get_json(payload["curves"])) if "curves" in payload else {}}
        return registry.publish_candidate(shown, Path(name))


def publish_files(store: ObjectStore, registry: Registry, payload: Mapping[str, Json]) -> None:
    """Write every file of a publication into its run once more, the model packed anew."""
    with tempfile.TemporaryDirectory(prefix="lcia-publish-") as name:
        _lay_out(store, payload, Path(name))
        registry.upload_all(payload["digest"], Path(name))


def _lay_out(store: ObjectStore, payload: Mapping[str, Json], folder: Path) -> None:
    for place, digest in payload.get("files", {}).items():
        path = _inside(folder, place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(digest))
    for place, digest in payload.get("folders", {}).items():
        store.get_folder(digest, _inside(folder, place))


def put_statement(store: ObjectStore, registry: Registry, digest: str, statement: str | None) -> None:
    """Write a version's statement, by its object, beside the files of its run.

    Raises:
        NotSigned: there is none yet.
        RegistryError: MLflow can't be reached.
    """
    if statement is None:
        raise NotSigned(
            f"the promotion of {digest[:12]} is not signed yet, and nobody loads it before; `lcia sync` where the "
            "key is signs it and tells MLflow"
        )
    with tempfile.TemporaryDirectory(prefix="lcia-statement-") as name:
        path = Path(name) / model_place(STATEMENT)
        path.parent.mkdir(parents=True)
        path.write_bytes(store.get(statement))
        registry.upload(digest, Path(name))


def _inside(folder: Path, place: str) -> Path:
    parts = PurePosixPath(place).parts
    if not parts or place.startswith("/") or ".." in parts:
        raise FolderRefused(f"publication names {place!r}, which leaves its folder")
    return folder.joinpath(*parts)
