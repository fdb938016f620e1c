"""Rules of retention: stored texts of a task stay or go by its owner's `retention` and by what became of the task.

The table of docs/decisions/0017-retention.md as code. An object dies only when no task lets it stay: two versions of a
task often share a split.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from typing import Any

from components.promotion.candidates import Candidate
from components.storage.reach import Index
from components.tasks.queue import QueueItem
from components.tasks.snapshot import UNLABELLED, header
from components.tasks.task_file import Retention

DECIDED = frozenset({"promoted", "rejected", "cancelled", "refused", "nothing_to_learn", "withdrawn"})
"""States after which a task's rows are not learnt from, unless it is submitted again."""
KEEP, REFUSE = "keep", "refuse"
"""Outcome of a withdrawal for the versions tuned on the rows: the answer `withdrawn` of the queue item."""

Fate = tuple[str, str | None]
"""An object's digest and why it dies; None: it may stay."""


def to_erase(index: Index, items: Sequence[QueueItem], versions: Sequence[Candidate], today: date) -> dict[str, str]:
    """Digest -> reason, for every stored object with texts that may not be kept."""
    fates = [fate for item in items for rows in _rows(index, item, today) for fate in _with_images(index, rows)]
    alive = {digest for digest, why in fates if why is None}
    dead = {digest: why for digest, why in fates if why is not None and digest not in alive}
    dead |= _routes(index, dead)
    for item in items:
        if item.state == "withdrawn" and item.is_change:
            dead[item.package] = f"{item.label} was withdrawn"
        elif item.state == "withdrawn":
            dead |= dict.fromkeys(_instructions(index, item, versions), f"{item.label} was withdrawn")
    return {digest: why for digest, why in dead.items() if digest in index.objects}


def snapshots(index: Index, item: QueueItem) -> dict[str, Mapping[str, Any]]:
    """Task objects of an item: as submitted, and without the rows that were set aside."""
    digests = {item.task} if item.task else set()
    digests |= {str(value["task"]) for _, value in index.of_kind("assessment") if value["submitted_task"] == item.task}
    return {digest: index.records[digest] for digest in sorted(digests) if digest in index.records}


def versions_with(index: Index, tasks: AbstractSet[str]) -> set[str]:
    """Manifests of every version, candidate or not, that has learnt one of the tasks."""
    return {
        digest
        for digest, pool in index.of_kind("pool")
        if any(entry["task"] in tasks for group in pool["groups"] for entry in group["tasks"])
    }


def weights_of(index: Index, record: Mapping[str, Any]) -> set[str]:
    """Adapters (folder and files) and curvatures that a version's manifest or a tuning record names."""
    if record["kind"] == "pool":
        digests = [group[part] for group in record["groups"] for part in ("adapter", "curvature")]
    else:
        merge = record.get("merge") or {}
        digests = [*record["points"].values(), record["curvature"], merge.get("adapter"), merge.get("curvature")]
    return {name for digest in digests if digest for name in index.files_of(str(digest))}


def _instructions(index: Index, item: QueueItem, versions: Sequence[Candidate]) -> set[str]:
    """All else that holds texts or instructions of a withdrawn task, or was tuned on its rows.

    Promoted versions stay unless the withdrawal gave them up: the router works with their instructions.
    """
    tasks = set(snapshots(index, item))
    having = versions_with(index, tasks)
    stays = item.answers.get("withdrawn") == KEEP
    staying = [v for v in versions if stays and v.digest in having and v.state == "promoted"]
    assessments = {str(index.records[v.evidence]["assessment"]) for v in staying if v.evidence in index.records}
    going = {
        digest: value
        for digest, value in index.of_kind("assessment")
        if digest not in assessments and tasks & {value["task"], value["submitted_task"]}
    }
    live_reports = {str(index.records[d]["reports"].get("grouping")) for d in assessments if d in index.records}
    reports = {str(value["reports"].get("grouping")) for value in going.values()} - live_reports
    manifests = having - {v.digest for v in staying}
    return manifests | going.keys() | reports | _lost_weights(index, tasks, manifests, versions, any_stay=bool(staying))


def _lost_weights(
    index: Index, tasks: AbstractSet[str], manifests: AbstractSet[str], versions: Sequence[Candidate], *, any_stay: bool
) -> set[str]:
    """Weights tuned on withdrawn rows that no remaining version needs."""
    weights = {name for manifest in manifests for name in weights_of(index, index.records[manifest])}
    if not any_stay:
        tunings = (value for _, value in index.of_kind("tuning") if value["task"] in tasks)
        weights |= {name for value in tunings for name in weights_of(index, value)}
    staying = (v.digest for v in versions if v.state in ("promoted", "pending") and v.digest not in manifests)
    return weights - {name for d in staying if d in index.records for name in weights_of(index, index.records[d])}


def _with_images(index: Index, fate: Fate) -> Iterator[Fate]:
    """The fate of rows, and the same fate for their images."""
    yield fate
    entry = index.objects.get(fate[0])
    if entry is not None and entry.kind == "rows":
        yield from ((name, fate[1]) for name in entry.names)


def _rows(index: Index, item: QueueItem, today: date) -> Iterator[Fate]:
    """Fate of every object that holds rows of an item's task, or answers to them."""
    whole: str | None = None
    for digest, value in snapshots(index, item).items():
        retention = header(digest, dict(value)).retention
        train, no_labels, evaluation = _verdicts(item, retention, value["splits"], today)
        splits = value["splits"]
        yield splits["train"]["object"], train
        if UNLABELLED in splits:
            yield splits[UNLABELLED]["object"], no_labels
        for split in ("validation", "test"):
            yield splits[split]["object"], evaluation
        for name in index.of_task.get(("predictions", digest), ()):
            yield name, evaluation
        for name in _kept_rows(index, digest):
            yield name, _over(item, retention, today)
        if digest == item.task:
            whole = train or no_labels or evaluation
    for name in index.files_of(item.package):
        yield name, whole


def _verdicts(
    item: QueueItem, retention: Retention, splits: Mapping[str, Any], today: date
) -> tuple[str | None, str | None, str | None]:
    """Reasons why the training rows, the unlabelled ones and the evaluation rows go; None if they stay."""
    over = _over(item, retention, today)
    if over is not None or item.state not in DECIDED:
        return over, over, over
    limit, rows = retention.train_rows, splits["train"]["rows"]
    most = f"rows of {item.label}: retention.train_rows is {limit}"
    train = most if rows > limit else None
    no_labels = most if rows + splits.get(UNLABELLED, {"rows": 0})["rows"] > limit else None
    return (
        train,
        no_labels,
        None if retention.evaluation_rows else f"rows of {item.label}: retention.evaluation_rows is false",
    )


def _over(item: QueueItem, retention: Retention, today: date) -> str | None:
    """Reason why nothing at all may be kept any more; None if there is none."""
    if item.state == "withdrawn":
        return f"{item.label} was withdrawn"
    if retention.until is not None and retention.until < today:
        return f"rows of {item.label}: retention.until {retention.until} has passed"
    return None


def _kept_rows(index: Index, task: str) -> set[str]:
    """Training rows that were kept for rehearsal, and unlabelled ones for recall."""
    records = [value for _, value in index.of_kind("tuning") if value["task"] == task]
    for _, pool in index.of_kind("pool"):
        records += [entry for group in pool["groups"] for entry in group["tasks"] if entry["task"] == task]
    return {str(digest) for each in records for key in ("kept_rows", "kept_questions") if (digest := each.get(key))}


def _routes(index: Index, dead: Mapping[str, str]) -> dict[str, str]:
    """Objects that say where test instructions are routed, of tasks whose predictions go or are gone."""
    fates: list[Fate] = [
        (name, "no record refers to it") for name, entry in index.objects.items() if entry.kind == "routes"
    ]
    for _, record in index.of_kind("evaluation"):
        for name, routes in (record.get("routes") or {}).items():
            predictions = record["predictions"].get(name)
            why_gone = None if predictions in index.objects else f"rows of {name} were erased"
            if routes:
                fates.append((str(routes), dead.get(predictions, why_gone)))
    alive = {digest for digest, why in fates if why is None}
    return {digest: why for digest, why in fates if why is not None and digest not in alive}
