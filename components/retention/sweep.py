"""Mark and sweep of the object store: find what it need not, or may not, keep, and delete it.

Roots are promoted versions, waiting candidates, open tasks, updates that MLflow has not received yet, the evidence of
every decision, every digest the log names, and finished results. Weights are kept only for versions that were promoted
or may still be: a decision rests on measurements, which are in the records.

The order of deletion lets a sweep be killed anywhere and repeated: first results that rest on deleted objects are
forgotten, in one transaction with the log entry; then each object goes and leaves a note of why.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select

from components.audit import log
from components.audit.log import Actor
from components.promotion import candidates, champion
from components.promotion.candidates import Candidate
from components.registry.outbox import enqueue
from components.registry.outbox_rows import rows
from components.retention.rules import DECIDED, snapshots, to_erase, weights_of
from components.storage.database import Database, now
from components.storage.leases import Lease, check
from components.storage.objects import Json, ObjectStore, StoredFile
from components.storage.reach import Index, digests_in
from components.storage.tables import queue, results, statements, trials
from components.tasks.queue import QueueItem, items

WEIGHTS = "weights of a version that was not promoted, or of a point that was not chosen"
UNDECIDED = frozenset({"submitted", "assessing", "waiting", "learning", "failed"})
"""States of tasks that may resume from a checkpoint."""
_ORDER = {"bytes": 0, "rows": 1, "folder": 2, "assessment": 3, "pool": 4}
"""Order of deletion: objects that name others go after them, so that a killed sweep can be repeated."""
PART_AGE = timedelta(minutes=5)
"""Age from which a half-written file counts as left by a killed writer."""


@dataclass(frozen=True)
class Books:
    """All that the database refers to, read in one transaction."""

    moment: datetime
    items: list[QueueItem]
    versions: list[Candidate]
    champions: frozenset[str]
    results: list[tuple[str, str]]
    """Key and output."""
    in_log: frozenset[str]
    """Digests the log names, and the signed statements."""
    untold: frozenset[str]
    """Digests in updates that MLflow has not received yet."""
    in_mlflow: frozenset[str]
    """Candidates that MLflow shows with their files, or will."""
    answers: Mapping[str, tuple[int, datetime]]
    """Changed answers of a trial -> its number, and the time from which they may not be kept."""

    @classmethod
    def read(cls, connection: Connection) -> "Books":
        """Everything, of every assistant of this database."""
        names = assistants(connection)
        messages = rows(connection)
        versions = [version for name in names for version in candidates.versions(connection, name)]
        any_damage = any(row.damage for row in messages)  # then MLflow may show any of them
        newest = {version.digest: "candidate" for version in versions if any_damage}
        newest |= {row.digest: row.kind for row in messages if row.kind in ("candidate", "forget") and not row.damage}
        heads = (champion.current(connection, name) for name in names)
        return cls(
            now(connection),
            [item for name in names for item in items(connection, name)],
            versions,
            frozenset(head.version for head in heads if head),
            [(row.key, row.output) for row in connection.execute(select(results.c.key, results.c.output))],
            frozenset(digest for row in log.rows(connection) for digest in digests_in(row.body))
            | frozenset(connection.execute(select(statements.c.statement)).scalars())
            | frozenset(filter(None, connection.execute(select(trials.c.statement)).scalars())),
            frozenset(d for row in messages if row.done_at is None for d in digests_in(row.text.encode("utf-8"))),
            frozenset(digest for digest, kind in newest.items() if kind == "candidate"),
            _answers(connection),
        )


def _answers(connection: Connection) -> dict[str, tuple[int, datetime]]:
    """See `Books.answers`; of equal ones the latest time."""
    query = select(trials.c.answers, trials.c.id, trials.c.answers_until).where(trials.c.answers.is_not(None))
    rows = connection.execute(query.order_by(trials.c.answers_until)).all()
    return {row.answers: (row.id, row.answers_until) for row in rows}


def assistants(connection: Connection) -> list[str]:
    """Every assistant that has a task in this database."""
    return sorted(connection.execute(select(queue.c.assistant).distinct()).scalars())


@dataclass(frozen=True)
class Plan:
    """The work of one sweep."""

    keep: Mapping[str, str]
    """Digest -> why it stays."""
    erase: Mapping[str, str]
    """Digest -> why: texts that may not be kept."""
    drop: Mapping[str, str | None]
    """Digest of an object that nobody needs -> the note it leaves; None if nothing refers to it."""
    results: tuple[str, ...]
    """Keys of results that rest on what goes."""
    unpublish: tuple[Candidate, ...]
    """Versions whose files go from MLflow."""
    leftovers: tuple[StoredFile, ...]
    """Checkpoints and half-written files."""
    files: Mapping[str, StoredFile]
    kinds: Mapping[str, str]
    cutoff: datetime
    """Younger objects stay."""

    def bytes_of(self, digests: Iterable[str]) -> int:
        """Size of some objects together."""
        return sum(self.files[digest].size for digest in digests)

    @property
    def empty(self) -> bool:
        """True if there is nothing to do."""
        return not (self.erase or self.drop or self.results or self.unpublish or self.leftovers)

    def to_json(self) -> dict[str, Json]:
        """The output of `lcia retention --json`."""
        going = [(d, why) for part in (self.erase, self.drop) for d, why in part.items()]
        return {
            "kept": {"objects": len(self.keep), "bytes": self.bytes_of(self.keep), "why": self._by_reason(self.keep)},
            "erased": {"objects": len(self.erase), "bytes": self.bytes_of(self.erase)},
            "dropped": {"objects": len(self.drop), "bytes": self.bytes_of(self.drop)},
            "leftovers": {"files": len(self.leftovers), "bytes": sum(file.size for file in self.leftovers)},
            "results": len(self.results),
            "registry": [version.number for version in self.unpublish],
            "going": [self._line(digest, why or "nothing refers to it") for digest, why in going],
            "staying": [self._line(digest, why) for digest, why in self.keep.items()],
        }

    def _line(self, digest: str, why: str) -> dict[str, Json]:
        return {"digest": digest, "kind": self.kinds[digest], "bytes": self.files[digest].size, "why": why}

    def _by_reason(self, digests: Mapping[str, str]) -> list[dict[str, Json]]:
        groups: dict[str, list[str]] = {}
        for digest, why in digests.items():
            groups.setdefault(why, []).append(digest)
        return [{"why": why, "objects": len(d), "bytes": self.bytes_of(d)} for why, d in groups.items()]


def plan(books: Books, store: ObjectStore, *, grace: timedelta, everything: bool = False) -> Plan:
    """The sweep that is due now. `everything`: checkpoints go too (for a withdrawal: they may hold texts).

    Raises:
        ObjectCorrupt: a record was altered, so nobody knows what it refers to.
    """
    index, cutoff = Index.of(store), books.moment - grace
    dead = to_erase(index, books.items, books.versions, books.moment.date()) | {
        digest: f"changed answers of trial {number}: gateway.keep_days have passed"
        for digest, (number, until) in books.answers.items()
        if until <= books.moment and digest in index.objects
    }
    weights = {name for kind in ("pool", "tuning") for _, record in index.of_kind(kind)
               for name in weights_of(index, record)}  # fmt: skip
    staying: dict[str, str] = {}
    for why, digests in _roots(index, books, dead.keys(), weights, cutoff):
        staying |= dict.fromkeys(sorted(digests - staying.keys()), why)
    going = index.objects.keys() - staying.keys()
    drop = {digest: WEIGHTS if digest in weights else None for digest in sorted(going - dead.keys())}
    stale = tuple(key for key, output in books.results if not _whole(index, output, going))
    to_hide = {v.digest: v for v in books.versions if v.state in ("rejected", "superseded") or v.digest in dead}
    return Plan(
        staying,
        {digest: dead[digest] for digest in sorted(dead, key=lambda d: (_ORDER.get(index.objects[d].kind, 1), d))},
        drop,
        stale,
        tuple(v for digest, v in to_hide.items() if digest in books.in_mlflow and digest not in books.champions),
        tuple(_leftovers(store, books, cutoff, everything=everything)),
        {digest: entry.file for digest, entry in index.objects.items()},
        {digest: entry.kind for digest, entry in index.objects.items()},
        cutoff,
    )


def sweep(db: Database, store: ObjectStore, todo: Plan, leases: Sequence[Lease], actor: Actor) -> None:
    """Carry out a plan. The caller holds the lease of every lineage, so no run is in flight; repeating it is harmless.

    Raises:
        StaleLease: a lease was taken over meanwhile.
    """
    if todo.empty:
        return
    with db.begin() as connection:
        for lease in leases:
            check(connection, lease)
        for start in range(0, len(todo.results), 500):  # SQLite may take no more than 999 parameters
            keys = todo.results[start : start + 500]
            connection.execute(delete(results).where(results.c.key.in_(keys)))
        for version in todo.unpublish:
            enqueue(connection, version.assistant, "forget", {"digest": version.digest, "number": version.number})
        reasons = sorted(set(todo.erase.values()))
        details: dict[str, Json] = {
            "erased": len(todo.erase),
            "dropped": len(todo.drop),
            "results": len(todo.results),
            "bytes": todo.bytes_of([*todo.erase, *todo.drop]),
            "why": reasons,
        }
        log.append(connection, "retention.swept", actor, "objects", details)
    for digest, why in todo.erase.items():
        store.erase(digest, why)
    for digest, word in todo.drop.items():
        if not store.younger(digest, todo.cutoff):
            store.erase(digest, word)
    for file in todo.leftovers:
        store.remove(file)


Marks = Iterator[tuple[str, AbstractSet[str]]]


def _roots(index: Index, books: Books, dead: AbstractSet[str], weights: AbstractSet[str], cutoff: datetime) -> Marks:
    """Reasons to keep objects, each with the digests that stay for it; the strongest reasons first."""
    records_only = dead | weights
    for version in books.versions:
        if version.state == "promoted" and version.digest not in dead:
            use = "the champion" if version.digest in books.champions else "promoted: `lcia rollback` can bring it back"
            manifest = index.records.get(version.digest)
            own = (weights_of(index, manifest) & index.objects.keys()) - dead if manifest else set()
            yield f"version {version.number}, {use}", index.reach([version.digest], records_only) | own
        elif version.state == "pending":
            waits = f"version {version.number} waits for people"
            yield waits, index.reach([version.digest, version.evidence], dead)
    yield "MLflow has not been told of it yet", index.reach(books.untold, dead)
    for item in books.items:
        if item.state not in DECIDED:
            mine = [output for _, output in books.results if _task(index, output) in snapshots(index, item)]
            roots = [item.package, item.task or "", *item.reports.values(), *mine]
            yield f"task {item.id} ({item.name}@{item.version}) is {item.state}", index.reach(roots, dead)
    for version in books.versions:
        roots = [version.digest, version.evidence, version.task]
        yield f"evidence of version {version.number}, {version.state}", index.reach(roots, records_only)
    yield "the log names it, or what it names", index.reach(books.in_log, records_only)
    yield "a finished result", index.reach((output for _, output in books.results), records_only)
    young = [digest for digest, entry in index.objects.items() if entry.file.modified_at > cutoff]
    yield "too young to tell whether it will be needed", index.reach(young, dead)


def _task(index: Index, digest: str) -> str | None:
    entry = index.objects.get(digest)
    return entry.task if entry else None


def _whole(index: Index, output: str, going: AbstractSet[str]) -> bool:
    """True if a result still has all it rests on; keyed hashes rest on nothing, so their rows may go."""
    entry = index.objects.get(output)
    if entry is None or output in going:
        return False
    return entry.kind == "fingerprints" or not index.reach([output]) & going


def _leftovers(store: ObjectStore, books: Books, cutoff: datetime, *, everything: bool) -> Iterator[StoredFile]:
    resumable = any(item.state in UNDECIDED for item in books.items)
    for file in store.leftovers():
        half = file.name.startswith(".")
        age = books.moment - file.modified_at
        if (half and age > PART_AGE) or (not half and (everything or not resumable or file.modified_at < cutoff)):
            yield file
