"""What those who pay for it ask: how much was learnt, how fast, at what cost, and what was forgotten."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import lru_cache

from components.grouping.pool import Pool
from components.promotion import candidates, champion
from components.promotion.approvals import OVERRIDDEN
from components.promotion.candidates import Candidate
from components.promotion.champion import Promotion
from components.storage.objects import ObjectMissing, ObjectStore
from components.tasks import queue
from components.tasks.queue import QueueItem
from lcia.instance import Instance

MONTHS = 24
"""The newest months that are counted apart."""
LATELY = timedelta(days=30)


@dataclass(frozen=True)
class Cost:
    """What one learning run took."""

    cpu_hours: float
    gpu_hours: float
    money: float | None
    """None where no prices were set."""
    currency: str


@dataclass(frozen=True)
class Learnt:
    """A task whose version became the champion."""

    task: str
    """`name@version`."""
    site: str
    version: int
    submitted_at: datetime | None
    promoted_at: datetime
    seconds: float | None
    """From submission to promotion."""
    cpu_hours: float | None
    gpu_hours: float | None
    money: float | None
    currency: str
    score_then: float | None
    """Right after it was learnt; None where it can't be measured."""
    score_now: float | None
    """In the champion."""


COLUMNS = tuple(field.name for field in fields(Learnt))


@dataclass(frozen=True)
class ChampionPoint:
    """The champion's line at one version."""

    version: int
    mean: float
    """Mean score over the tasks that can be measured (Avg.ACC)."""
    bwt: float | None
    """Mean change of the earlier tasks since each was learnt; None for the first."""


@dataclass(frozen=True)
class Measures:
    """All of it, at one moment."""

    learnt: Sequence[Learnt]
    """In the order of their promotions."""
    months: Sequence[tuple[str, int]]
    """`2026-01` -> tasks learnt, without gaps."""
    lately: int
    """Learnt within `LATELY`."""
    median_seconds: float | None
    slowest: Learnt | None
    spent: Mapping[str, Cost]
    """By currency: of every run that was measured, those that led nowhere too."""
    runs: int
    history: Sequence[ChampionPoint]
    waiting: Sequence[tuple[Candidate, float]]
    """Versions that wait for people, the longest first, with the seconds that they wait."""
    verdicts: Mapping[str, int]
    """Gate verdict -> versions."""
    ends: Mapping[str, int]
    """`promoted`, `rejected`, `superseded` or `overridden` (promoted in spite of the gate) -> versions decided."""


def measure(instance: Instance) -> Measures:
    """Everything in one look at the database; records behind it are immutable and read once by a process."""
    with instance.db.read() as connection:
        known = candidates.versions(connection, instance.assistant)
        decided = champion.lineage(connection, instance.assistant)
        items = queue.items(connection, instance.assistant)
        now, moment = champion.current(connection, instance.assistant), instance.db.now(connection)
    own = line(instance.store, known, now.version if now else None)
    costs = {item.id: cost for item in items if (cost := _cost_of(instance.store, item))}
    learnt = _learnt(known, decided, {item.id: item for item in items}, costs, own)
    timed = [one for one in learnt if one.seconds is not None]
    waiting = [(one, (moment - one.changed_at).total_seconds()) for one in known if one.state == "pending"]
    return Measures(
        learnt=learnt,
        months=_months(learnt, moment),
        lately=sum(moment - one.promoted_at <= LATELY for one in learnt),
        median_seconds=statistics.median(one.seconds or 0.0 for one in timed) if timed else None,
        slowest=max(timed, key=lambda one: one.seconds or 0.0, default=None),
        spent=_spent(list(costs.values())),
        runs=len(costs),
        history=_history(own),
        waiting=sorted(waiting, key=lambda pair: -pair[1]),
        verdicts=Counter(one.verdict for one in known),
        ends=_ends(known, decided),
    )


@dataclass(frozen=True)
class Evaluated:
    """What a version scored, off its evaluation record."""

    name: str
    """In its pool, of the task that it learnt."""
    scores: Mapping[str, float]
    links: tuple[str, ...]
    """Evidence of what a version on another base model learnt again before this."""


@lru_cache(maxsize=20_000)
def _evaluated(store: ObjectStore, evidence: str) -> Evaluated:
    record = store.get_json(evidence)
    evaluation = store.get_json(record["evaluation"])
    pool = Pool.from_manifest(store.get_json(evaluation["pool"]))
    name = next(entry.name for entry in pool.tasks() if entry.task == evaluation["task"])
    return Evaluated(name, evaluation["scores"], tuple(record.get("rebase", {}).get("links", ())[:-1]))


@lru_cache(maxsize=50_000)
def _cost(store: ObjectStore, digest: str) -> Cost:
    actual = store.get_json(digest)["actual"]
    return Cost(actual["cpu_hours"], actual["gpu_hours"], actual["money"], actual["currency"])


def _cost_of(store: ObjectStore, item: QueueItem) -> Cost | None:
    try:
        return _cost(store, item.reports["cost"]) if "cost" in item.reports else None
    except ObjectMissing:  # withdrawn
        return None


def line(store: ObjectStore, known: Sequence[Candidate], at: str | None) -> list[tuple[Candidate, Evaluated]]:
    """Version `at` and what it was made on, oldest first; with another base model the line begins anew."""
    by_digest, ancestors = {one.digest: one for one in known}, []
    while at is not None and at in by_digest:
        ancestors.append(by_digest[at])
        at = by_digest[at].parent
    found: list[tuple[Candidate, Evaluated]] = []
    for version in reversed(ancestors):
        try:
            record = _evaluated(store, version.evidence)
            if record.links:
                found = [(version, _evaluated(store, link)) for link in record.links]
            found.append((version, record))
        except ObjectMissing:  # what it rests on was deleted: nothing can be said of it
            continue
    return found


def _history(line: Sequence[tuple[Candidate, Evaluated]]) -> list[ChampionPoint]:
    points: list[ChampionPoint] = []
    first: dict[str, float] = {}
    for version, record in line:
        changes = [score - first[name] for name, score in record.scores.items() if name in first]
        if record.name in record.scores:
            first[record.name] = record.scores[record.name]
        if record.scores:
            mean, bwt = statistics.fmean(record.scores.values()), statistics.fmean(changes) if changes else None
            if points and points[-1].version == version.number:
                points.pop()  # what a version on another base model learnt before counts in its last state
            points.append(ChampionPoint(version.number, mean, bwt))
    return points


def _learnt(
    known: Sequence[Candidate],
    decided: Sequence[Promotion],
    items: Mapping[int, QueueItem],
    costs: Mapping[int, Cost],
    line: Sequence[tuple[Candidate, Evaluated]],
) -> list[Learnt]:
    """One for each version that was promoted, by its first promotion."""
    by_digest = {one.digest: one for one in known}
    records = {version.digest: record for version, record in line}
    latest = line[-1][1].scores if line else {}
    found: dict[str, Learnt] = {}
    for made in decided:
        version = by_digest.get(made.version)
        if version is None or made.version in found:
            continue
        item = items.get(version.item or 0)
        cost, record = costs.get(version.item or 0), records.get(made.version)
        found[made.version] = Learnt(
            task=version.task_name,
            site=item.owner if item else "",
            version=version.number,
            submitted_at=item.submitted_at if item else None,
            promoted_at=made.at,
            seconds=(made.at - item.submitted_at).total_seconds() if item else None,
            cpu_hours=cost.cpu_hours if cost else None,
            gpu_hours=cost.gpu_hours if cost else None,
            money=cost.money if cost else None,
            currency=cost.currency if cost and cost.money is not None else "",
            score_then=record.scores.get(record.name) if record else None,
            score_now=latest.get(record.name) if record else None,
        )
    return list(found.values())


def _months(learnt: Sequence[Learnt], now: datetime) -> list[tuple[str, int]]:
    counts = Counter(one.promoted_at.strftime("%Y-%m") for one in learnt)
    if not counts:
        return []
    year, month = now.year, now.month
    names = []
    while len(names) < MONTHS:
        names.append(f"{year}-{month:02d}")
        if names[-1] <= min(counts):
            break
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
    return [(name, counts[name]) for name in reversed(names)]


def _spent(costs: Sequence[Cost]) -> dict[str, Cost]:
    found = {}
    for currency in sorted({cost.currency for cost in costs}):
        mine = [cost for cost in costs if cost.currency == currency]
        priced = [cost.money for cost in mine if cost.money is not None]
        found[currency] = Cost(
            sum(cost.cpu_hours for cost in mine),
            sum(cost.gpu_hours for cost in mine),
            sum(priced) if priced else None,
            currency,
        )
    return found


def _ends(known: Sequence[Candidate], decided: Sequence[Promotion]) -> Counter[str]:
    overridden = {one.version for one in decided if not {*OVERRIDDEN.values()}.isdisjoint(one.marks)}
    return Counter("overridden" if one.digest in overridden else one.state for one in known if one.state != "pending")
