"""Rows of a task that are unlike the rest: rows of `current` with nothing like them in `reference`.

A tenth of foreign rows barely moves a measure over all rows (ROC area .51 to .54), so this looks at the tail. A row's
score is the sum of two, each in standard deviations of the reference: the distance to its nearest neighbours in the
reference, and the certainty with which a classifier (out of fold) calls it `current`. The first alone fails if the
reference is varied, the second if the foreign rows are few; together they find most (benchmarks/quality). A row is
unlike the rest if its score is beyond all but `TAIL` of the reference's own rows; without an admixture the share of
such rows is `TAIL`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from components.proportions import Interval
from components.quality.two_samples import Numbers, out_of_fold_scores, text_vectors

TAIL = 0.05
NEIGHBOURS = 3
LEAST_ROWS = 60
"""Fewer rows on a side say nothing about a tail."""
DRAWN = 1500
"""Most rows of a side that count, the first ones: callers put them in random order."""
Z98 = 2.0537489106318225
"""One-sided 98 %: the finding is a warning, and one in forty clean tasks may get it."""


@dataclass(frozen=True)
class Unlike:
    """The share of unlike rows in excess of the reference's own, and these rows.

    The excess is at most the share of foreign rows, often much less; each of its bounds holds with 98 %.
    """

    excess: Interval
    rows: tuple[int, ...]
    """Places in `current` from 0, the most unlike first."""


def unlike_rows(reference: Sequence[str], current: Sequence[str], seed: int) -> Unlike | None:
    """Look for an admixture in `current`; None if a side has fewer than `LEAST_ROWS` texts."""
    reference, current = reference[:DRAWN], current[:DRAWN]
    if min(len(reference), len(current)) < LEAST_ROWS:
        return None
    vectors = text_vectors([*reference, *current])
    old, new = vectors[: len(reference)], vectors[len(reference) :]
    among = (old @ old.T).toarray()
    np.fill_diagonal(among, -1.0)  # a row is no neighbour of itself
    far = _standardise(-_nearest(among), -_nearest((new @ old.T).toarray()))
    certainty = _standardise(*out_of_fold_scores(old, new, seed, even=True))
    return _tail(far[0] + certainty[0], far[1] + certainty[1])


def _nearest(similarities: Numbers) -> Numbers:
    """Per row the mean of its `NEIGHBOURS` greatest similarities."""
    top: Numbers = np.partition(similarities, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:].mean(axis=1)
    return top


def _standardise(reference: Numbers, current: Numbers) -> tuple[Numbers, Numbers]:
    mean, spread = reference.mean(), max(float(reference.std()), 1e-12)
    return (reference - mean) / spread, (current - mean) / spread


def _tail(reference: Numbers, current: Numbers) -> Unlike:
    limit = np.quantile(reference, 1 - TAIL)
    beyond = current > limit
    own, share = float((reference > limit).mean()), float(beyond.mean())
    overall = (share * len(current) + own * len(reference)) / (len(current) + len(reference))
    # both sides count: the limit is an estimate too
    half = Z98 * sqrt(overall * (1 - overall) * (1 / len(current) + 1 / len(reference)))
    rows = tuple(int(place) for place in np.argsort(-current, kind="stable") if beyond[place])
    excess = share - own
    return Unlike(Interval(excess, excess - half, min(1.0, excess + half)), rows)
