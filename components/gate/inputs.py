"""Input of the gate about one candidate: scores row by row, and the verdicts of the steps before."""

from dataclasses import dataclass
from typing import Literal

from components.errors import LciaError
from components.grouping.rewording import Rewording


class GateEvidenceError(LciaError):
    """Evidence the gate cannot judge: scores that do not pair up or are out of range."""


@dataclass(frozen=True)
class PriorTask:
    """Scores of one earlier task's test rows, row by row in the same order, each in [0, 1].

    `may_differ`: True if any prediction may differ from the champion's; when False the scores may be empty. A changed
    task with empty scores keeps no evaluation rows: its forgetting is not measurable, and the report says so.
    """

    name: str
    task: str
    group: str
    champion: tuple[float, ...]
    anchor: tuple[float, ...]
    candidate: tuple[float, ...]
    may_differ: bool
    reserve: tuple[bool, ...] = ()
    """True for rows held back for a second look; empty: none."""
    look: int = 1
    """Number, from 1, of this candidate among those compared with the anchor."""
    superseded_by: str | None = None
    """Learnt task that replaces it: the report shows this one, but no forgetting rule protects it."""

    @property
    def is_protected(self) -> bool:
        """True if the forgetting rules compare it."""
        return self.may_differ and bool(self.candidate) and self.superseded_by is None


@dataclass(frozen=True)
class NewTask:
    """Scores of the task just learnt. Without a champion `champion_test` is the base model's."""

    name: str
    champion_test: tuple[float, ...]
    candidate_test: tuple[float, ...]
    candidate_validation: tuple[float, ...]
    live_validation: tuple[float, ...]
    target: float | None = None
    reserve: tuple[bool, ...] = ()
    """True for test rows held back for a second look; empty: none."""
    cut: int = 0
    """Wrong answers of the candidate that were cut at the limit; an earlier release did not count them."""
    answer_limit: int = 0
    """The task's `decoding.max_new_tokens`."""


@dataclass(frozen=True)
class GateEvidence:
    """Everything the gate looks at. Shares are fractions.

    `new` is None if no task was learnt and only the base model or wordings changed: then `validation`, `drift` and
    `routing_share`, which are about the new task, are ignored. `not_taught`: tasks of the champion that the candidate
    was not taught because no rows of them are kept. `drift_accepted`: a person released a task that was held for
    extreme drift. `routing_share`: share of the new task's test rows that the candidate's router sends to its group.
    `rewording`: the same for requests in other words; None in evidence of earlier releases.
    `fallback_share` and `fallback_limit`: share of EMA updates that fell back to a fixed beta, and
    `tuning.ema.max_fallback`; None if the rule has no fallback. `attempt` counts from 1 per name and owner.
    `costs`: measured seconds or bytes, shown only.
    """

    prior: tuple[PriorTask, ...]
    new: NewTask | None
    validation: Literal["pass", "warn", "refuse"] = "pass"
    drift: Literal["known", "related", "new", "extreme"] = "known"
    routing_share: float = 1.0
    rewording: Rewording | None = None
    fallback_share: float | None = None
    fallback_limit: float = 0.05
    attempt: int = 1
    drift_accepted: bool = False
    costs: tuple[tuple[str, float], ...] = ()
    not_taught: tuple[str, ...] = ()
