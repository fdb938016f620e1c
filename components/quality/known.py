"""Tasks that need no training: the champion does them already, as its score on rows it has not seen shows.

Two ways to show it, both with one-sided 95 % confidence. If the owner set a target: Wilson's lower bound of the
champion's score reaches it. If not: the drift check calls the task known, and the champion scores at most a margin
worse on it than on the task it resembles (Newcombe 1998, method 10, for independent shares). Similar data alone never
suffice: labels may have changed. For scores between 0 and 1 the intervals are wider than need be, never narrower, as no
such score varies more than hits do.
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
    """Score of the champion, routed as at inference, on a new task's validation rows."""

    score: float
    rows: int
    resembled: str | None
    """`name@version` of the earlier task that the new one resembles."""
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
        """Its loss against the score on the task it resembles, with one-sided 95 % bounds; None if there is none."""
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
    """Judgement whether the champion does a task already, with the reason in words."""

    is_known: bool
    words: str


def judge_known(
    champion: ChampionScore | None, no_score: str, drift: str, target: float | None, settings: KnownSettings
) -> Known:
    """Decide whether the champion does the task; `no_score` gives the reason if it was not tried."""
    if champion is None:
        return Known(is_known=False, words=f"the champion was not tried on it: {no_score}")
    interval = champion.interval
    score = f"the champion scores {interval.value:.3f} on {champion.rows} of its validation rows"
    if target is not None:
        proof = f"at least {interval.low:.3f} with 95 % confidence; its owner's target is {target:.3f}"
        return Known(is_known=interval.low >= target, words=f"{score}, {proof}")
    short = champion.shortfall
    if drift == "known" and short is None and champion.resembled is not None:
        gap = f"not checked against its score on {champion.resembled}: no predictions of that task are kept"
        return Known(is_known=False, words=f"{score}; {gap}")
    if drift != "known" or short is None:
        return Known(is_known=False, words=score)
    words = (
        f"{score}, on {champion.resembled} {champion.resembled_score:.3f}: at most {max(short.high, 0):.3f} worse with "
        f"95 % confidence; allowed {settings.margin:.3f}"
    )
    return Known(is_known=short.high <= settings.margin, words=words)


def _interval(score: float, rows: int) -> Interval:
    return wilson_interval(score * rows, rows, ALPHA)
