"""Replay of the outbox: each version as it was sent to MLflow, which should show it so."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import Connection, or_, select

from components.audit.statement import FILE
from components.errors import LciaError
from components.registry.differences import ExpectedVersion
from components.registry.outbox_rows import SERVING, OutboxRow, rows
from components.registry.runs import MODEL_PATH, texts
from components.storage.objects import Json, ObjectStore
from components.storage.tables import champion, outbox

STATEMENT = f"{MODEL_PATH}/{FILE}"
"""Path of the signed statement among a version's files."""
StatementOf: TypeAlias = Callable[[Connection, str, str, Mapping[str, Any] | None], str | None]
"""Returns the digest of the statement about an assistant's version, for the decision in a payload; see `statements`."""


@dataclass
class Replay:
    """State of MLflow by the rows of the outbox that were delivered."""

    versions: dict[str, ExpectedVersion] = field(default_factory=dict)
    """Digest -> version."""
    champion: str | None = None
    """Digest of the champion by the newest decision that was delivered."""
    damage: list[str] = field(default_factory=list)
    """Sentences about delivered rows that can't be read any more."""


def replay(
    connection: Connection,
    store: ObjectStore,
    assistant: str,
    statement_of: StatementOf | None,
    only: str | None = None,
    with_row: int = 0,
) -> Replay:
    """Replay the delivered rows; versions that MLflow has forgotten are left out.

    `only`: the one version whose files are listed (None: all). `with_row`: id of a row that counts as delivered.
    """
    finished_rows = or_(outbox.c.done_at.is_not(None), outbox.c.id == with_row)
    result = Replay()
    statements: dict[str, str] = {}
    for row in rows(connection, outbox.c.assistant == assistant, finished_rows):
        if row.kind in SERVING:  # of a damaged row the database has the decision
            result.champion = row.digest or _champion_digest(connection, assistant)
        if row.damage:
            result.damage.append(row.damage)
            continue
        _follow(result, row)
        if row.kind in SERVING:
            statement = statement_of(connection, assistant, row.digest, row.payload) if statement_of else None
            statements |= {row.digest: statement} if statement else {}
    for digest, record in result.versions.items():
        if only in (None, digest):
            _add_files(store, record, statements.get(digest))
    return result


def _champion_digest(connection: Connection, assistant: str) -> str | None:
    query = select(champion.c.version).where(champion.c.name == assistant)
    return connection.execute(query).scalar_one_or_none()


def _follow(result: Replay, row: OutboxRow) -> None:
    """Apply one row."""
    digest, payload = row.digest, row.payload
    before = result.versions.get(digest)
    if row.kind == "candidate":
        tags = {**(before.tags if before else {}), **texts(payload.get("tags", {})), "digest": digest}
        copy_tags, earlier = (before.copy_tags, before.packing) if before else (None, None)
        packing = row.packing if row.packing is not None else earlier  # published again over existing files
        result.versions[digest] = ExpectedVersion(payload, tags, {}, copy_tags, packing=packing, row=row.id)
    elif row.kind == "forget":
        result.versions.pop(digest, None)
    elif before is not None:
        _learn(before, row.kind, payload)


def files(store: ObjectStore, payload: Mapping[str, Json]) -> dict[str, str]:
    """Path -> digest of every file that a publication names.

    Raises:
        ObjectMissing, ObjectCorrupt: the list of a folder is missing or altered.
    """
    places = {str(place): str(digest) for place, digest in payload.get("files", {}).items()}
    for folder, digest in payload.get("folders", {}).items():
        places |= {f"{folder}/{place}": content for place, content in store.folder_files(digest).items()}
    return places


def _add_files(store: ObjectStore, record: ExpectedVersion, statement: str | None) -> None:
    try:
        record.files = files(store, record.payload)
    except LciaError as error:  # one damaged version must not keep the others from being compared
        record.problem = str(error)
    if statement is not None:
        record.files[STATEMENT] = statement


def _learn(record: ExpectedVersion, kind: str, payload: Mapping[str, Json]) -> None:
    if kind == "promote" or (kind == "rollback" and record.copy_tags is None):
        record.copy_tags = {**record.tags, **texts(payload.get("tags", {}))}
        return
    fresh = {"state": str(payload["state"])} if kind == "state" else {}
    if kind == "marks":
        fresh = {"marks": ", ".join(payload["marks"])}
    record.tags.update(texts(fresh))
    if record.copy_tags is not None:
        record.copy_tags.update(texts(fresh))
