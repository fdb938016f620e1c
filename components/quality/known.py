"""Need we train at all? Not if the champion does the task already: shown by its score on rows it has not seen.

Two ways to show it, both with one-sided 95 % confidence. Where the owner set a target: Wilson's lower bound of the
champion's score is at or above it. Where not: drift says that the task is a known one, and the champion's score on
it is not worse than on that task, by a margin (Newcombe 1998, method 10, for independent shares). Similar data alone
never suffice: labels may have changed. For scores between 0 and 1 the intervals are wider than need be, never
narrower, as no such score varies more than hits do.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, Self

from components.proportions import Interval, wilson_interval
from components.settings import KnownSettings

ALPHA = 0.05


@dataclass(frozen=True)
class ChampionScore:
    """How the champion, routed as at inference, does on a new task's validation rows."""

    score: float
    rows: int
    resembled: str | None
    """`name@version` of the earlier task it is compared with."""
    resembled_score: float | None
    """The champion's score on that task's test rows."""
    resembled_rows: int

    def to_json(self) -> dict[str, Any]:
        """For the drift record."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read back `to_json`."""
        return cls(**value)

    @property
    def interval(self) -> Interval:
        """The score with its one-sided 95 % bounds."""
        return _interval(self.score, self.rows)

    @property
    def shortfall(self) -> Interval | None:
        """How much worse it is than on the task it resembles, with one-sided 95 % bounds."""
        if self.resembled_score is None or self.resembled_rows == 0:
            return None
        new, old = self.interval, _interval(self.resembled_score, self.resembled_rows)
        worse = old.value - new.value
        return Interval(
            worse,
            worse - sqrt((old.value - old.low) ** 2 + (new.high - new.value) ** 2),
            worse + sqrt((old.high - old.value) ** 2 + (new.value - new.low) ** 2),
        )


@dataclass(frozen=True)
class Known:
    """Whether the champion does a task already, and why, in words."""

    known: bool
    words: str


def judge_known(
    champion: ChampionScore | None, skipped: str, drift: str, target: float | None, settings: KnownSettings
) -> Known:
    """Decide; `skipped` says why there is no score where there is none."""
    if champion is None:
        return Known(known=False, words=f"the champion was not tried on it: {skipped}")
    seen = champion.interval
    said = f"the champion scores {seen.value:.3f} on {champion.rows} of its validation rows"
    if target is not None:
        bound = f"at least {seen.low:.3f} with 95 % confidence; its owner's target is {target:.3f}"
        return Known(known=seen.low >= target, words=f"{said}, {bound}")
    short = champion.shortfall
    if drift == "known" and short is None and champion.resembled is not None:
        gone = f"not checked against its score on {champion.resembled}: no predictions of that task are kept"
        return Known(known=False, words=f"{said}; {gone}")
    if drift != "known" or short is None:
        return Known(known=False, words=said)
    words = (
        f"{said}, on {champion.resembled} {champion.resembled_score:.3f}: at most {max(short.high, 0):.3f} worse with "
        f"95 % confidence; allowed {settings.margin:.3f}"
    )
    return Known(known=short.high <= settings.margin, words=words)


def _interval(score: float, rows: int) -> Interval:
    return wilson_interval(score * rows, rows, ALPHA)
