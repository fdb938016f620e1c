"""The gate: rules over the evidence of one candidate, each a row that a person can read.

DESIGN section 8. A drop is reference minus candidate score, so a positive drop is forgetting. Pass needs
every one-sided bound of a drop inside its margin (unadjusted: requiring all is already conservative); fail needs
a drop beyond its margin with confidence (Holm over all comparisons); anything between is inconclusive.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from components.errors import LciaError
from components.settings import GateSettings

Verdict = Literal["pass", "fail", "inconclusive"]
RowVerdict = Literal["pass", "fail", "inconclusive", "info"]


class GateEvidenceError(LciaError):
    """Evidence the gate cannot judge: scores that do not pair up or are out of range."""


@dataclass(frozen=True)
class PriorTask:
    """Scores of one earlier task's test rows, row by row in the same order, each in [0, 1].

    `changed` says whether any prediction may differ from the champion's; when False the scores may be empty. A
    changed task with empty scores keeps no evaluation rows: its forgetting is not measurable, and the report says so.
    """

    name: str
    task: str
    group: str
    champion: tuple[float, ...]
    anchor: tuple[float, ...]
    candidate: tuple[float, ...]
    changed: bool


@dataclass(frozen=True)
class NewTask:
    """Scores of the task just learnt. Where there is no champion yet, `champion_test` is the base model's."""

    name: str
    champion_test: tuple[float, ...]
    candidate_test: tuple[float, ...]
    candidate_validation: tuple[float, ...]
    live_validation: tuple[float, ...]
    target: float | None = None


@dataclass(frozen=True)
class GateEvidence:
    """Everything the gate looks at. Shares are fractions.

    `drift_accepted`: a person released a task that was held for extreme drift. `routing_share`: share of the new
    task's test rows that the candidate's router sends to its group. `fallback_share` and `fallback_limit`: share of
    EMA updates that fell back to a fixed beta, and `tuning.ema.max_fallback`; None where the rule has no fallback.
    `attempt` counts from 1 per task and parent. `costs`: measured seconds or bytes, shown only.
    """

    prior: tuple[PriorTask, ...]
    new: NewTask
    validation: Literal["pass", "warn", "refuse"]
    drift: Literal["known", "related", "new", "extreme"]
    routing_share: float
    fallback_share: float | None = None
    fallback_limit: float = 0.05
    attempt: int = 1
    drift_accepted: bool = False
    costs: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class GateRow:
    """One rule's result. `value`, one-sided bounds `low` and `high`, and `limit` are fractions where given."""

    rule: str
    task: str | None
    verdict: RowVerdict
    value: float | None
    low: float | None
    high: float | None
    limit: float | None
    words: str


@dataclass(frozen=True)
class Power:
    """Probability that a candidate with no true change passes the forgetting rules at the present sizes."""

    pass_probability: float
    tasks: int
    discordance: float
    alpha: float
    words: str


@dataclass(frozen=True)
class GateReport:
    """The verdict and its rows."""

    verdict: Verdict
    attempt: int
    alpha: float
    enforced: bool
    rows: tuple[GateRow, ...]
    power: Power

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, finite numbers only."""
        return {"kind": "gate", "schema": 1, **asdict(self), "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read back `to_json`."""
        return cls(
            verdict=value["verdict"],
            attempt=value["attempt"],
            alpha=value["alpha"],
            enforced=value["enforced"],
            rows=tuple(GateRow(**row) for row in value["rows"]),
            power=Power(**value["power"]),
        )


def decide_gate(evidence: GateEvidence, policy: GateSettings) -> GateReport:
    """Judge one candidate.

    Raises:
        GateEvidenceError: scores that do not pair up, out of [0, 1], or an attempt below 1.
    """
    raise NotImplementedError
