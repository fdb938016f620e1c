"""Bring MLflow back to what it was told, where somebody changed it directly; every difference goes into the log.

The database is the truth, so nothing that people do in MLflow changes a decision; but they look at it and load from it.
"""

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select, update

from components.audit.log import Actor, append, count, entries
from components.errors import LciaError
from components.promotion.statements import newest
from components.registry import retelling
from components.registry.differences import Difference, Told, model_place
from components.registry.files import ADVICE
from components.registry.outbox import LEASE_SECONDS, keep_packing, publish, publish_files, put_statement, undelivered
from components.registry.outbox_rows import SERVING
from components.registry.registry import Registry
from components.registry.replay import STATEMENT, Replay, replay
from components.registry.retelling import Retelling
from components.storage import tables
from components.storage.database import Database
from components.storage.leases import Lease, acquire, process_owner, release
from components.storage.objects import Json, ObjectStore

ROUNDS = 3
"""Rounds of looking for differences: mending one may show, or make, another."""


class NothingDecided(LciaError):
    """A state with an empty log can't say what MLflow has to serve."""


@dataclass(frozen=True)
class RepairOutcome:
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


def reconcile(db: Database, store: ObjectStore, registry: Registry, actor: Actor) -> list[RepairOutcome]:
    """Compare MLflow with what it was told and repair what differs; then note what it serves.

    What is unknown to us is said and left. While something about a version still has to be told, a difference may come
    of that, so only what it is loaded from is restored: it may be what stands in the way. Another process that tells
    MLflow something now is waited for by giving up: the result is empty then.

    Raises:
        RegistryError: MLflow can't be reached.
        StaleLease: this process was stopped for so long that another one told MLflow meanwhile; see `retelling`.
    """
    lease = acquire(db, f"outbox:{registry.name}", process_owner("outbox"), LEASE_SECONDS)
    if lease is None:
        return []
    try:
        with db.read() as connection:
            known = replay(connection, store, registry.name, newest)
            decided = count(connection) > 0
            fence = Retelling(registry.name, None, retelling.newest(connection, registry.name), serving=True)
            untold = [row for row in undelivered(connection, registry.name) if row.digest]
            waiting = {row.digest: row.kind for row in untold}
            serving = {row.digest for row in untold if row.kind in SERVING}
        for digest, kind in waiting.items():
            if kind == "forget":
                known.told.pop(digest, None)
        reasons: dict[str, str] = {}
        found: dict[str, Difference] = {}
        left: dict[str, Difference] = {}
        for _ in range(ROUNDS):
            left = _differences(registry, known, waiting.keys(), serving)
            fresh = [one for words, one in left.items() if words not in found]
            if not fresh:
                break
            found |= left
            for one in fresh:
                try:
                    packing = _repair(store, registry, one, known.told, decided=decided)
                    if packing is not None:
                        known.told[one.digest].packing = packing
                        with db.begin() as connection:
                            keep_packing(connection, known.told[one.digest].row, packing)
                except LciaError as error:
                    reasons[one.words] = str(error)
        _note_served(db, registry, left, fence, lease)
    finally:
        release(db, lease)
    repairs = [_outcome(one, left.keys(), reasons) for one in found.values()]
    with db.begin() as connection:
        if repairs and not _logged(connection, registry.name, repairs):
            details: dict[str, Json] = {"differences": [repair.to_json() for repair in repairs]}
            append(connection, "registry.repaired", actor, registry.name, details)
    return repairs


def _differences(
    registry: Registry, known: Replay, waiting: Collection[str], serving: Collection[str]
) -> dict[str, Difference]:
    """By their words: those that do not come of what MLflow is still to be told."""
    found = registry.differences(known.told, known.champion)
    if known.damage:  # they may have published what seems unknown
        found = [one for one in found if one.kind != "unknown"]
        found += [Difference("unclear", "", damage) for damage in known.damage]
    if serving:  # an answer that was lost on the way
        found = [one for one in found if one.kind != "alias" or registry.champion() not in serving]
    return {one.words: one for one in found if one.loading or one.digest not in waiting}


def _note_served(
    db: Database, registry: Registry, left: Mapping[str, Difference], fence: Retelling, lease: Lease
) -> None:
    """The version that MLflow serves, for `status`; None if it can't be loaded."""
    seen = registry.champion()
    broken = any(one.digest == seen and (one.loading or one.kind == "alias") for one in left.values())
    served = None if broken else seen or None
    with fence.written(db, lease) as connection:
        mine = tables.champion.c.name == registry.name
        stands = connection.execute(select(tables.champion.c.served).where(mine)).scalar_one_or_none()
        if stands != served:
            connection.execute(update(tables.champion).where(mine).values(served=served))


def _logged(connection: Connection, assistant: str, repairs: list[RepairOutcome]) -> bool:
    """Whether all of it stays, and was told by an earlier entry."""
    told = {
        one["words"]
        for entry in entries(connection, subject=assistant)
        if entry.action == "registry.repaired"
        for one in entry.details["differences"]
    }
    return all(not repair.repaired and repair.difference.words in told for repair in repairs)


def _repair(
    store: ObjectStore, registry: Registry, found: Difference, told: Mapping[str, Told], *, decided: bool
) -> dict[str, str] | None:
    """Undo one difference; returns the digests of the model's packing where that was written."""
    if found.kind == "alias":
        _serve(registry, found.digest, decided=decided)
    one = told.get(found.digest)
    if one is None:
        return None
    packing = None
    if found.kind == "version":
        registry.drop_broken(found.digest)
        packing = publish(store, registry, one.payload).packing
        if STATEMENT in one.files:
            put_statement(store, registry, found.digest, one.files[STATEMENT])
        registry.tag_version(found.digest, one.tags, one.copy_tags)
    elif found.kind == "copy":
        registry.copy_again(found.digest)
        registry.tag_version(found.digest, one.tags, one.copy_tags)
    elif found.kind in {"tags", "copy tags", "run tags"}:
        registry.tag_version(found.digest, one.tags, one.copy_tags)
    elif found.kind == "run":
        registry.restore_run(found.digest)
    elif found.kind == "files":
        packing = _restore_files(store, registry, found, one)
    elif found.kind == "packing":
        packing = publish_files(store, registry, one.payload, packing_alone=True)
    return packing


def _serve(registry: Registry, digest: str, *, decided: bool) -> None:
    """Move the alias where it belongs; '' takes it away."""
    if not digest and not decided:
        raise NothingDecided(
            "the log is empty, so nobody decided that there is no champion: the alias stays. Restore the database"
        )
    registry.serve(digest or None)


def _restore_files(store: ObjectStore, registry: Registry, found: Difference, told: Told) -> dict[str, str] | None:
    """Write what is missing or altered; MLflow's own packing of the model anew, where some of that is."""
    own = told.files.keys() & set(found.files)
    with tempfile.TemporaryDirectory(prefix="lcia-repair-") as name:
        for place in own:
            file = Path(name) / model_place(place)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(store.get(told.files[place]))
        if own:
            registry.upload(found.digest, Path(name))
    if set(found.files) <= own:
        return None
    return publish_files(store, registry, told.payload, packing_alone=True)


def _outcome(found: Difference, left: Collection[str], reasons: Mapping[str, str]) -> RepairOutcome:
    if found.words not in left:
        return RepairOutcome(found, repaired=True)
    stays = {
        "unknown": "lcia did not make it and leaves it; delete it in MLflow if nobody needs it",
        "place": ADVICE,
        "experiment": "it stays there, and is erased there with its version",
        "unclear": "look at what it names, then run `lcia sync` again",
    }
    why = reasons.get(found.words) or stays.get(found.kind, "it came back")
    return RepairOutcome(found, repaired=False, why_not=why)
