"""Requests that a task's owner did not write, as far as they can be had: each of its own wordings, left out in turn.

A test row's instruction is nearly always one of the codebook's own, so it says nothing about people's words. Left out
of its task, a wording is what somebody else might have typed.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy

if TYPE_CHECKING:  # at run time these would load much for programs that only read the counts
    from components.grouping.codebook import Codebook
    from components.grouping.router import Router

MOST_TEXTS = 200
"""Wordings of a task that are left out in turn."""


@dataclass(frozen=True)
class Rewording:
    """Requests in other words under a candidate and the version before it."""

    new_right: int
    """Left-out wordings of the new task that still reach its group, of `new_of`."""
    new_of: int
    prior_right: int
    """The same for all earlier tasks, of `prior_of`."""
    prior_of: int
    prior_lost: int
    """Wordings of earlier tasks that reached their group before, and don't now."""
    let_in: int
    """General requests, which belong to no task, that reach one, of `general`."""
    general: int

    @classmethod
    def of(cls, candidate: "Router", before: "Router", new: str) -> Self:
        """Compare two versions; `new` is the task that the candidate learnt."""
        now, then = left_out(candidate), left_out(before)
        prior = {key: right for key, right in now.items() if key[0] != new}
        own = [right for key, right in now.items() if key[0] == new]
        routes = candidate.general_routes()
        return cls(
            sum(own),
            len(own),
            sum(prior.values()),
            len(prior),
            sum(then.get(key, False) and not right for key, right in prior.items()),
            sum(route.group is not None for route in routes),
            len(routes),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read back `to_json`."""
        return cls(**value)


def left_out(router: "Router") -> dict[tuple[str, str], bool]:
    """By task and wording: does the wording reach the task's group if the task does not have it?

    Tasks of a single wording, and wordings that several tasks share, are not in it.
    """
    book = router.codebook
    owners = Counter(text for _, _, texts in book.entries for text in texts)
    out: dict[tuple[str, str], bool] = {}
    for place, (group, name, every) in enumerate(book.entries):
        texts = every[:MOST_TEXTS]
        if len(texts) < 2:
            continue
        similarities = _without_itself(book, place, texts)
        routes = book.routes_by(similarities, np.zeros_like(similarities), [router.threshold] * len(texts))
        out |= {(name, t): r.group == group for t, r in zip(texts, routes, strict=True) if owners[t] == 1}
    return out


def _without_itself(book: "Codebook", place: int, texts: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Similarities of a task's texts to every task, its own without the text itself: (texts, tasks)."""
    from components.grouping.codebook import unit_rows

    rows = book.encode(texts)
    dense = np.asarray(rows.todense() if isinstance(rows, scipy.sparse.csr_matrix) else rows)
    similarities = book.similarities(rows).copy()
    similarities[:, place] = (dense * unit_rows(dense.sum(axis=0) - dense)).sum(axis=1)
    return similarities
