"""Evaluation records read together: the accuracy matrix along a lineage, and the rows that flipped."""

import functools
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal, NamedTuple

from components.evaluation.accuracy_matrix import CONFIDENCE, AccuracyMatrix
from components.evaluation.pictures import curve_png, heat_map_png, history_png
from components.evaluation.reports import Flip, FlipCount, evaluation_html
from components.evaluation.scored import scored_rows
from components.evaluation.statistics import compare
from components.grouping.pool import Pool
from components.proportions import Interval
from components.settings import EvaluationSettings
from components.storage.objects import ObjectStore
from components.tasks.snapshot import load_snapshot

Record = Mapping[str, Any]


class Stage(NamedTuple):
    """One version of a lineage, as far as its row of the accuracy matrix goes."""

    task: str | None
    """Name, in its pool, of the task that it learnt; None for a change of wordings."""
    predictions: Mapping[str, str]
    """Task name -> digest of its test predictions; without the tasks that keep no rows."""


def stage(store: ObjectStore, record: Record) -> Stage:
    """The stage that an evaluation record is about."""
    return Stage(_new_task(store, record) if record["task"] else None, record["predictions"])


def lineage_matrix(store: ObjectStore, records: Sequence[Record]) -> AccuracyMatrix:
    """`A[j, i]` of the records of a version and its ancestors, oldest first, with per-row scores."""
    return stage_matrix(store, [stage(store, record) for record in records])


def stage_matrix(store: ObjectStore, stages: Sequence[Stage], *, per_row: bool = True) -> AccuracyMatrix:
    """`A[j, i]` of stages, oldest first; without `per_row` there are no intervals, and a page of it is quick.

    Predictions that many versions carry over are looked up once. A version that learnt nothing has no row of its own:
    its predictions stand for those of the version before.
    """
    lessons: list[tuple[str, Mapping[str, str]]] = []
    for each in stages:
        if each.task is not None:
            lessons.append((each.task, each.predictions))
        elif lessons:
            lessons[-1] = (lessons[-1][0], each.predictions)
    names = [task for task, _ in lessons]
    rows = [[predictions.get(name) for name in names[: j + 1]] for j, (_, predictions) in enumerate(lessons)]
    cells = {digest: row_scores(store, digest) for digest in {cell for row in rows for cell in row}}
    if per_row:
        return AccuracyMatrix.from_scores(names, [[cells[cell] for cell in row] for row in rows])
    means = {digest: fmean(scores) if scores else None for digest, scores in cells.items()}
    return AccuracyMatrix(tuple(names), tuple(tuple(means[cell] for cell in row) for row in rows))


def task_scores(store: ObjectStore, predictions: Mapping[str, str]) -> dict[str, float]:
    """Score of each task of a version, as the last row of its matrix has it; without those that can't be measured."""
    scores = {name: row_scores(store, digest) for name, digest in predictions.items()}
    return {name: fmean(rows) for name, rows in scores.items() if rows}


def row_scores(store: ObjectStore, digest: str | None) -> tuple[float, ...]:
    """Scores of a predictions object, row by row; empty where there is none or it was erased since."""
    if digest is None or store.why_erased(digest) is not None:
        return ()
    return _row_scores(store, digest)


@functools.lru_cache(maxsize=4096)
def _row_scores(store: ObjectStore, digest: str) -> tuple[float, ...]:
    """Of an object that never changes; whether it is still there is asked each time."""
    return tuple(row["score"] for row in scored_rows(store, digest))


def flips(store: ObjectStore, record: Record, task: str | None = None) -> list[Flip]:
    """Test rows of prior tasks, or of one, whose score differs between the champion and the candidate of a record."""
    rows: list[Flip] = []
    pool = Pool.from_manifest(store.get_json(record["pool"]))
    for entry in pool.tasks():
        if task not in (None, entry.name):
            continue
        if entry.task == record["task"] or not has_predictions(store, record, entry.name):
            continue
        examples = load_snapshot(store, entry.task).rows("test")
        before = scored_rows(store, record["champion"][entry.name])
        after = scored_rows(store, record["predictions"][entry.name])
        for example, old, new in zip(examples, before, after, strict=True):
            if old["score"] != new["score"]:
                rows.append(
                    Flip(
                        task=entry.name,
                        row=example.id,
                        prompt="\n".join(filter(None, (example.instruction, example.input))),
                        expected=example.output,
                        before=old["text"],
                        after=new["text"],
                        score_before=old["score"],
                        score_after=new["score"],
                        images=tuple(picture.digest for picture in example.images),
                    )
                )
    return rows


def flip_counts(store: ObjectStore, record: Record) -> list[FlipCount]:
    """Lost and won test rows of each prior task, without any text."""
    counts = []
    for entry in Pool.from_manifest(store.get_json(record["pool"])).tasks():
        before = row_scores(store, record["champion"].get(entry.name))
        after = row_scores(store, record["predictions"].get(entry.name))
        if entry.task != record["task"] and before and after:
            gains = [new - old for old, new in zip(before, after, strict=True)]
            losses, wins = sum(gain < 0 for gain in gains), sum(gain > 0 for gain in gains)
            counts.append(FlipCount(entry.name, len(gains), losses, wins))
    return counts


def against_anchor(store: ObjectStore, record: Record) -> dict[str, Interval]:
    """Each prior task's gain since its anchor, within the record's numerics, with a two-sided interval."""
    gains = {}
    for name, digest in record["predictions"].items():
        anchor = record["anchors"][name]["predictions"]
        if record["anchors"][name]["version"] is not None and has_predictions(store, record, name):
            then, now = ([row["score"] for row in scored_rows(store, d)] for d in (anchor, digest))
            gain = compare(now, then, (1 - CONFIDENCE) / 2)
            gains[name] = Interval(gain.drop, gain.low, gain.high)
    return gains


def has_predictions(store: ObjectStore, record: Record, name: str) -> bool:
    """True if a record has predictions of a task that were not erased since (retention, a withdrawal)."""
    digest = record["predictions"].get(name)
    return digest is not None and store.why_erased(digest) is None


def report(store: ObjectStore, records: Sequence[Record], margin: float) -> str:
    """The evaluation report of the newest record, self-contained HTML."""
    newest = records[-1]
    pool = Pool.from_manifest(store.get_json(newest["pool"]))
    notes = [f"Chosen point {newest['reason']}."] if newest["task"] else []
    notes += [
        (
            f"{newest['carried']} predictions carried over by proof, {newest['predicted']} made; "
            f"{newest['recheck']['rows']} carried ones predicted again, "
            f"{len(newest['recheck']['ties'])} near ties differed."
        ),
    ]
    notes += _cut_notes(store, newest)
    notes += [f"{name}: its owner allows no evaluation rows, so its forgetting is not measurable."
              for name in newest["not_measurable"]]  # fmt: skip
    curve = curve_picture(newest, margin)
    return evaluation_html(
        lineage_matrix(store, records),
        title=f"Evaluation of {_new_task(store, newest)}" if newest["task"] else "Evaluation of a change of wordings",
        groups=pool.groups_by_name(),
        flips=flip_counts(store, newest),
        against_anchor=against_anchor(store, newest),
        pictures=[("Stability-plasticity curve on validation data", curve)] if curve else [],
        notes=notes,
        look="`lcia flips VERSION` shows them and enters who looked in the log",
    )


def _cut_notes(store: ObjectStore, record: Record) -> list[str]:
    """A sentence per task with answers that did not end within the limit."""
    notes = []
    for name, digest in record["predictions"].items():
        if store.why_erased(digest) is None:
            rows = store.get_json(digest)["rows"]
            cut = sum(row.get("cut", False) for row in rows)
            if cut:
                notes.append(f"{name}: {cut} of {len(rows)} answers were cut at decoding.max_new_tokens.")
    return notes


def pictures(store: ObjectStore, records: Sequence[Record], settings: EvaluationSettings) -> dict[str, bytes]:
    """Pictures of the newest of a lineage's records, PNG by name."""
    matrix, pool = lineage_matrix(store, records), Pool.from_manifest(store.get_json(records[-1]["pool"]))
    images = {"heat_map": heat_map_png(matrix), "history": history_png(matrix, pool.groups_by_name())}
    curve = curve_picture(records[-1], settings.choice_margin)
    return images | ({"curve": curve} if curve else {})


def curve_picture(record: Record, margin: float) -> bytes | None:
    """The curve's points with the chosen one as PNG; None if there was nothing to choose."""
    points = curve_points(record)
    return curve_png(points, record["chosen"], margin, drop=curve_drop(record)) if points else None


def curve_points(record: Record) -> list[tuple[str, float, float]]:
    """Each point's name, score of the new task and drop of the prior ones; empty with nothing to choose."""
    if "points" not in record:  # a change of wordings
        return []
    average, before, points = curve_drop(record) == "average", record["before"], []
    for p in record["points"]:
        drops = [before[task] - score for task, score in p["prior"].items()] or [0.0]
        points.append((p["name"], p["new"], fmean(drops) if average else max(drops)))
    return points if len(points) > 1 else []


def curve_drop(record: Record) -> Literal["average", "largest"]:
    """The drop that the choice looked at, of all prior tasks or of the one that drops most, as earlier releases did."""
    return "average" if any("loss" in point for point in record["points"]) else "largest"


def _new_task(store: ObjectStore, record: Record) -> str:
    pool = Pool.from_manifest(store.get_json(record["pool"]))
    return next(entry.name for entry in pool.tasks() if entry.task == record["task"])
