"""One interval for a counted share, which grouping, data checks and evaluation all use."""

import math
from dataclasses import dataclass

import scipy

from components.errors import LciaError


class ProportionError(LciaError):
    """A count that is negative, or greater than its total."""


@dataclass(frozen=True)
class Interval:
    """An estimate with a lower and an upper bound."""

    value: float
    low: float
    high: float


def wilson_interval(count: float, total: int, alpha: float = 0.025) -> Interval:
    """Wilson's score interval of a share, each bound one-sided at `alpha`; the default is two-sided 95 %.

    Without any trial nothing is known: 0 in [0, 1]. Source: Wilson 1927, JASA 22, 209-212.

    Raises:
        ProportionError: a negative count, or one above the total.
    """
    if not 0 <= count <= total:
        raise ProportionError(f"{count} of {total}, expected a count between 0 and the total")
    if total == 0:
        return Interval(0.0, 0.0, 1.0)
    z2 = float(scipy.special.ndtri(alpha)) ** 2
    share = count / total
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = math.sqrt(z2 * (share * (1 - share) / total + z2 / (4 * total**2))) / (1 + z2 / total)
    return Interval(share, min(share, max(centre - half, 0.0)), max(share, min(centre + half, 1.0)))
