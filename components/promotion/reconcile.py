"""Reconciliation: bring MLflow back to what lcia sent it; every difference goes into the log.

The database is the truth, so no change in MLflow changes a decision; but people look at MLflow and load from it.
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
from components.registry.differences import Difference, ExpectedVersion, model_place
from components.registry.files import ADVICE
from components.registry.outbox import LEASE_SECONDS, backlog, keep_packing
from components.registry.outbox_rows import SERVING
from components.registry.registry import Registry
from components.registry.replay import STATEMENT, Replay, replay
from components.registry.retelling import Retelling
from components.registry.upload import publish, publish_files, put_statement
from components.storage import tables
from components.storage.database import Database
from components.storage.leases import Lease, acquire, process_owner, release
from components.storage.objects import Json, ObjectStore

ROUNDS = 3
"""Rounds of comparison: repairing one difference may show, or cause, another."""


class NothingDecided(LciaError):
    """The log is empty, so nothing says which version MLflow has to serve."""


@dataclass(frozen=True)
class RepairOutcome:
    """One difference, and the outcome of its repair."""

    difference: Difference
    repaired: bool
    why_not: str = ""

    def to_json(self) -> dict[str, Json]:
        """For `--json` and the log."""
        difference = self.difference
        return {
            "kind": difference.kind,
            "digest": difference.digest or None,
            "words": difference.words,
            "repaired": self.repaired,
            "why_not": self.why_not,
        }


def reconcile(db: Database, store: ObjectStore, registry: Registry, actor: Actor) -> list[RepairOutcome]:
    """Compare MLflow with what lcia sent it and repair the differences; then record the version it serves.

    Versions that lcia did not make are reported and left. While an update about a version is still to be sent, a
    difference may come from that, so only the files it is loaded from are restored: they may be what blocks the update.
    If another process is updating MLflow now, this one gives up and returns nothing.

    Raises:
        RegistryError: MLflow can't be reached.
        StaleLease: this process paused for so long that another one updated MLflow meanwhile; see `retelling`.
    """
    lease = acquire(db, f"outbox:{registry.name}", process_owner("outbox"), LEASE_SECONDS)
    if lease is None:
        return []
    try:
        with db.read() as connection:
            expectation = replay(connection, store, registry.name, newest)
            any_decision = count(connection) > 0
            fence = Retelling(registry.name, None, retelling.newest(connection, registry.name), serving=True)
            untold = [row for row in backlog(connection, registry.name) if row.digest]
            waiting = {row.digest: row.kind for row in untold}
            serving = {row.digest for row in untold if row.kind in SERVING}
        for digest, kind in waiting.items():
            if kind == "forget":
                expectation.versions.pop(digest, None)
        reasons: dict[str, str] = {}
        differences: dict[str, Difference] = {}
        remaining: dict[str, Difference] = {}
        for _ in range(ROUNDS):
            remaining = _differences(registry, expectation, waiting.keys(), serving)
            fresh = [one for words, one in remaining.items() if words not in differences]
            if not fresh:
                break
            differences |= remaining
            for one in fresh:
                try:
                    packing = _repair(store, registry, one, expectation.versions, any_decision=any_decision)
                    if packing is not None:
                        expectation.versions[one.digest].packing = packing
                        with db.begin() as connection:
                            keep_packing(connection, expectation.versions[one.digest].row, packing)
                except LciaError as error:
                    reasons[one.words] = str(error)
        _note_served(db, registry, remaining, fence, lease)
    finally:
        release(db, lease)
    repairs = [_outcome(one, remaining.keys(), reasons) for one in differences.values()]
    with db.begin() as connection:
        if repairs and not _in_log(connection, registry.name, repairs):
            details: dict[str, Json] = {"differences": [repair.to_json() for repair in repairs]}
            append(connection, "registry.repaired", actor, registry.name, details)
    return repairs


def _differences(
    registry: Registry, expectation: Replay, waiting: Collection[str], serving: Collection[str]
) -> dict[str, Difference]:
    """Differences by their words, without those that come from updates still to be sent."""
    differences = registry.differences(expectation.versions, expectation.champion)
    if expectation.damage:  # a damaged row may have published a version that looks unknown
        differences = [one for one in differences if one.kind != "unknown"]
        differences += [Difference("unclear", "", damage) for damage in expectation.damage]
    if serving:  # MLflow moved the alias, and its answer was lost on the way
        differences = [one for one in differences if one.kind != "alias" or registry.champion() not in serving]
    return {one.words: one for one in differences if one.loading or one.digest not in waiting}


def _note_served(
    db: Database, registry: Registry, remaining: Mapping[str, Difference], fence: Retelling, lease: Lease
) -> None:
    """Record the version that MLflow serves, for `status`; none if it can't be loaded."""
    digest = registry.champion()
    unusable = any(one.digest == digest and (one.loading or one.kind == "alias") for one in remaining.values())
    usable = None if unusable else digest or None
    with fence.transaction(db, lease) as connection:
        mine = tables.champion.c.name == registry.name
        stands = connection.execute(select(tables.champion.c.served).where(mine)).scalar_one_or_none()
        if stands != usable:
            connection.execute(update(tables.champion).where(mine).values(served=usable))


def _in_log(connection: Connection, assistant: str, repairs: list[RepairOutcome]) -> bool:
    """True if all of it remains, and earlier entries of the log have it."""
    earlier = {
        one["words"]
        for entry in entries(connection, subject=assistant)
        if entry.action == "registry.repaired"
        for one in entry.details["differences"]
    }
    return all(not repair.repaired and repair.difference.words in earlier for repair in repairs)


def _repair(
    store: ObjectStore,
    registry: Registry,
    difference: Difference,
    versions: Mapping[str, ExpectedVersion],
    *,
    any_decision: bool,
) -> dict[str, str] | None:
    """Undo one difference; returns the digests of the model's packing if that was written."""
    if difference.kind == "alias":
        _serve(registry, difference.digest, any_decision=any_decision)
    one = versions.get(difference.digest)
    if one is None:
        return None
    packing = None
    if difference.kind == "version":
        registry.drop_broken(difference.digest)
        packing = publish(store, registry, one.payload).packing
        if STATEMENT in one.files:
            put_statement(store, registry, difference.digest, one.files[STATEMENT])
        registry.tag_version(difference.digest, one.tags, one.copy_tags)
    elif difference.kind == "copy":
        registry.copy_again(difference.digest)
        registry.tag_version(difference.digest, one.tags, one.copy_tags)
    elif difference.kind in {"tags", "copy tags", "run tags"}:
        registry.tag_version(difference.digest, one.tags, one.copy_tags)
    elif difference.kind == "run":
        registry.restore_run(difference.digest)
    elif difference.kind == "files":
        packing = _restore_files(store, registry, difference, one)
    elif difference.kind == "packing":
        packing = publish_files(store, registry, one.payload, packing_alone=True)
    return packing


def _serve(registry: Registry, digest: str, *, any_decision: bool) -> None:
    """Move the alias to the version it belongs to; '' removes it."""
    if not digest and not any_decision:
        raise NothingDecided(
            "the log is empty, so nobody decided that there is no champion: the alias stays. Restore the database"
        )
    registry.serve(digest or None)


def _restore_files(
    store: ObjectStore, registry: Registry, difference: Difference, version: ExpectedVersion
) -> dict[str, str] | None:
    """Write missing or altered files; if MLflow's own packing of the model is among them, make that anew."""
    own = version.files.keys() & set(difference.files)
    with tempfile.TemporaryDirectory(prefix="lcia-repair-") as name:
        for place in own:
            file = Path(name) / model_place(place)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(store.get(version.files[place]))
        if own:
            registry.upload(difference.digest, Path(name))
    if set(difference.files) <= own:
        return None
    return publish_files(store, registry, version.payload, packing_alone=True)


def _outcome(difference: Difference, remaining: Collection[str], reasons: Mapping[str, str]) -> RepairOutcome:
    if difference.words not in remaining:
        return RepairOutcome(difference, repaired=True)
    stays = {
        "unknown": "lcia did not make it and leaves it; delete it in MLflow if nobody needs it",
        "place": ADVICE,
        "experiment": "it stays there, and is erased there with its version",
        "unclear": "look at what it names, then run `lcia sync` again",
    }
    why = reasons.get(difference.words) or stays.get(difference.kind, "it came back")
    return RepairOutcome(difference, repaired=False, why_not=why)
