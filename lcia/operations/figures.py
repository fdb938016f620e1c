"""Scores and the accuracy matrix of a version: the one place that every list, page and report asks for them.

A task without kept test rows, or whose predictions were erased since, has no score: it leaves every mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Any

from components.errors import LciaError
from components.evaluation.accuracy_matrix import AccuracyMatrix
from components.evaluation.history import Stage, row_scores, stage, stage_matrix, task_scores
from components.storage.objects import ObjectStore
from components.tasks.replaced import replaced_tasks
from lcia.instance import Instance


class NothingToShow(LciaError):
    """There is no version yet."""


@dataclass(frozen=True)
class Line:
    """A version and its ancestors, oldest first."""

    store: ObjectStore
    versions: Sequence[str]
    """Digest of the version that each row of the matrix is about. Of what a version on another base model learnt again
    only the last is a version; a change of wordings has no row of its own."""
    stages: Sequence[Stage]

    @classmethod
    def of(cls, instance: Instance, digest: str | None) -> "Line":
        """The line that ends at a version; an empty one for None."""
        stages = [_stage(instance.store, evaluation) for evaluation in instance.lineage(digest)]
        return cls(instance.store, [str(record["candidate"]) for record in instance.learnt(digest)], stages)

    def matrix(self, *, per_row: bool = False) -> AccuracyMatrix:
        """The accuracy matrix; its intervals need `per_row`, which takes longer."""
        return stage_matrix(self.store, self.stages, per_row=per_row)


@lru_cache(maxsize=20_000)
def _stage(store: ObjectStore, evaluation: str) -> Stage:
    """Off a record that never changes: read and checked once by a process."""
    return stage(store, store.get_json(evaluation))


def scores(instance: Instance, version: str | None) -> dict[str, float]:
    """Score of each task in a version that can be measured; empty for None."""
    if version is None:
        return {}
    candidate = instance.version(version)
    assert candidate is not None  # noqa: S101 - a reference always finds one, or raises
    return task_scores(
        instance.store, _stage(instance.store, str(instance.evidence(candidate)["evaluation"])).predictions
    )


def avg_acc(instance: Instance, version: str | None) -> float | None:
    """Avg.ACC of a version, without the rest of its matrix; None where nothing can be measured."""
    return _mean(list(scores(instance, version).values()))


def mean_of_rows(store: ObjectStore, predictions: str | None) -> float | None:
    """Score of one predictions object; None where there is none or it was erased."""
    return _mean(row_scores(store, predictions))


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def accuracy_matrix(instance: Instance, version: str | None = None) -> AccuracyMatrix:
    """The accuracy matrix along the ancestors of a version (default: the champion).

    Raises:
        NothingToShow: there is no champion yet.
    """
    candidate = instance.version(version)
    if candidate is None:
        raise NothingToShow("there is no champion yet; `lcia matrix --version N` shows a candidate's matrix")
    return Line.of(instance, candidate.digest).matrix(per_row=True)


def matrix(instance: Instance, version: str | None = None) -> dict[str, Any]:
    """The accuracy matrix as JSON, with the averages of the tasks that no other replaces.

    Raises:
        NothingToShow: there is no champion yet.
    """
    figures, candidate = accuracy_matrix(instance, version), instance.version(version)
    assert candidate is not None  # noqa: S101 - there is a matrix
    successors = replaced_tasks(instance.store, instance.pool(candidate.digest), instance.replacements())
    part = figures.part([name for name in figures.tasks if name not in successors])
    return {**figures.to_json(), "superseded": successors, "family": {"avg_acc": part.avg_acc, "bwt": part.bwt}}
