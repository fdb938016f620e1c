"""The instructions a pool has learnt, encoded: one unit centroid per task, and how near texts are to each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy
from numpy.typing import NDArray

from components.grouping.encoders import Encoder, Vectors, fit_encoder
from components.grouping.inputs import TypicalInputs, evidence
from components.grouping.pool import Group
from components.grouping.route import UNROUTED, Route
from components.settings import GroupingSettings

_DECIMALS = 6
_TIE = 0.5 * 10**-_DECIMALS
"""Similarities that are shown alike are alike: the last bits of a product differ between machines."""


@dataclass(frozen=True)
class Codebook:
    """Unit centroids of all tasks: (tasks, columns). Of a sparse encoding only the columns that any text used.

    `starts[g]` is the first task of group g; a group's tasks stand together. Of tasks whose similarities differ by at
    most `tie` the one of the highest rank is the nearest.
    """

    encoder: Encoder
    entries: tuple[tuple[str, str, tuple[str, ...]], ...]
    groups: tuple[str, ...]
    starts: NDArray[np.int64]
    ranks: NDArray[np.int64]
    tie: float
    columns: NDArray[np.int64] | None
    centroids: NDArray[np.float64]
    inputs: TypicalInputs

    @classmethod
    def fit(
        cls,
        groups: Sequence[Group],
        settings: GroupingSettings,
        extra: Sequence[str] = (),
        precedence: Sequence[str] | None = None,
    ) -> Self:
        """The codebook of groups by the instructions of their rows alone, as tasks are placed; see `of`.

        The configured encoder is fitted on those and `extra`.
        """
        bare = [replace(group, tasks=tuple(replace(t, wordings=()) for t in group.tasks)) for group in groups]
        return cls.of(bare, fit_encoder(settings, [*texts_of(bare), *extra]), extra, precedence)

    @classmethod
    def of(
        cls,
        groups: Sequence[Group],
        encoder: Encoder,
        extra: Sequence[str] = (),
        precedence: Sequence[str] | None = None,
    ) -> Self:
        """The codebook of groups under a fitted encoder; `extra` are texts whose columns are needed as well.

        `precedence` is the pool's: names of tasks, of which the last wins a tie; None: the first in the pool does.
        """
        entries = tuple((group.id, entry.name, entry.texts) for group in groups for entry in group.tasks)
        vectors = encoder.encode([text for _, _, texts in entries for text in texts])
        columns = None
        csr_matrix = scipy.sparse.csr_matrix  # here, since SciPy loads this part of itself at its first use
        if isinstance(vectors, csr_matrix):
            columns = np.unique(np.concatenate([vectors.indices, csr_matrix(encoder.encode(extra)).indices]))
            vectors = vectors[:, columns]
        sizes = np.array([len(texts) for _, _, texts in entries], dtype=np.int64)
        spans = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
        ones = csr_matrix((np.ones(spans[-1]), np.arange(spans[-1]), spans), shape=(len(entries), vectors.shape[0]))
        sums = ones @ vectors
        centroids = unit_rows(np.asarray(sums.todense() if isinstance(sums, csr_matrix) else sums))
        starts = np.cumsum([0, *(len(group.tasks) for group in groups)], dtype=np.int64)[:-1]
        ids = tuple(group.id for group in groups)
        inputs = encoder.typical_inputs([entry.inputs for group in groups for entry in group.tasks])
        if precedence is None:
            return cls(encoder, entries, ids, starts, -np.arange(len(entries)), 0.0, columns, centroids, inputs)
        ranks = np.array([precedence.index(name) for _, name, _ in entries], dtype=np.int64)
        return cls(encoder, entries, ids, starts, ranks, _TIE, columns, centroids, inputs)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Rows of texts over the codebook's columns, at most of unit length."""
        return self.narrow(self.encoder.encode(texts))

    def narrow(self, rows: Vectors) -> Vectors:
        """Rows of the encoder over the codebook's columns."""
        return rows if self.columns is None else rows[:, self.columns]

    def similarities(self, rows: Vectors) -> NDArray[np.float64]:
        """Cosines of rows with each task: (texts, tasks)."""
        if not len(self.centroids):
            return np.zeros((rows.shape[0], 0))
        return np.asarray(rows @ self.centroids.T)

    def evidence(self, inputs: Sequence[str | None]) -> NDArray[np.float64]:
        """Evidence of inputs against each task, at most 0: (inputs, tasks); 0 where there is no input."""
        places = [place for place, text in enumerate(inputs) if text and text.strip()]
        penalties = np.zeros((len(inputs), len(self.entries)))
        if places:
            penalties[places] = evidence(self.inputs.log_ratios([str(inputs[place]) for place in places]))
        return penalties

    def routes(
        self,
        rows: Vectors,
        penalties: NDArray[np.float64],
        thresholds: Sequence[float],
    ) -> list[Route]:
        """The nearest group of each row, None if it is below its threshold; `penalties` is `evidence` of the inputs."""
        return self.routes_by(self.similarities(rows), penalties, thresholds)

    def routes_by(
        self, similarities: NDArray[np.float64], penalties: NDArray[np.float64], thresholds: Sequence[float]
    ) -> list[Route]:
        """The same from similarities to each task: (requests, tasks)."""
        if not self.groups:
            return [UNROUTED] * len(similarities)
        scores = similarities + penalties
        best = self.per_group(scores)
        nearest = self.nearest(scores)
        groups = np.searchsorted(self.starts, nearest, side="right") - 1
        each = np.arange(len(best))
        best[each, groups] = -1.0
        routes = []
        for i in range(len(best)):
            near, second = float(similarities[i, nearest[i]]), int(best[i].argmax()) if len(self.groups) > 1 else None
            score = six_digits(near) + round(float(penalties[i, nearest[i]]), _DECIMALS)
            routes.append(
                Route(
                    self.groups[groups[i]] if score >= thresholds[i] and near > 0 else None,
                    six_digits(near),
                    0.0 if second is None else six_digits(best[i, second]),
                    self.entries[nearest[i]][1],
                    exact=False,
                    evidence=round(float(penalties[i, nearest[i]]), _DECIMALS),
                    threshold=thresholds[i],
                    second_task=None if second is None else self.entries[self.nearest_of(scores[i], second)][1],
                )
            )
        return routes

    def per_group(self, similarities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Similarity to each group, that of its nearest task: (texts, tasks) to (texts, groups)."""
        best: NDArray[np.float64] = np.maximum.reduceat(similarities, self.starts, axis=1)
        return best

    def nearest(self, similarities: NDArray[np.float64]) -> NDArray[np.int64]:
        """The nearest task of each text: (texts, tasks) to (texts,)."""
        near = similarities >= similarities.max(axis=1, keepdims=True) - self.tie
        places: NDArray[np.int64] = np.where(near, self.ranks, np.iinfo(np.int64).min).argmax(axis=1)
        return places

    def nearest_of(self, similarities: NDArray[np.float64], group: int) -> int:
        """The group's task that one text, with its similarities (tasks,), is nearest to."""
        start = int(self.starts[group])
        end = int(self.starts[group + 1]) if group + 1 < len(self.starts) else len(similarities)
        others = np.full(len(similarities), -1.0)
        others[start:end] = similarities[start:end]
        return int(self.nearest(others[None, :])[0])


def texts_of(groups: Sequence[Group]) -> list[str]:
    """All ways to ask for the tasks of groups."""
    return [text for group in groups for entry in group.tasks for text in entry.texts]


def centroid(rows: Vectors) -> NDArray[np.float64]:
    """The unit vector towards the mean of the rows: (columns,)."""
    unit: NDArray[np.float64] = unit_rows(np.asarray(rows.sum(axis=0)).reshape(1, -1))[0]
    return unit


def unit_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows at unit length; zeros stay zeros."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit


def six_digits(value: float) -> float:
    """A cosine as it is stored and shown: in [0, 1], six decimals."""
    return round(min(max(float(value), 0.0), 1.0), _DECIMALS)
