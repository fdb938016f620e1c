"""The outbox replayed: what MLflow was told, and so should show, of each version."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import Connection, or_, select

from components.audit.statement import FILE
from components.errors import LciaError
from components.registry.differences import Told
from components.registry.outbox_rows import SERVING, OutboxRow, rows
from components.registry.runs import MODEL_PATH, texts
from components.storage.objects import Json, ObjectStore
from components.storage.tables import champion, outbox

STATEMENT = f"{MODEL_PATH}/{FILE}"
"""Where the signed statement stands among a version's files."""
Signed: TypeAlias = Callable[[Connection, str, str, Mapping[str, Any] | None], str | None]
"""Object of the signed statement about an assistant's version, of the decision that a row tells; see `statements`."""


@dataclass
class Replay:
    """The rows of the outbox that were delivered, in order."""

    told: dict[str, Told] = field(default_factory=dict)
    """By digest."""
    champion: str | None = None
    """Digest of the champion by the newest decision that MLflow was told."""
    damage: list[str] = field(default_factory=list)
    """Sentences on rows that MLflow was told and that can't be read any more."""


def replay(
    connection: Connection,
    store: ObjectStore,
    assistant: str,
    signed: Signed | None,
    only: str | None = None,
    with_row: int = 0,
) -> Replay:
    """The delivered rows of every version that MLflow was not told to forget; files of one alone if `only` names it.

    `with_row` is the id of a row that counts as delivered.
    """
    delivered = or_(outbox.c.done_at.is_not(None), outbox.c.id == with_row)
    found = Replay()
    statements: dict[str, str] = {}
    for row in rows(connection, outbox.c.assistant == assistant, delivered):
        if row.kind in SERVING:  # where the row is damaged, the decision itself tells
            found.champion = row.digest or _decided(connection, assistant)
        if row.damage:
            found.damage.append(row.damage)
            continue
        _follow(found, row)
        if row.kind in SERVING:
            statement = signed(connection, assistant, row.digest, row.payload) if signed else None
            statements |= {row.digest: statement} if statement else {}
    for digest, told in found.told.items():
        if only in (None, digest):
            _add_files(store, told, statements.get(digest))
    return found


def _decided(connection: Connection, assistant: str) -> str | None:
    query = select(champion.c.version).where(champion.c.name == assistant)
    return connection.execute(query).scalar_one_or_none()


def _follow(found: Replay, row: OutboxRow) -> None:
    """Add what one row says."""
    digest, payload = row.digest, row.payload
    before = found.told.get(digest)
    if row.kind == "candidate":
        tags = {**(before.tags if before else {}), **texts(payload.get("tags", {})), "digest": digest}
        copy_tags, earlier = (before.copy_tags, before.packing) if before else (None, None)
        packing = row.packing if row.packing is not None else earlier  # published again where it stood already
        found.told[digest] = Told(payload, tags, {}, copy_tags, packing=packing, row=row.id)
    elif row.kind == "forget":
        found.told.pop(digest, None)
    elif before is not None:
        _learn(before, row.kind, payload)


def files(store: ObjectStore, payload: Mapping[str, Json]) -> dict[str, str]:
    """Place and digest of every file that a publication names.

    Raises:
        ObjectMissing, ObjectCorrupt: a folder's list is not there.
    """
    found = {str(place): str(digest) for place, digest in payload.get("files", {}).items()}
    for folder, digest in payload.get("folders", {}).items():
        found |= {f"{folder}/{place}": content for place, content in store.folder_files(digest).items()}
    return found


def _add_files(store: ObjectStore, told: Told, statement: str | None) -> None:
    try:
        told.files = files(store, told.payload)
    except LciaError as error:  # one damaged version must not keep the others from being compared
        told.problem = str(error)
    if statement is not None:
        told.files[STATEMENT] = statement


def _learn(told: Told, kind: str, payload: Mapping[str, Json]) -> None:
    if kind == "promote" or (kind == "rollback" and told.copy_tags is None):
        told.copy_tags = {**told.tags, **texts(payload.get("tags", {}))}
        return
    fresh = {"state": str(payload["state"])} if kind == "state" else {}
    if kind == "marks":
        fresh = {"marks": ", ".join(payload["marks"])}
    told.tags.update(texts(fresh))
    if told.copy_tags is not None:
        told.copy_tags.update(texts(fresh))
