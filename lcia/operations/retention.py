"""Retention and withdrawal: the verbs `retention` and `withdraw`, as functions that return plain data."""

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
from components.registry.outbox import backlog
from components.retention import withdrawal
from components.retention.sweep import Books, Plan, assistants, plan, sweep
from components.retention.withdrawal import Withdrawal
from components.storage.database import now
from components.storage.fence import NotErased, OutsideRoot, erase, local_path
from components.storage.leases import Lease
from components.storage.reach import Index
from components.storage.remains import copies_of
from components.tasks import proposals
from components.tasks.queue import QueueItem
from infra import zenml_places
from lcia.instance import Instance
from lcia.lineage import hold_lineage
from lcia.operations import delivery, relocation

COMPACT_SECONDS = 10.0
"""Seconds that compacting a database waits for other programs."""


def look(instance: Instance) -> dict[str, Any]:
    """The objects that a sweep would delete, and why everything else stays; nothing is changed."""
    sweep_plan = _plan(instance)
    return {**sweep_plan.to_json(), "quarantine": len(_old_reports(instance)), "swept": False}


def clean(instance: Instance, actor: Actor) -> dict[str, Any]:
    """Delete everything that may not, or need not, be kept any more.

    Raises:
        StateMoved: records name the files of another place; nothing was deleted.
        LineageBusy: a worker is at work; what it has written may not be referred to yet.
        ObjectCorrupt: a record was altered, so that nobody knows what it keeps; nothing was deleted.
    """
    relocation.need_here(instance)
    with _all_lineages(instance) as leases:
        sweep_plan, reports = _plan(instance), _old_reports(instance)
        sweep(instance.keeper, instance.store, sweep_plan, leases, actor)
        with instance.keeper.begin() as connection:
            oldest = now(connection) - timedelta(days=instance.settings.gateway.keep_days)
            proposals.forget(connection, before=oldest)
        still_there = _erase_all(instance, reports)
    delivery.settle(instance)
    count = len(reports) - len(still_there)
    return {**sweep_plan.to_json(), "quarantine": count, "swept": True, **_proof(instance, still_there)}


def withdraw(instance: Instance, task: str, actor: Actor, reason: str) -> dict[str, Any]:
    """Erase a task's rows and what repeats them, everywhere; the log keeps a tombstone. Repeating it finishes it.

    Raises:
        TaskUnknown, WithdrawalRefused, ReasonMissing, LineageBusy, ObjectCorrupt.
        StateMoved: records name the files of another place; nothing was changed.
    """
    relocation.need_here(instance)
    with _all_lineages(instance) as leases:
        index = Index.of(instance.store)
        with instance.keeper.begin() as connection:
            item = withdrawal.find(connection, instance.assistant, task)
            result = withdrawal.withdraw(
                connection,
                leases,
                index,
                item,
                policy=instance.settings.retention.withdrawn_adapters,
                actor=actor,
                reason=reason,
            )
        sweep_plan = _plan(instance, everything=True)
        sweep(instance.keeper, instance.store, sweep_plan, leases, actor)
        still_there = _erase_all(instance, [instance.home / "quarantine"])
        try:
            runs = _forget_runs(result.item)
        except LciaError as error:  # MLflow's files have to go all the same
            runs, still_there = 0, [*still_there, str(error)]
        except Exception as error:  # noqa: BLE001 - as above, whatever ZenML or its database has
            file = zenml_places.database(instance.home)
            fault = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            why = f"what ZenML keeps of its runs was not deleted ({fault})"
            advice = f"if {file} is damaged restore it from a backup"
            runs, still_there = 0, [*still_there, f"{why}; {advice}"]
    delivery.settle(instance)
    with instance.db.read() as connection:
        head = log.head(connection)
    tombstone = instance.home / "withdrawals" / f"{result.item.name}@{result.item.version}-{result.item.id}.head"
    tombstone.parent.mkdir(parents=True, exist_ok=True)
    tombstone.write_bytes(instance.signing_key().sign(head))
    failures, proof = _compact(instance), _proof(instance, still_there)
    return {**_fields(result), **_counts(sweep_plan), "zenml_runs": runs, "not_compacted": list(failures),
            "why_not_compacted": failures, **proof, "exit_code": 1 if failures else proof["exit_code"],
            "head": str(tombstone), "entries": head.entries}  # fmt: skip


def _erase_all(instance: Instance, paths: list[Path]) -> list[str]:
    """Erase what stands in the state folder; sentences on what could not be."""
    still_there = []
    for path in paths:
        try:
            erase(path, instance.home)
        except (OutsideRoot, NotErased) as error:
            still_there.append(str(error))
    return still_there


def _proof(instance: Instance, sentences: list[str]) -> dict[str, Any]:
    """`still_there`: what was to be erased and is there, found by looking; `exit_code` is 1 where something is."""
    standing = delivery.standing(instance)
    erased_digests = set(instance.store.tombstones())
    folders = [local_path(instance.settings.registry.artifacts), zenml_places.stores(instance.home)]
    remains = [f"{path} holds what was erased" for path in copies_of(erased_digests, [one for one in folders if one])]
    with instance.db.read() as connection:
        waiting = [row for row in backlog(connection, instance.assistant) if row.kind == "forget"]
    remains += [
        f"files of {f'version {row.number}' if row.number is not None else 'a version'} in MLflow: "
        f"{row.error or 'MLflow was not asked yet'}"
        for row in waiting
    ]
    return {
        **standing,
        "still_there": [*sentences, *remains],
        "exit_code": 1 if sentences or remains or standing["registry_untold"] else 0,
    }


def _fields(result: Withdrawal) -> dict[str, Any]:
    item = result.item
    stay = [v.number for v in result.versions if v.state == "promoted" and result.policy == "keep"]
    return {
        "task": item.id,
        "name": item.name,
        "version": item.version,
        "known": result.repeat,
        "policy": result.policy,
        "tuned": [version.number for version in result.versions],
        "stay": stay,
    }


def _counts(sweep_plan: Plan) -> dict[str, Any]:
    return {
        "erased": len(sweep_plan.erase),
        "bytes": sweep_plan.bytes_of(sweep_plan.erase),
        "leftovers": len(sweep_plan.leftovers),
    }


def _plan(instance: Instance, *, everything: bool = False) -> Plan:
    with instance.db.read() as connection:
        books = Books.read(connection)
    grace = timedelta(hours=instance.settings.retention.grace_hours)
    return plan(books, instance.store, grace=grace, everything=everything)


@contextlib.contextmanager
def _all_lineages(instance: Instance) -> Iterator[list[Lease]]:
    """Every lineage of the database, which may hold several assistants on one store."""
    with instance.db.read() as connection:
        names = sorted({*assistants(connection), instance.assistant})
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(hold_lineage(instance.keeper, name, "sweeper")) for name in names]


def _old_reports(instance: Instance) -> list[Path]:
    folder, oldest = instance.home / "quarantine", time.time() - instance.settings.retention.quarantine_days * 86400
    return [path for path in sorted(folder.glob("*")) if path.stat().st_mtime <= oldest]


def _forget_runs(item: QueueItem) -> int:
    from infra.erasure import delete_runs

    suffix = f"{item.name}-{item.version}-"
    own = [f"{name}-{item.id}-{suffix}" for name in ("assess_task", "learn_task", "tune_task")]
    return delete_runs([*own, *(f"ahead-{name}" for name in own), f"plan-{suffix}"])


def _compact(instance: Instance) -> dict[str, str]:
    """Rewrite the SQLite files, whose free pages keep what was deleted; returns why some were not.

    PostgreSQL and MySQL do this on their own (autovacuum, purge).
    """
    failures = {}
    files = (_sqlite(instance.settings.storage.database), _sqlite(instance.settings.registry.tracking_uri))
    for file in (*files, zenml_places.database(instance.home)):
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
            failures[str(file)] = why
    return failures


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
