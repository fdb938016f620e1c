"""Scores of a stream row by row, and the figures of its accuracy matrix, all by the product's own functions.

ROUGE-L is the product's (F1 over lower-cased words, without stemming), against the best of a row's references: the
product itself knows the first one only, and its gate judges by that.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluation.accuracy_matrix import AccuracyMatrix
from components.evaluation.history import stage
from components.evaluation.metrics import rouge_l
from components.evaluation.scored import scored_rows
from components.proportions import Interval
from components.tasks.rows import Example, even_text
from components.tasks.snapshot import load_snapshot
from lcia.instance import Instance

Cells = Sequence[Sequence[float]]
"""Scores of the test rows of each task."""
Triangle = list[list[list[float]]]
"""`scores[j][i]`, i <= j: the test rows' scores of task i after task j."""


def best_scores(
    texts: Sequence[str | None], rows: Sequence[Example], references: Mapping[str, tuple[str, ...]]
) -> list[float]:
    """ROUGE-L of each answer against the best of its references."""
    pairs = zip(texts, rows, strict=True)
    return [max(rouge_l(text or "", each) for each in references[even_text(row.input or "")]) for text, row in pairs]


def stream_scores(
    instance: Instance, references: Mapping[str, Mapping[str, tuple[str, ...]]]
) -> tuple[list[str], Triangle]:
    """Names of the tasks along the champion's line, and their scores after each."""
    store, champion = instance.store, instance.champion()
    records = [store.get_json(digest) for digest in instance.lineage(champion.digest)] if champion else []
    stages = [stage(store, record) for record in records]
    names = [one.task for one in stages]
    cells: dict[str, list[float]] = {}
    for one in stages:
        for name, digest in one.predictions.items():
            if digest not in cells:
                rows = load_snapshot(store, store.get_json(digest)["task"]).rows("test")
                cells[digest] = best_scores([row["text"] for row in scored_rows(store, digest)], rows, references[name])
    return names, [[cells[one.predictions[name]] for name in names[: j + 1]] for j, one in enumerate(stages)]


def difference(
    names: Sequence[str], reference: Sequence[Sequence[float]], other: Sequence[Sequence[float]]
) -> Interval:
    """AP of `other` minus AP of `reference`, final scores of the same rows by task, with a paired interval.

    That is the BWT of a matrix in which each task scored `reference` when learnt and `other` after one more task.
    """
    rows: list[list[Sequence[float]]] = [list(reference[: j + 1]) for j in range(len(names))]
    matrix = AccuracyMatrix.from_scores([*names, "end"], [*rows, [*other, ()]])
    return matrix.intervals["bwt"]


def figures(line: Mapping[str, Any]) -> AccuracyMatrix:
    """The matrix of a line of the results file."""
    return AccuracyMatrix.from_scores(line["tasks"], line["scores"])
