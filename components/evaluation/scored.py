"""Scores of stored predictions under the present segmentation of words.

Texts of scripts without spaces score by words that a dictionary cuts. A predictions object with such texts names the
segmentation its scores rest on; if that is another one, or none as in objects of an earlier release, its rows are
scored again from their texts. Objects without such texts name none, and their scores stand for ever.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from components.evaluation.metrics import BY_WORDS, METRICS
from components.storage.objects import ObjectMissing, ObjectStore
from components.tasks.snapshot import load_snapshot
from components.words import is_unspaced, segmentation

Rows = list[dict[str, Any]]


def scored_rows(store: ObjectStore, digest: str) -> Rows:
    """Rows of a predictions object, their scores under the present segmentation."""
    rows: Rows = _present(store, store.get_json(digest))["rows"]
    return rows


def with_present_scores(store: ObjectStore, digest: str) -> str:
    """Digest of the predictions with present scores: the same one if no score rests on another segmentation."""
    record = store.get_json(digest)
    present = _present(store, record)
    return digest if present is record else store.put_json(dict(present))


def mean_score(rows: Rows) -> float:
    """Mean score of rows, 0 without any."""
    return sum(row["score"] for row in rows) / len(rows) if rows else 0.0


def words_mark(metric: str, texts: Iterable[str | None]) -> dict[str, str]:
    """The part of a predictions object that names the segmentation: empty if no text of it is cut by a dictionary."""
    depends = metric in BY_WORDS and any(is_unspaced(text) for text in texts if text)
    return {"words": segmentation()} if depends else {}


def _present(store: ObjectStore, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record itself if its scores are present ones, or if the references to score by were erased."""
    try:
        snapshot = load_snapshot(store, record["task"])
        metric = snapshot.task.metric
        if metric not in BY_WORDS or record.get("words") == segmentation():
            return record
        references = [example.output for example in snapshot.rows(record["split"])]
    except ObjectMissing:
        return record
    rows = record["rows"]
    mark = words_mark(metric, [*references, *(row["text"] for row in rows)])
    if not mark:
        return record
    score = METRICS[metric]
    again = [
        {**row, "score": row["score"] if row["text"] is None else score(row["text"], reference)}
        for row, reference in zip(rows, references, strict=True)
    ]
    return {**record, "rows": again, **mark}
