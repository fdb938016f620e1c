"""Retention and withdrawal: what the verbs `retention` and `withdraw` do, as functions that return plain data."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from components.audit import log
from components.audit.log import Actor
from components.errors import LciaError
from components.promotion import withdrawal
from components.promotion.outbox import undelivered
from components.promotion.sweep import Books, Plan, assistants, plan, sweep
from components.promotion.withdrawal import Withdrawal
from components.storage.fence import NotErased, OutsideRoot, erase, local_path
from components.storage.leases import Lease
from components.storage.reach import Index
from components.storage.remains import copies_of
from components.tasks.queue import QueueItem
from infra import zenml_places
from lcia import delivery, moving
from lcia.worker import hold_lineage
from lcia.workplace import Workplace

COMPACT_SECONDS = 10.0
"""How long compacting a database waits for other programs."""


def look(place: Workplace) -> dict[str, Any]:
    """What a sweep would delete and why everything else stays; nothing is changed."""
    found = _plan(place)
    return {**found.to_json(), "quarantine": len(_old_reports(place)), "swept": False}


def clean(place: Workplace, actor: Actor) -> dict[str, Any]:
    """Delete what may or need not be kept any more.

    Raises:
        StateMoved: records name the files of another place; nothing was deleted.
        LineageBusy: a worker is at work; what it has written may not be referred to yet.
        ObjectCorrupt: a record was altered, so that nobody knows what it keeps; nothing was deleted.
    """
    moving.need_here(place)
    with _all_lineages(place) as leases:
        found, reports = _plan(place), _old_reports(place)
        sweep(place.keeper, place.store, found, leases, actor)
        still_there = _erased(place, reports)
    delivery.settle(place)
    gone = len(reports) - len(still_there)
    return {**found.to_json(), "quarantine": gone, "swept": True, **_proof(place, still_there)}


def withdraw(place: Workplace, name: str, actor: Actor, reason: str) -> dict[str, Any]:
    """Erase a task's rows and what repeats them, everywhere; the log keeps a tombstone. Repeating it finishes it.

    Raises:
        TaskUnknown, WithdrawalRefused, ReasonMissing, LineageBusy, ObjectCorrupt.
        StateMoved: records name the files of another place; nothing was changed.
    """
    moving.need_here(place)
    with _all_lineages(place) as leases:
        index = Index.of(place.store)
        with place.keeper.begin() as connection:
            item = withdrawal.find(connection, place.assistant, name)
            done = withdrawal.withdraw(
                connection,
                leases,
                index,
                item,
                policy=place.settings.retention.withdrawn_adapters,
                actor=actor,
                reason=reason,
            )
        found = _plan(place, everything=True)
        sweep(place.keeper, place.store, found, leases, actor)
        still_there = _erased(place, [place.home / "quarantine"])
        try:
            runs = _forget_runs(done.item)
        except LciaError as error:  # MLflow's files have to go all the same
            runs, still_there = 0, [*still_there, str(error)]
        except Exception as error:  # noqa: BLE001 - as above, whatever ZenML or its database has
            file = zenml_places.database(place.home)
            seen = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            why = f"what ZenML keeps of its runs was not deleted ({seen})"
            advice = f"if {file} is damaged restore it from a backup"
            runs, still_there = 0, [*still_there, f"{why}; {advice}"]
    delivery.settle(place)
    with place.db.read() as connection:
        head = log.head(connection)
    tombstone = place.home / "withdrawals" / f"{done.item.name}@{done.item.version}-{done.item.id}.head"
    tombstone.parent.mkdir(parents=True, exist_ok=True)
    tombstone.write_bytes(place.signing_key().sign(head))
    left, proof = _compact(place), _proof(place, still_there)
    return {**_told(done), **_counts(found), "zenml_runs": runs, "not_compacted": list(left),
            "why_not_compacted": left, **proof, "exit_code": 1 if left else proof["exit_code"],
            "head": str(tombstone), "entries": head.entries}  # fmt: skip


def _erased(place: Workplace, paths: list[Path]) -> list[str]:
    """Erase what stands in the state folder; sentences on what could not be."""
    still_there = []
    for path in paths:
        try:
            erase(path, place.home)
        except (OutsideRoot, NotErased) as error:
            still_there.append(str(error))
    return still_there


def _proof(place: Workplace, known: list[str]) -> dict[str, Any]:
    """`still_there`: what was to be erased and is there, found by looking; `exit_code` is 1 where something is."""
    told = delivery.standing(place)
    gone = set(place.store.tombstones())
    folders = [local_path(place.settings.registry.artifacts), zenml_places.stores(place.home)]
    left = [f"{path} holds what was erased" for path in copies_of(gone, [one for one in folders if one])]
    with place.db.read() as connection:
        waiting = [row for row in undelivered(connection, place.assistant) if row.kind == "forget"]
    left += [
        f"files of {f'version {row.number}' if row.number is not None else 'a version'} in MLflow: "
        f"{row.error or 'MLflow was not asked yet'}"
        for row in waiting
    ]
    return {**told, "still_there": [*known, *left], "exit_code": 1 if known or left or told["registry_untold"] else 0}


def _told(done: Withdrawal) -> dict[str, Any]:
    item = done.item
    stay = [v.number for v in done.tuned if v.state == "promoted" and done.policy == "keep"]
    return {
        "task": item.id,
        "name": item.name,
        "version": item.version,
        "known": done.known,
        "policy": done.policy,
        "tuned": [version.number for version in done.tuned],
        "stay": stay,
    }


def _counts(found: Plan) -> dict[str, Any]:
    return {"erased": len(found.erased), "bytes": found.bytes_of(found.erased), "leftovers": len(found.leftovers)}


def _plan(place: Workplace, *, everything: bool = False) -> Plan:
    with place.db.read() as connection:
        books = Books.read(connection)
    grace = timedelta(hours=place.settings.retention.grace_hours)
    return plan(books, place.store, grace=grace, everything=everything)


@contextlib.contextmanager
def _all_lineages(place: Workplace) -> Iterator[list[Lease]]:
    """Every lineage of the database, which may hold several assistants on one store."""
    with place.db.read() as connection:
        names = sorted({*assistants(connection), place.assistant})
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(hold_lineage(place.keeper, name, "sweeper")) for name in names]


def _old_reports(place: Workplace) -> list[Path]:
    folder, oldest = place.home / "quarantine", time.time() - place.settings.retention.quarantine_days * 86400
    return [path for path in sorted(folder.glob("*")) if path.stat().st_mtime <= oldest]


def _forget_runs(item: QueueItem) -> int:
    from infra.erasure import delete_runs

    named = f"{item.name}-{item.version}-"
    return delete_runs([f"assess_task-{item.id}-{named}", f"learn_task-{item.id}-{named}", f"plan-{named}"])


def _compact(place: Workplace) -> dict[str, str]:
    """Rewrite the SQLite files, whose free pages keep what was deleted; returns why some were not.

    PostgreSQL and MySQL do this on their own (autovacuum, purge).
    """
    left = {}
    files = (_sqlite(place.settings.storage.database), _sqlite(place.settings.registry.tracking_uri))
    for file in (*files, zenml_places.database(place.home)):
        if file is None or not file.exists():
            continue
        try:
            with contextlib.closing(sqlite3.connect(file, COMPACT_SECONDS, isolation_level=None)) as connection:
                connection.execute("VACUUM")
                busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            why = "it is in use by another program; close that" if busy else ""
        except sqlite3.Error as error:
            why = _reason(error)
        if why:
            left[str(file)] = why
    return left


def _reason(error: sqlite3.Error) -> str:
    """Why SQLite did not rewrite a file, and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "it is in use by another program; close that"
    if code == sqlite3.SQLITE_FULL:
        return "the disk is full (rewriting a file takes as much room again); free space"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"it is damaged ({error}); restore it from a backup, or move it away if it is ZenML's"
    return f"{error}; look at the file and its disk"


def _sqlite(url: str) -> Path | None:
    if not url.startswith("sqlite:"):
        return None
    return Path(str(make_url(url).database))
