"""Mark and sweep: what the object store need not, or may not, keep; and deleting it.

Roots are the versions that were promoted, candidates that wait, open tasks, what MLflow has not been told yet, the
evidence of every decision, every digest the log names, and finished results. Weights are kept only for versions that
were promoted or may still be: a decision rests on what was measured, which is in the records.

Deleting goes in this order, so that it may be killed anywhere and repeated: results that rest on what goes are
forgotten, together with the log entry; then each object leaves word and goes.
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
from components.retention.rules import DECIDED, doomed, snapshots, weights_of
from components.storage.database import Database, now
from components.storage.leases import Lease, check
from components.storage.objects import Json, ObjectStore, StoredFile
from components.storage.reach import Index, digests_in
from components.storage.tables import queue, results, statements
from components.tasks.queue import QueueItem, items

WEIGHTS = "weights of a version that was not promoted, or of a point that was not chosen"
UNDECIDED = frozenset({"submitted", "assessing", "waiting", "learning", "failed"})
"""States of tasks that may go on at a checkpoint."""
_ORDER = {"bytes": 0, "rows": 1, "folder": 2, "assessment": 3, "pool": 4}
"""What says where other texts are goes after them, so that a sweep that was killed can be repeated."""
PART_AGE = timedelta(minutes=5)
"""Age from which a half-written file is what a killed writer left."""


@dataclass(frozen=True)
class Books:
    """What the database refers to, read in one transaction."""

    moment: datetime
    items: list[QueueItem]
    versions: list[Candidate]
    champions: frozenset[str]
    results: list[tuple[str, str]]
    """Key and output."""
    logged: frozenset[str]
    """What the log names, and the signed statements."""
    untold: frozenset[str]
    """Digests in what MLflow has not been told yet."""
    published: frozenset[str]
    """Candidates that MLflow shows with their files, or will."""

    @classmethod
    def read(cls, connection: Connection) -> "Books":
        """Everything, of every assistant of this database."""
        names = assistants(connection)
        told = rows(connection)
        versions = [version for name in names for version in candidates.listed(connection, name)]
        damaged = any(row.damage for row in told)  # then MLflow may show any of them
        shown = {version.digest: "candidate" for version in versions if damaged}
        shown |= {row.digest: row.kind for row in told if row.kind in ("candidate", "forget") and not row.damage}
        heads = (champion.current(connection, name) for name in names)
        return cls(
            now(connection),
            [item for name in names for item in items(connection, name)],
            versions,
            frozenset(head.version for head in heads if head),
            [(row.key, row.output) for row in connection.execute(select(results.c.key, results.c.output))],
            frozenset(digest for row in log.rows(connection) for digest in digests_in(row.body))
            | frozenset(connection.execute(select(statements.c.statement)).scalars()),
            frozenset(d for row in told if row.done_at is None for d in digests_in(row.text.encode("utf-8"))),
            frozenset(digest for digest, kind in shown.items() if kind == "candidate"),
        )


def assistants(connection: Connection) -> list[str]:
    """Every assistant that has a task in this database."""
    return sorted(connection.execute(select(queue.c.assistant).distinct()).scalars())


@dataclass(frozen=True)
class Plan:
    """What a sweep would do."""

    kept: Mapping[str, str]
    """Digest -> why it stays."""
    erased: Mapping[str, str]
    """Digest -> why: texts that may not be kept."""
    dropped: Mapping[str, str | None]
    """Digest -> the word it leaves, None where nothing refers to it: what nobody needs."""
    results: tuple[str, ...]
    """Keys of results that rest on what goes."""
    forgotten: tuple[Candidate, ...]
    """Versions whose files go from MLflow."""
    leftovers: tuple[StoredFile, ...]
    """Checkpoints and half-written files."""
    held: Mapping[str, StoredFile]
    kinds: Mapping[str, str]
    cutoff: datetime
    """Younger objects stay."""

    def bytes_of(self, digests: Iterable[str]) -> int:
        """Size of some objects together."""
        return sum(self.held[digest].size for digest in digests)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.erased or self.dropped or self.results or self.forgotten or self.leftovers)

    def to_json(self) -> dict[str, Json]:
        """What `lcia retention --json` prints."""
        going = [(d, why) for part in (self.erased, self.dropped) for d, why in part.items()]
        return {
            "kept": {"objects": len(self.kept), "bytes": self.bytes_of(self.kept), "why": self._by_reason(self.kept)},
            "erased": {"objects": len(self.erased), "bytes": self.bytes_of(self.erased)},
            "dropped": {"objects": len(self.dropped), "bytes": self.bytes_of(self.dropped)},
            "leftovers": {"files": len(self.leftovers), "bytes": sum(file.size for file in self.leftovers)},
            "results": len(self.results),
            "registry": [version.number for version in self.forgotten],
            "going": [self._told(digest, why or "nothing refers to it") for digest, why in going],
            "staying": [self._told(digest, why) for digest, why in self.kept.items()],
        }

    def _told(self, digest: str, why: str) -> dict[str, Json]:
        return {"digest": digest, "kind": self.kinds[digest], "bytes": self.held[digest].size, "why": why}

    def _by_reason(self, digests: Mapping[str, str]) -> list[dict[str, Json]]:
        groups: dict[str, list[str]] = {}
        for digest, why in digests.items():
            groups.setdefault(why, []).append(digest)
        return [{"why": why, "objects": len(d), "bytes": self.bytes_of(d)} for why, d in groups.items()]


def plan(books: Books, store: ObjectStore, *, grace: timedelta, everything: bool = False) -> Plan:
    """What a sweep would do now. `everything`: checkpoints go too (a withdrawal: they may hold texts).

    Raises:
        ObjectCorrupt: a record was altered, so that nobody knows what it keeps.
    """
    index, cutoff = Index.of(store), books.moment - grace
    dead = doomed(index, books.items, books.versions, books.moment.date())
    weights = {name for kind in ("pool", "tuning") for _, record in index.of_kind(kind)
               for name in weights_of(index, record)}  # fmt: skip
    kept: dict[str, str] = {}
    for why, reached in _marked(index, books, dead.keys(), weights, cutoff):
        kept |= dict.fromkeys(sorted(reached - kept.keys()), why)
    going = index.objects.keys() - kept.keys()
    dropped = {digest: WEIGHTS if digest in weights else None for digest in sorted(going - dead.keys())}
    stale = tuple(key for key, output in books.results if not _whole(index, output, going))
    gone = {v.digest: v for v in books.versions if v.state in ("rejected", "superseded") or v.digest in dead}
    return Plan(
        kept,
        {digest: dead[digest] for digest in sorted(dead, key=lambda d: (_ORDER.get(index.objects[d].kind, 1), d))},
        dropped,
        stale,
        tuple(v for digest, v in gone.items() if digest in books.published and digest not in books.champions),
        tuple(_leftovers(store, books, cutoff, everything=everything)),
        {digest: held.file for digest, held in index.objects.items()},
        {digest: held.kind for digest, held in index.objects.items()},
        cutoff,
    )


def sweep(db: Database, store: ObjectStore, found: Plan, leases: Sequence[Lease], actor: Actor) -> None:
    """Do what a plan says. The leases of every lineage are held, so no run is in flight; repeating it is harmless.

    Raises:
        StaleLease: a lease was taken over meanwhile.
    """
    if found.empty:
        return
    with db.begin() as connection:
        for lease in leases:
            check(connection, lease)
        for start in range(0, len(found.results), 500):
            keys = found.results[start : start + 500]
            connection.execute(delete(results).where(results.c.key.in_(keys)))
        for version in found.forgotten:
            enqueue(connection, version.assistant, "forget", {"digest": version.digest, "number": version.number})
        reasons = sorted(set(found.erased.values()))
        details: dict[str, Json] = {
            "erased": len(found.erased),
            "dropped": len(found.dropped),
            "results": len(found.results),
            "bytes": found.bytes_of([*found.erased, *found.dropped]),
            "why": reasons,
        }
        log.append(connection, "retention.swept", actor, "objects", details)
    for digest, why in found.erased.items():
        store.erase(digest, why)
    for digest, word in found.dropped.items():
        if not store.younger(digest, found.cutoff):
            store.erase(digest, word)
    for file in found.leftovers:
        store.remove(file)


Marks = Iterator[tuple[str, AbstractSet[str]]]


def _marked(index: Index, books: Books, dead: AbstractSet[str], weights: AbstractSet[str], cutoff: datetime) -> Marks:
    """Why, and what stays for this reason; the strongest reasons first."""
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
    yield "the log names it, or what it names", index.reach(books.logged, records_only)
    yield "a finished result", index.reach((output for _, output in books.results), records_only)
    young = [digest for digest, held in index.objects.items() if held.file.modified_at > cutoff]
    yield "too young to tell whether it will be needed", index.reach(young, dead)


def _task(index: Index, digest: str) -> str | None:
    held = index.objects.get(digest)
    return held.task if held else None


def _whole(index: Index, output: str, going: AbstractSet[str]) -> bool:
    """Whether a result still has all it rests on; keyed hashes rest on nothing, the rows may go."""
    held = index.objects.get(output)
    if held is None or output in going:
        return False
    return held.kind == "fingerprints" or not index.reach([output]) & going


def _leftovers(store: ObjectStore, books: Books, cutoff: datetime, *, everything: bool) -> Iterator[StoredFile]:
    resumable = any(item.state in UNDECIDED for item in books.items)
    for file in store.leftovers():
        half = file.name.startswith(".")
        age = books.moment - file.modified_at
        if (half and age > PART_AGE) or (not half and (everything or not resumable or file.modified_at < cutoff)):
            yield file
