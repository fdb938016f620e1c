"""Figures for those who pay: how much was learnt, how fast, at what cost, and what was forgotten."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from components.evaluation.accuracy_matrix import AccuracyMatrix
from components.promotion import candidates, champion
from components.promotion.approvals import OVERRIDDEN
from components.promotion.candidates import Candidate
from components.promotion.champion import Promotion
from components.tasks import queue
from components.tasks.queue import QueueItem
from lcia.instance import Instance
from lcia.operations.costs import actual_cost
from lcia.operations.figures import Line

MONTHS = 24
"""The newest months that are counted apart."""
LATELY = timedelta(days=30)


@dataclass(frozen=True)
class Cost:
    """Cost of one learning run, or of several together."""

    cpu_hours: float
    gpu_hours: float
    money: float | None
    """None where no prices were set."""
    currency: str


@dataclass(frozen=True)
class LearntTask:
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


COLUMNS = tuple(field.name for field in fields(LearntTask))


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

    tasks: Sequence[LearntTask]
    """In the order of their promotions."""
    months: Sequence[tuple[str, int]]
    """`2026-01` -> tasks learnt, without gaps."""
    lately: int
    """Learnt within `LATELY`."""
    median_seconds: float | None
    slowest: LearntTask | None
    spent: Mapping[str, Cost]
    """By currency: of every run that was measured, those that led nowhere too."""
    runs: int
    history: Sequence[ChampionPoint]
    waits: Sequence[tuple[Candidate, float]]
    """Versions that wait for people, the longest first, with the seconds that they wait."""
    verdicts: Mapping[str, int]
    """Gate verdict -> versions."""
    ends: Mapping[str, int]
    """`promoted`, `rejected`, `superseded` or `overridden` (promoted against the gate) -> versions decided."""


def measure(instance: Instance) -> Measures:
    """Everything in one look at the database; records behind it never change and are read once by a process."""
    with instance.db.read() as connection:
        versions = candidates.versions(connection, instance.assistant)
        promotions = champion.lineage(connection, instance.assistant)
        items = queue.items(connection, instance.assistant)
        now, moment = champion.current(connection, instance.assistant), instance.db.now(connection)
    line = Line.of(instance, now.version if now else None)
    matrix = line.matrix()
    costs = {item.id: Cost(**actual) for item in items if (actual := actual_cost(instance, item))}
    tasks = _tasks(versions, promotions, {item.id: item for item in items}, costs, _scores(line, matrix))
    finite = [one for one in tasks if one.seconds is not None]
    waits = [(one, (moment - one.changed_at).total_seconds()) for one in versions if one.state == "pending"]
    return Measures(
        tasks=tasks,
        months=_months(tasks, moment),
        lately=sum(moment - one.promoted_at <= LATELY for one in tasks),
        median_seconds=statistics.median(one.seconds or 0.0 for one in finite) if finite else None,
        slowest=max(finite, key=lambda one: one.seconds or 0.0, default=None),
        spent=_by_currency(list(costs.values())),
        runs=len(costs),
        history=_history(line, matrix, {one.digest: one.number for one in versions}),
        waits=sorted(waits, key=lambda pair: -pair[1]),
        verdicts=Counter(one.verdict for one in versions),
        ends=_ends(versions, promotions),
    )


def _history(line: Line, matrix: AccuracyMatrix, numbers: Mapping[str, int]) -> list[ChampionPoint]:
    """Avg.ACC and BWT at each version of a line; what one on another base model learnt before is part of it."""
    return [
        ChampionPoint(numbers[digest], mean, bwt if position else None)
        for position, (digest, (mean, bwt)) in enumerate(zip(line.versions, matrix.after_each, strict=True))
        if digest in numbers and mean is not None
    ]


def _scores(line: Line, matrix: AccuracyMatrix) -> dict[str, tuple[float | None, float | None]]:
    """By version of a line: the score of the task that it learnt, then and now."""
    now = matrix.rows[-1] if matrix.rows else ()
    return {digest: (row[-1], last) for digest, row, last in zip(line.versions, matrix.rows, now, strict=True)}


def _tasks(
    versions: Sequence[Candidate],
    promotions: Sequence[Promotion],
    items: Mapping[int, QueueItem],
    costs: Mapping[int, Cost],
    scores: Mapping[str, tuple[float | None, float | None]],
) -> list[LearntTask]:
    """One for each version that was promoted, by its first promotion."""
    by_digest = {one.digest: one for one in versions}
    tasks: dict[str, LearntTask] = {}
    for promotion in promotions:
        version = by_digest.get(promotion.version)
        item = items.get(version.item or 0) if version else None
        if version is None or promotion.version in tasks or (item and item.is_change):
            continue
        cost = costs.get(version.item or 0)
        then, now = scores.get(promotion.version, (None, None))
        tasks[promotion.version] = LearntTask(
            task=version.task_name,
            site=item.owner if item else "",
            version=version.number,
            submitted_at=item.submitted_at if item else None,
            promoted_at=promotion.at,
            seconds=(promotion.at - item.submitted_at).total_seconds() if item else None,
            cpu_hours=cost.cpu_hours if cost else None,
            gpu_hours=cost.gpu_hours if cost else None,
            money=cost.money if cost else None,
            currency=cost.currency if cost and cost.money is not None else "",
            score_then=then,
            score_now=now,
        )
    return list(tasks.values())


def _months(tasks: Sequence[LearntTask], now: datetime) -> list[tuple[str, int]]:
    counts = Counter(one.promoted_at.strftime("%Y-%m") for one in tasks)
    if not counts:
        return []
    year, month = now.year, now.month
    names: list[str] = []
    while len(names) < MONTHS:
        names.append(f"{year}-{month:02d}")
        if names[-1] <= min(counts):
            break
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
    return [(name, counts[name]) for name in reversed(names)]


def _by_currency(costs: Sequence[Cost]) -> dict[str, Cost]:
    totals = {}
    for currency in sorted({cost.currency for cost in costs}):
        mine = [cost for cost in costs if cost.currency == currency]
        prices = [cost.money for cost in mine if cost.money is not None]
        totals[currency] = Cost(
            sum(cost.cpu_hours for cost in mine),
            sum(cost.gpu_hours for cost in mine),
            sum(prices) if prices else None,
            currency,
        )
    return totals


def _ends(versions: Sequence[Candidate], promotions: Sequence[Promotion]) -> Counter[str]:
    overrides = {one.version for one in promotions if not {*OVERRIDDEN.values()}.isdisjoint(one.marks)}
    return Counter("overridden" if one.digest in overrides else one.state for one in versions if one.state != "pending")
