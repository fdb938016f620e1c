"""Thresholds from pairs known to be the same kind of work or not, and what routing costs at each threshold.

Pure functions of similarities and labels: the origin of the similarities (encoder, tasks) is the
caller's. benchmarks/grouping uses them for the shipped defaults; a team uses them on its own tasks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.errors import LciaError
from components.proportions import wilson_interval


class CalibrationError(LciaError):
    """Pairs that no threshold can be read from."""


@dataclass(frozen=True)
class Pair:
    """Similarity of two tasks, in [0, 1], and whether they are the same kind of work."""

    similarity: float
    same: bool


@dataclass(frozen=True)
class Rate:
    """`count` of `total` with the two-sided 95 % Wilson interval of the share (Wilson 1927)."""

    count: int
    total: int
    low: float
    high: float

    @classmethod
    def of(cls, count: int, total: int) -> "Rate":
        """The rate; without any trial its interval is [0, 1]."""
        interval = wilson_interval(count, total)
        return cls(count, total, interval.low, interval.high)

    @property
    def share(self) -> float:
        """`count / total`, 0 without any trial."""
        return self.count / self.total if self.total else 0.0

    def __str__(self) -> str:
        return f"{self.share:.3f} [{self.low:.3f}, {self.high:.3f}] ({self.count} of {self.total})"


@dataclass(frozen=True)
class Calibration:
    """A threshold with its review band, and what they do to the pairs.

    `wrong_joins`: different pairs at or above threshold + band, of all different pairs.
    `missed_joins`: same pairs at or below threshold - band, of all same pairs.
    `for_review`: pairs inside the band, which a person decides, of all pairs.
    """

    threshold: float
    review_band: float
    wrong_joins: Rate
    missed_joins: Rate
    for_review: Rate

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        rates = {"wrong_joins": self.wrong_joins, "missed_joins": self.missed_joins, "reviewed": self.for_review}
        return {
            "threshold": self.threshold,
            "review_band": self.review_band,
            **{name: {**vars(rate), "share": rate.share} for name, rate in rates.items()},
        }


def calibrate(pairs: Iterable[Pair], *, wrong_joins: float = 0.07, decimals: int = 2) -> Calibration:
    """The threshold that keeps the share of wrong joins to the bound, and a review band around it.

    The known-different similarities cut [0, 1] into stretches; the threshold is the middle of the lowest stretch in
    which at most `wrong_joins` of them lie above, the band its inner half. Above the highest of them the stretch
    ends at the least same similarity. Same pairs do not move the threshold: a wrong join makes one adapter learn
    unlike work, a missed one only costs an adapter more. They say what the bound costs.

    Raises:
        CalibrationError: no pair of one kind, a similarity outside [0, 1], or no threshold below 1 keeps the bound.
    """
    same, different = _split(pairs)
    low, high = _stretch(same, np.sort(different)[::-1], misses=int(wrong_joins * len(different) + 1e-9))
    threshold, band = round((low + high) / 2, decimals), round((high - low) / 4, decimals)
    everything = np.concatenate([same, different])
    return Calibration(
        threshold,
        band,
        wrong_joins=Rate.of(int((different >= threshold + band).sum()), len(different)),
        missed_joins=Rate.of(int((same <= threshold - band).sum()), len(same)),
        for_review=Rate.of(int((np.abs(everything - threshold) < band).sum()), len(everything)),
    )


def calibrate_requests(foreign: Sequence[float], *, none_share: float = 0.975, decimals: int = 2) -> float:
    """The least request threshold at which at least `none_share` of foreign requests go to the base model.

    `foreign` are the greatest similarities of requests that belong to no task of the pool. Foreign requests alone
    set the bound: a wrong adapter answers worse than the base model, while a request missed is only answered plainly.

    Raises:
        CalibrationError: no request, or a similarity outside [0, 1].
    """
    values = np.sort(_as_array(foreign, "foreign requests"))
    last = values[max(0, int(np.ceil(none_share * len(values) - 1e-9)) - 1)]
    step = 10.0**-decimals
    return round(float((np.floor(last / step + 1e-9) + 1) * step), decimals)


@dataclass(frozen=True)
class RiskPoint:
    """At `threshold`: how many requests are routed at all, and how many of those wrongly."""

    threshold: float
    coverage: Rate
    risk: Rate


def risk_coverage(similarities: Sequence[float], right: Sequence[bool]) -> list[RiskPoint]:
    """The selective-routing curve (El-Yaniv and Wiener, JMLR 2010), one point per distinct similarity, descending.

    `right[i]`: whether the nearest group is the request's own; a request that belongs to no group is never right,
    so every threshold that routes it counts it as risk.

    Raises:
        CalibrationError: lengths differ, no request, or a similarity outside [0, 1].
    """
    values = _as_array(similarities, "requests")
    if len(values) != len(right):
        raise CalibrationError(f"{len(values)} similarities and {len(right)} labels, expected as many of each")
    wrong = ~np.asarray(right, dtype=bool)
    points = []
    for threshold in np.unique(values)[::-1]:
        above = values >= threshold
        count = int(above.sum())
        points.append(
            RiskPoint(float(threshold), Rate.of(count, len(values)), Rate.of(int((wrong & above).sum()), count))
        )
    return points


def _split(pairs: Iterable[Pair]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    items = list(pairs)
    same = [pair.similarity for pair in items if pair.same]
    different = [pair.similarity for pair in items if not pair.same]
    return _as_array(same, "same pairs"), _as_array(different, "different pairs")


def _as_array(values: Sequence[float], what: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise CalibrationError(f"no {what}, expected at least one; collect more labelled pairs")
    if not ((array >= 0) & (array <= 1)).all():
        raise CalibrationError(f"{what} have similarities from {array.min():g} to {array.max():g}, expected 0 to 1")
    return array


def _stretch(same: NDArray[np.float64], different: NDArray[np.float64], misses: int) -> tuple[float, float]:
    """Ends of the lowest stretch between neighbours of `different` (descending) with at most `allowed` above it."""
    for above in range(misses, -1, -1):
        low = different[above] if above < len(different) else 0.0
        over = same[same > low]
        high = different[above - 1] if above else (over.min() if over.size else 1.0)
        if high > low:
            return float(low), float(high)
    raise CalibrationError(
        f"{int((different == different[0]).sum())} different pairs have similarity {different[0]:g}, so no threshold "
        f"joins at most {misses} of {len(different)} wrongly; raise the bound or use another encoder"
    )
