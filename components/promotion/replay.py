"""The outbox replayed: what MLflow was told, and so should show, of each version."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import Connection, select

from components.audit.statement import FILE
from components.errors import LciaError
from components.promotion.registry_check import Told
from components.promotion.registry_runs import MODEL_PATH, texts
from components.storage.objects import Json, ObjectStore
from components.storage.tables import outbox

STATEMENT = f"{MODEL_PATH}/{FILE}"
"""Where the signed statement stands among a version's files."""
SERVING = ("promote", "rollback")
"""Kinds of rows that say which version is the champion."""
Signed: TypeAlias = Callable[[Connection, str, str, Mapping[str, Any] | None], str | None]
"""Object of the signed statement about an assistant's version, of the decision that a row tells; see `statements`."""


@dataclass
class Replay:
    """The rows of the outbox that were delivered, in order."""

    told: dict[str, Told] = field(default_factory=dict)
    """By digest."""
    champion: str | None = None
    """Digest of the champion by the newest decision that MLflow was told."""


def replay(
    connection: Connection, store: ObjectStore, assistant: str, signed: Signed | None, only: str | None = None
) -> Replay:
    """The delivered rows of every version that MLflow was not told to forget; files of one alone if `only` names it."""
    query = select(outbox.c.kind, outbox.c.payload).where(
        outbox.c.assistant == assistant, outbox.c.done_at.is_not(None)
    )
    found = Replay()
    statements: dict[str, str] = {}
    for kind, payload in connection.execute(query.order_by(outbox.c.id)).all():
        digest = str(payload["digest"])
        if kind == "candidate":
            before = found.told.get(digest)
            tags = {**(before.tags if before else {}), **texts(payload.get("tags", {})), "digest": digest}
            found.told[digest] = Told(payload, tags, {}, before.copy_tags if before else None)
        elif kind == "forget":
            found.told.pop(digest, None)
        elif digest in found.told:
            _learn(found.told[digest], str(kind), payload)
        if kind in SERVING:
            found.champion = digest
            statement = signed(connection, assistant, digest, payload) if signed else None
            statements |= {digest: statement} if statement else {}
    for digest, told in found.told.items():
        if only in (None, digest):
            _add_files(store, told, statements.get(digest))
    return found


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
    if kind == "promote":
        told.copy_tags = {**told.tags, **texts(payload.get("tags", {}))}
        return
    fresh = {"state": str(payload["state"])} if kind == "state" else {}
    if kind == "marks":
        fresh = {"marks": ", ".join(payload["marks"])}
    told.tags.update(texts(fresh))
    if told.copy_tags is not None:
        told.copy_tags.update(texts(fresh))
