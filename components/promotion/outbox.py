"""The outbox: what the registry has to be told, written in the transaction that decided it.

So a decision without its announcement, or an announcement without its decision, can't exist. `apply_outbox`
tells the registry in order; telling it twice does no harm, and what failed is tried again next time.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from components.audit.statement import FILE
from components.errors import LciaError
from components.promotion.registry import Registry
from components.promotion.registry_check import model_place
from components.promotion.registry_runs import MODEL_PATH
from components.storage.database import AccountRefused, Database, now
from components.storage.leases import StaleLease, acquire, process_owner, release, renew
from components.storage.objects import FolderRefused, Json, ObjectStore
from components.storage.tables import champion, outbox
from components.tuning.progress_curves import curves

LEASE_SECONDS = 120.0
"""How long one delivery may take before another process takes over."""


class OutboxDamaged(LciaError):
    """A row that no version of this program wrote."""


class NotSigned(LciaError):
    """A promotion without a statement: what loads the champion would refuse it."""


Signed: TypeAlias = Callable[[Connection, str, str], str | None]
"""Object of the signed statement about an assistant's version."""
STATEMENT = f"{MODEL_PATH}/{FILE}"
"""Where the statement stands among a version's files."""


@dataclass(frozen=True)
class Delivery:
    """One row that was tried."""

    id: int
    kind: str
    """candidate, state, marks, forget, promote or rollback; statement or head of what follows a promotion."""
    digest: str
    ok: bool
    message: str


def enqueue(connection: Connection, assistant: str, kind: str, payload: Mapping[str, Json]) -> None:
    """Add a row in the deciding transaction."""
    values = {"kind": kind, "payload": dict(payload), "at": now(connection), "attempts": 0}
    connection.execute(insert(outbox).values(assistant=assistant, **values))


def pending(connection: Connection, assistant: str) -> int:
    """How many rows the registry has not been told yet."""
    query = select(func.count()).where(outbox.c.assistant == assistant, outbox.c.done_at.is_(None))
    return int(connection.execute(query).scalar_one())


def told(connection: Connection, assistant: str) -> bool:
    """Whether the registry was told of the newest decision about the champion."""
    mine = (outbox.c.assistant == assistant) & outbox.c.kind.in_(("promote", "rollback"))
    newest = select(outbox.c.done_at).where(mine).order_by(outbox.c.id.desc()).limit(1)
    return connection.execute(newest).scalar_one_or_none() is not None


def apply_outbox(db: Database, store: ObjectStore, registry: Registry, signed: Signed | None = None) -> list[Delivery]:
    """Tell the registry what it does not know yet, oldest first, stopping at the first failure.

    With `signed` the alias moves only to a version that has a signed statement, which is put beside its files.

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
    try:
        while row := _next(db, registry.name):
            try:
                renew(db, lease)
            except StaleLease:
                break
            done.append(_deliver(db, store, registry, row, signed))
            if not done[-1].ok:
                break
    finally:
        release(db, lease)
    return done


def _next(db: Database, assistant: str) -> RowMapping | None:
    query = select(outbox).where(outbox.c.assistant == assistant, outbox.c.done_at.is_(None))
    with db.read() as connection:
        return connection.execute(query.order_by(outbox.c.id).limit(1)).mappings().one_or_none()


def _deliver(db: Database, store: ObjectStore, registry: Registry, row: RowMapping, signed: Signed | None) -> Delivery:
    identity, kind, payload = int(row["id"]), str(row["kind"]), dict(row["payload"])
    error: str | None = None
    served: str | None = None
    try:
        if signed is not None and kind in {"promote", "rollback"}:
            with db.read() as connection:
                statement = signed(connection, registry.name, payload["digest"])
            put_statement(store, registry, payload["digest"], statement)
        message = _tell(store, registry, kind, payload)
        if kind in {"promote", "rollback"}:
            served = registry.champion()
    except LciaError as refused:
        error = message = str(refused)
    with db.begin() as connection:
        connection.execute(
            update(outbox)
            .where(outbox.c.id == identity)
            .values(attempts=outbox.c.attempts + 1, error=error, done_at=now(connection) if error is None else None)
        )
        if served is not None:
            connection.execute(update(champion).where(champion.c.name == registry.name).values(served=served))
    return Delivery(identity, kind, str(payload.get("digest", "")), error is None, message)


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
    if kind == "promote":
        return f"champion is version {registry.promote(payload['digest'], payload.get('tags', {}))}"
    if kind == "rollback":
        return f"champion is again version {registry.rollback(payload['digest'])}"
    raise OutboxDamaged(f"outbox row of kind {kind!r}, expected candidate, state, marks, forget, promote or rollback")


def publish(store: ObjectStore, registry: Registry, payload: Mapping[str, Json]) -> int:
    """Publish a candidate with the files and curves that the payload names by digest; returns MLflow's version."""
    with tempfile.TemporaryDirectory(prefix="lcia-publish-") as name:
        folder = Path(name)
        for place, digest in payload.get("files", {}).items():
            path = _inside(folder, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.get(digest))
        for place, digest in payload.get("folders", {}).items():
            store.get_folder(digest, _inside(folder, place))
        shown = {**payload, "curves": curves(store.get_json(payload["curves"])) if "curves" in payload else {}}
        return registry.publish_candidate(shown, folder)


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
