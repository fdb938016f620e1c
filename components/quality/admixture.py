"""Rows of a task that are unlike the rest: which of `current` have nothing like them in `reference`.

A tenth of foreign rows barely moves a measure over all rows (ROC area .51 to .54), so the tail is looked at. A row's
score is the sum of two, each in standard deviations of the reference: how far its nearest neighbours in the
reference are, and how surely a classifier (out of fold) calls it `current`. The first alone fails where the reference
is varied, the second where the foreign rows are few; together they find most (benchmarks/quality). A row is unlike
when its score lies beyond what `TAIL` of the reference's own rows reach; without an admixture that share is `TAIL`.
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
"""Most rows of a side that are looked at, the first ones: callers draw at random."""
Z98 = 2.0537489106318225
"""One-sided 98 %: the finding is a warning, and one in forty clean tasks may get it."""


@dataclass(frozen=True)
class Unlike:
    """The excess share of unlike rows over what the reference shows itself, and which rows they are.

    The excess is at most the share of foreign rows, often much less; each of its bounds holds with 98 %.
    """

    excess: Interval
    rows: tuple[int, ...]
    """Places in `current` from 0, the most unlike first."""


def unlike_rows(reference: Sequence[str], current: Sequence[str], seed: int) -> Unlike | None:
    """Look for an admixture in `current`; None where a side has fewer than `LEAST_ROWS` texts."""
    reference, current = reference[:DRAWN], current[:DRAWN]
    if min(len(reference), len(current)) < LEAST_ROWS:
        return None
    vectors = text_vectors([*reference, *current])
    old, new = vectors[: len(reference)], vectors[len(reference) :]
    among = (old @ old.T).toarray()
    np.fill_diagonal(among, -1.0)
    far = _standardised(-_nearest(among), -_nearest((new @ old.T).toarray()))
    told = _standardised(*out_of_fold_scores(old, new, seed, balanced=True))
    return _tail(far[0] + told[0], far[1] + told[1])


def _nearest(similarities: Numbers) -> Numbers:
    """Per row the mean of its greatest similarities."""
    top: Numbers = np.partition(similarities, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:].mean(axis=1)
    return top


def _standardised(reference: Numbers, current: Numbers) -> tuple[Numbers, Numbers]:
    mean, spread = reference.mean(), max(float(reference.std()), 1e-12)
    return (reference - mean) / spread, (current - mean) / spread


def _tail(reference: Numbers, current: Numbers) -> Unlike:
    bound = np.quantile(reference, 1 - TAIL)
    beyond = current > bound
    own, share = float((reference > bound).mean()), float(beyond.mean())
    pooled = (share * len(current) + own * len(reference)) / (len(current) + len(reference))
    half = Z98 * sqrt(pooled * (1 - pooled) * (1 / len(current) + 1 / len(reference)))  # the bound is estimated too
    rows = tuple(int(place) for place in np.argsort(-current, kind="stable") if beyond[place])
    excess = share - own
    return Unlike(Interval(excess, excess - half, min(1.0, excess + half)), rows)
