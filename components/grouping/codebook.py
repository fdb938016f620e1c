"""The instructions a pool has learnt, encoded: one unit centroid per task, and how near texts are to each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from components.grouping.encoders import Encoder, fit_encoder
from components.grouping.pool import Group
from components.settings import GroupingSettings

_DECIMALS = 6


@dataclass(frozen=True)
class Route:
    """Where one request goes: a group, or None for the base model. Similarities are cosines in [0, 1]."""

    group: str | None
    similarity: float
    runner_up: float
    nearest_task: str | None
    exact: bool


@dataclass(frozen=True)
class Codebook:
    """Unit centroids of all tasks: (tasks, columns). Of a sparse encoding only the columns that any text used."""

    encoder: Encoder
    entries: tuple[tuple[str, str, tuple[str, ...]], ...]
    groups: tuple[str, ...]
    members: NDArray[np.int64]
    columns: NDArray[np.int64] | None
    centroids: NDArray[np.float64]

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks' names, in the order of `centroids`."""
        return tuple(name for _, name, _ in self.entries)

    @classmethod
    def fit(cls, groups: Sequence[Group], settings: GroupingSettings, extra: Sequence[str] = ()) -> Self:
        """The codebook of groups under the configured encoder, fitted on their instructions and `extra`."""
        texts = [text for group in groups for entry in group.tasks for text in entry.instructions]
        return cls.of(groups, fit_encoder(settings, [*texts, *extra]), extra)

    @classmethod
    def of(cls, groups: Sequence[Group], encoder: Encoder, extra: Sequence[str] = ()) -> Self:
        """The codebook of groups under a fitted encoder; `extra` are texts whose columns are needed as well."""
        entries = tuple((group.id, entry.name, entry.instructions) for group in groups for entry in group.tasks)
        encoded = encoder.encode([text for _, _, texts in entries for text in texts])
        columns = None
        if isinstance(encoded, csr_matrix):
            columns = np.unique(np.concatenate([encoded.indices, csr_matrix(encoder.encode(extra)).indices]))
            encoded = encoded[:, columns]
        ends = np.cumsum([len(texts) for _, _, texts in entries], dtype=np.int64)
        parts = [encoded[end - len(texts) : end] for end, (_, _, texts) in zip(ends, entries, strict=True)]
        centroids = np.array([centroid(part) for part in parts]).reshape(len(parts), encoded.shape[1])
        ids = tuple(group.id for group in groups)
        members = np.array([ids.index(group) for group, _, _ in entries], dtype=np.int64)
        return cls(encoder, entries, ids, members, columns, centroids)

    def encode(self, texts: Sequence[str]) -> csr_matrix | NDArray[np.float64]:
        """Rows of texts over the codebook's columns, at most of unit length."""
        rows = self.encoder.encode(texts)
        return rows if self.columns is None else rows[:, self.columns]

    def similarities(self, rows: csr_matrix | NDArray[np.float64]) -> NDArray[np.float64]:
        """Cosines of rows with each task: (texts, tasks)."""
        if not len(self.centroids):
            return np.zeros((rows.shape[0], 0))
        return np.asarray(rows @ self.centroids.T)

    def routes(self, rows: csr_matrix | NDArray[np.float64], threshold: float) -> list[Route]:
        """The nearest group of each row, or None where it is below the threshold."""
        if not self.groups:
            return [Route(None, 0.0, 0.0, None, exact=False)] * rows.shape[0]
        best, task = self.per_group(self.similarities(rows))
        order = np.argsort(-best, axis=1, kind="stable")[:, :2]
        routes = []
        for i, first in enumerate(order[:, 0]):
            similarity = rounded(best[i, first])
            second = rounded(best[i, order[i, 1]]) if order.shape[1] > 1 else 0.0
            chosen = self.groups[first] if similarity >= threshold and similarity > 0 else None
            routes.append(Route(chosen, similarity, second, self.names[task[i, first]], exact=False))
        return routes

    def per_group(self, similarities: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Best similarity of each group and the task it comes from: two arrays (texts, groups)."""
        best = np.zeros((len(similarities), len(self.groups)))
        task = np.zeros((len(similarities), len(self.groups)), dtype=np.int64)
        for g in range(len(self.groups)):
            tasks = np.flatnonzero(self.members == g)
            part = similarities[:, tasks]
            task[:, g] = tasks[part.argmax(axis=1)]
            best[:, g] = part.max(axis=1)
        return best, task


def centroid(rows: csr_matrix | NDArray[np.float64]) -> NDArray[np.float64]:
    """The unit vector towards the mean of the rows."""
    mean = np.asarray(rows.mean(axis=0)).ravel()
    norm = float(np.linalg.norm(mean))
    unit: NDArray[np.float64] = mean / norm if norm > 0 else mean
    return unit


def rounded(value: float) -> float:
    """A cosine as it is stored and shown: in [0, 1], six decimals."""
    return round(min(max(float(value), 0.0), 1.0), _DECIMALS)
