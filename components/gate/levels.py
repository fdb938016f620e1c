"""The gate's looks at test rows: the rows of the first look, the reserve, and the error level of each look.

A share of each task's test rows can be a reserve. It is opened only for comparisons that the other rows left
inconclusive, so it wears out more slowly. Alpha spending pays for looking twice: both looks together err as often as
one look at the whole level would (Lan and DeMets 1983, Biometrika 70, 659-663).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_FAR = 9.0
"""Standard deviations beyond which a normal distribution is taken to be empty."""


@dataclass(frozen=True)
class Levels:
    """One-sided error levels of the two looks; without a reserve there is only the first, at the whole level."""

    first: float
    """Of the first look, for passing and for failing."""
    second: float
    """Of a bound over all rows, where the first look was inconclusive."""
    second_fail: float
    """Of Holm's test over all rows: what the first look left, as no correlation is counted on over many tasks."""


def reserve_rows(ids: Sequence[str], share: float) -> tuple[bool, ...]:
    """True for each row of the reserve: the `share` of the rows with the smallest digests.

    Digests follow from the rows' content alone, so nobody chooses the reserve, and submitting a task fixes it.
    """
    order = sorted(range(len(ids)), key=lambda i: (ids[i], i))
    reserve = set(order[: round(share * len(ids))])
    return tuple(i in reserve for i in range(len(ids)))


def anchor_level(alpha: float, look: int) -> float:
    """Level of the k-th look at a task's anchor, `alpha / k^2`.

    Every candidate that changes a task is compared with the same rows of the same anchor, and the champion it starts
    from was chosen by such comparisons, so luck adds up. Tested at `alpha` each time, a lineage that keeps trying ends
    beyond its budget more often than not (benchmarks/gate); at `alpha / k^2` it seldom does.
    """
    return alpha / look**2


@lru_cache(maxsize=256)
def look_levels(alpha: float, share: float) -> Levels:
    """Levels of a look at all rows but the reserve and of one at all rows, `alpha` together.

    The first look spends the part of `alpha` that its rows are of all rows (Kim and DeMets 1987, Biometrika 74,
    149-154, rho = 1). The statistics of the looks correlate by `sqrt(1 - share)`; the second level makes the
    probability that either look errs `alpha`.
    """
    if share == 0:
        return Levels(alpha, 0.0, 0.0)
    first = alpha * (1 - share)
    second = float(scipy.optimize.brentq(lambda level: _either(first, level, share) - alpha, alpha * 1e-3, alpha))
    return Levels(first, second, alpha - first)


def _either(first: float, second: float, share: float) -> float:
    """Probability that a standard normal is below its `first` quantile, or a correlated one below its `second`."""
    low, correlation = float(scipy.special.ndtri(first)), float(np.sqrt(1 - share))
    half = (_FAR - low) / 2
    z = low + half * (_NODES + 1)
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    later = scipy.special.ndtr((scipy.special.ndtri(second) - correlation * z) / np.sqrt(share))
    return first + float(half * (_WEIGHTS * density * later).sum())
