"""Bring MLflow back to what it was told, where somebody changed it directly; every difference goes into the log.

The database is the truth, so nothing that people do in MLflow changes a decision; but they look at it and load from it.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from components.audit.log import Actor, append, entries
from components.errors import LciaError
from components.promotion import champion
from components.promotion.outbox import LEASE_SECONDS, STATEMENT, publish, put_statement
from components.promotion.registry import Registry
from components.promotion.registry_check import Difference, Kind, Told, model_place
from components.promotion.statements import newest
from components.storage.database import Database
from components.storage.leases import acquire, process_owner, release
from components.storage.objects import Json, ObjectStore
from components.storage.tables import outbox

_GONE: frozenset[Kind] = frozenset({"version", "copy", "run"})


@dataclass(frozen=True)
class Repair:
    """One difference, and what became of it."""

    difference: Difference
    repaired: bool
    why_not: str = ""

    def to_json(self) -> dict[str, Json]:
        """For `--json` and the log."""
        found = self.difference
        return {
            "kind": found.kind,
            "digest": found.digest or None,
            "words": found.words,
            "repaired": self.repaired,
            "why_not": self.why_not,
        }


def reconcile(db: Database, store: ObjectStore, registry: Registry, actor: Actor) -> list[Repair]:
    """Compare MLflow with what it was told and repair what differs.

    What is unknown to us is said and left. While something still has to be told, a difference may come of that, so only
    what is gone is restored: it may be what stands in the way. Another process that tells MLflow something now is
    waited for by giving up: the result is empty then.

    Raises:
        RegistryError: MLflow can't be reached.
    """
    lease = acquire(db, f"outbox:{registry.name}", process_owner("outbox"), LEASE_SECONDS)
    if lease is None:
        return []
    try:
        with db.read() as connection:
            told = replay(connection, store, registry.name)
            now = champion.current(connection, registry.name)
            waiting = _untold(connection, registry.name)
        for kind, digest in waiting:
            if kind == "forget":
                told.pop(digest, None)
        expected = None if now is None else now.version
        found = [one for one in registry.differences(told, expected) if not waiting or one.kind in _GONE]
        reasons = {}
        for one in found:
            try:
                _repair(store, registry, one, told)
            except LciaError as error:
                reasons[one.words] = str(error)
        left = {one.words for one in registry.differences(told, expected)} if found else set()
    finally:
        release(db, lease)
    repairs = [_outcome(one, left, reasons) for one in found]
    with db.begin() as connection:
        if repairs and not _logged(connection, registry.name, repairs):
            details: dict[str, Json] = {"differences": [repair.to_json() for repair in repairs]}
            append(connection, "registry.repaired", actor, registry.name, details)
    return repairs


def _logged(connection: Connection, assistant: str, repairs: list[Repair]) -> bool:
    """Whether all of it is unknown to us, left, and told by an earlier entry."""
    told = {
        one["words"]
        for entry in entries(connection, subject=assistant)
        if entry.action == "registry.repaired"
        for one in entry.details["differences"]
    }
    return all(repair.difference.kind == "unknown" and repair.difference.words in told for repair in repairs)


def replay(connection: Connection, store: ObjectStore, assistant: str) -> dict[str, Told]:
    """What MLflow was told of each version, by digest, all rows of the outbox in order."""
    query = select(outbox.c.kind, outbox.c.payload, outbox.c.done_at).where(
        outbox.c.assistant == assistant, outbox.c.done_at.is_not(None)
    )
    told: dict[str, Told] = {}
    for kind, payload, moment in connection.execute(query.order_by(outbox.c.id)).all():
        digest = str(payload["digest"])
        if kind == "candidate":
            before = told.get(digest)
            tags = {**(before.tags if before else {}), **_texts(payload.get("tags", {})), "digest": digest}
            told[digest] = Told(payload, tags, _files(store, payload), before.copy_tags if before else None)
        elif kind == "forget":
            told.pop(digest, None)
        elif digest in told:
            _learn(told[digest], str(kind), payload)
            signed = newest(connection, assistant, digest, moment) if kind in {"promote", "rollback"} else None
            if signed is not None:
                told[digest].files[STATEMENT] = signed
    return told


def _learn(told: Told, kind: str, payload: Mapping[str, Json]) -> None:
    if kind == "promote":
        told.copy_tags = {**told.tags, **_texts(payload.get("tags", {}))}
        return
    fresh = {"state": str(payload["state"])} if kind == "state" else {}
    if kind == "marks":
        fresh = {"marks": ", ".join(payload["marks"])}
    told.tags.update(fresh)
    if told.copy_tags is not None:
        told.copy_tags.update(fresh)


def _files(store: ObjectStore, payload: Mapping[str, Json]) -> dict[str, str]:
    found = {str(place): str(digest) for place, digest in payload.get("files", {}).items()}
    for folder, digest in payload.get("folders", {}).items():
        found |= {f"{folder}/{place}": content for place, content in store.folder_files(digest).items()}
    return found


def _repair(store: ObjectStore, registry: Registry, found: Difference, told: Mapping[str, Told]) -> None:
    if found.kind == "alias":
        registry.serve(found.digest or None)
    one = told.get(found.digest)
    if one is None:
        return
    if found.kind == "version":
        publish(store, registry, one.payload)
        if STATEMENT in one.files:
            put_statement(store, registry, found.digest, one.files[STATEMENT])
        registry.tag_version(found.digest, one.tags, one.copy_tags)
    elif found.kind == "copy":
        registry.copy_again(found.digest)
        registry.tag_version(found.digest, one.tags, one.copy_tags)
    elif found.kind in {"tags", "copy tags"}:
        registry.tag_version(found.digest, one.tags, one.copy_tags)
    elif found.kind == "run":
        registry.restore_run(found.digest)
    elif found.kind == "files":
        with tempfile.TemporaryDirectory(prefix="lcia-repair-") as name:
            for place in found.files:
                file = Path(name) / model_place(place)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(store.get(one.files[place]))
            registry.upload(found.digest, Path(name))


def _outcome(found: Difference, left: set[str], reasons: Mapping[str, str]) -> Repair:
    if found.words not in left:
        return Repair(found, repaired=True)
    stays = "lcia did not make it and leaves it; delete it in MLflow if nobody needs it"
    return Repair(
        found, repaired=False, why_not=stays if found.kind == "unknown" else reasons.get(found.words, "it came back")
    )


def _texts(values: Mapping[str, Json]) -> dict[str, str]:
    return {str(name): str(value) for name, value in values.items()}


def _untold(connection: Connection, assistant: str) -> list[tuple[str, str]]:
    """Kind and version of what MLflow does not know yet."""
    query = select(outbox.c.kind, outbox.c.payload).where(outbox.c.assistant == assistant, outbox.c.done_at.is_(None))
    return [(kind, str(payload["digest"])) for kind, payload in connection.execute(query).all()]
