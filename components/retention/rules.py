"""Which stored texts of a task may stay, by its owner's `retention` and by what became of it.

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
"""States in which nothing more is learnt from a task's rows, unless it is submitted again."""
KEEP, REFUSE = "keep", "refuse"
"""What a withdrawal did with the versions tuned on the rows; kept as the answer `withdrawn` of the queue item."""

Fate = tuple[str, str | None]
"""An object's digest and why it dies; None: it may stay."""


def doomed(index: Index, items: Sequence[QueueItem], versions: Sequence[Candidate], today: date) -> dict[str, str]:
    """Digest -> why, of every stored object that holds texts which may not be kept."""
    fates = [fate for item in items for rows in _rows(index, item, today) for fate in _with_images(index, rows)]
    allowed = {digest for digest, why in fates if why is None}
    dead = {digest: why for digest, why in fates if why is not None and digest not in allowed}
    dead |= _routes(index, dead)
    for item in items:
        if item.state == "withdrawn":
            dead |= dict.fromkeys(_instructions(index, item, versions), f"{label(item)} was withdrawn")
    return {digest: why for digest, why in dead.items() if digest in index.objects}


def snapshots(index: Index, item: QueueItem) -> dict[str, Mapping[str, Any]]:
    """Task objects of an item: as it was submitted, and without the rows that were set aside."""
    found = {item.task} if item.task else set()
    found |= {str(value["task"]) for _, value in index.of_kind("assessment") if value["submitted_task"] == item.task}
    return {digest: index.records[digest] for digest in sorted(found) if digest in index.records}


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
        found = [group[part] for group in record["groups"] for part in ("adapter", "curvature")]
    else:
        merge = record.get("merge") or {}
        found = [*record["points"].values(), record["curvature"], merge.get("adapter"), merge.get("curvature")]
    return {name for digest in found if digest for name in index.files_of(str(digest))}


def _instructions(index: Index, item: QueueItem, versions: Sequence[Candidate]) -> set[str]:
    """Whatever else holds texts of a withdrawn task, its instructions, or was tuned on its rows.

    Versions that were promoted stay unless the withdrawal gave them up: the router works with their instructions.
    """
    tasks = set(snapshots(index, item))
    having = versions_with(index, tasks)
    stays = item.answers.get("withdrawn") == KEEP
    kept = [v for v in versions if stays and v.digest in having and v.state == "promoted"]
    needed = {str(index.records[v.evidence]["assessment"]) for v in kept if v.evidence in index.records}
    gone = {
        digest: value
        for digest, value in index.of_kind("assessment")
        if digest not in needed and tasks & {value["task"], value["submitted_task"]}
    }
    shown = {str(index.records[d]["reports"].get("grouping")) for d in needed if d in index.records}
    reports = {str(value["reports"].get("grouping")) for value in gone.values()} - shown
    manifests = having - {v.digest for v in kept}
    return manifests | gone.keys() | reports | _lost_weights(index, tasks, manifests, versions, kept=bool(kept))


def _lost_weights(
    index: Index, tasks: AbstractSet[str], manifests: AbstractSet[str], versions: Sequence[Candidate], *, kept: bool
) -> set[str]:
    """Weights tuned on withdrawn rows that no version needs which stays."""
    lost = {name for manifest in manifests for name in weights_of(index, index.records[manifest])}
    if not kept:
        tunings = (value for _, value in index.of_kind("tuning") if value["task"] in tasks)
        lost |= {name for value in tunings for name in weights_of(index, value)}
    staying = (v.digest for v in versions if v.state in ("promoted", "pending") and v.digest not in manifests)
    return lost - {name for d in staying if d in index.records for name in weights_of(index, index.records[d])}


def _with_images(index: Index, fate: Fate) -> Iterator[Fate]:
    """The images of rows share the fate of the rows."""
    yield fate
    held = index.objects.get(fate[0])
    if held is not None and held.kind == "rows":
        yield from ((name, fate[1]) for name in held.names)


def _rows(index: Index, item: QueueItem, today: date) -> Iterator[Fate]:
    """Every object that holds rows of an item's task or answers to them."""
    whole: str | None = None
    for digest, value in snapshots(index, item).items():
        kept = header(digest, dict(value)).retention
        train, unlabelled, evaluated = _verdicts(item, kept, value["splits"], today)
        splits = value["splits"]
        yield splits["train"]["object"], train
        if UNLABELLED in splits:
            yield splits[UNLABELLED]["object"], unlabelled
        for split in ("validation", "test"):
            yield splits[split]["object"], evaluated
        for name in index.of_task.get(("predictions", digest), ()):
            yield name, evaluated
        for name in _kept_rows(index, digest):
            yield name, _over(item, kept, today)
        if digest == item.task:
            whole = train or unlabelled or evaluated
    for name in index.files_of(item.package):
        yield name, whole


def _verdicts(
    item: QueueItem, kept: Retention, splits: Mapping[str, Any], today: date
) -> tuple[str | None, str | None, str | None]:
    """Why the training rows, the unlabelled ones and the evaluation rows die, if they do."""
    over = _over(item, kept, today)
    if over is not None or item.state not in DECIDED:
        return over, over, over
    limit, rows = kept.train_rows, splits["train"]["rows"]
    most = f"rows of {label(item)}: retention.train_rows is {limit}"
    train = most if rows > limit else None
    unlabelled = most if rows + splits.get(UNLABELLED, {"rows": 0})["rows"] > limit else None
    return (
        train,
        unlabelled,
        None if kept.evaluation_rows else f"rows of {label(item)}: retention.evaluation_rows is false",
    )


def _over(item: QueueItem, kept: Retention, today: date) -> str | None:
    """Why nothing at all may be kept any more."""
    if item.state == "withdrawn":
        return f"{label(item)} was withdrawn"
    if kept.until is not None and kept.until < today:
        return f"rows of {label(item)}: retention.until {kept.until} has passed"
    return None


def _kept_rows(index: Index, task: str) -> set[str]:
    """Training rows that were kept for rehearsal."""
    found = {value["kept_rows"] for _, value in index.of_kind("tuning") if value["task"] == task}
    for _, pool in index.of_kind("pool"):
        entries = (entry for group in pool["groups"] for entry in group["tasks"])
        found |= {entry["kept_rows"] for entry in entries if entry["task"] == task}
    return {str(digest) for digest in found if digest}


def _routes(index: Index, dead: Mapping[str, str]) -> dict[str, str]:
    """Which test instruction goes where, of tasks whose predictions die or are gone."""
    fates: list[Fate] = [
        (name, "no record refers to it") for name, held in index.objects.items() if held.kind == "routes"
    ]
    for _, record in index.of_kind("evaluation"):
        for name, routes in (record.get("routes") or {}).items():
            predictions = record["predictions"].get(name)
            gone = None if predictions in index.objects else f"rows of {name} were erased"
            if routes:
                fates.append((str(routes), dead.get(predictions, gone)))
    allowed = {digest for digest, why in fates if why is None}
    return {digest: why for digest, why in fates if why is not None and digest not in allowed}


def label(item: QueueItem) -> str:
    """`name@version`, as people call it."""
    return f"{item.name}@{item.version}"
