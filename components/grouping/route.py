"""Route of one request: the group that answers it, how sure that is, and why."""

from dataclasses import dataclass, replace
from typing import Any, Self

from components.settings import Fallback


@dataclass(frozen=True)
class Route:
    """Target of one request: a group, or None for the base model. Similarities are cosines in [0, 1].

    A request is routed by its score, `similarity + evidence`, which has to reach `threshold`.
    """

    group: str | None
    similarity: float
    """Of the instruction to the nearest task."""
    runner_up: float
    """Score of the nearest task of another group; 0 if there is none."""
    nearest_task: str | None
    exact: bool
    """True if the instruction is one of the task's, word by word, or the caller named the task."""
    evidence: float = 0.0
    """Evidence of the input against the nearest task, at most 0."""
    threshold: float = 0.0
    second_task: str | None = None
    """The nearest task of another group."""
    unsure_between: tuple[str, str] | None = None
    """Two tasks that the caller is asked to choose from; `group` is None then."""

    @property
    def score(self) -> float:
        """Similarity and evidence together, as compared with the threshold."""
        return round(self.similarity + self.evidence, 6)

    def resolve(self, fallback: Fallback, margin: float) -> Self:
        """The route where a score less than `margin` above the runner-up's counts as unsure."""
        unsure = self.group is not None and not self.exact and self.score - self.runner_up < margin
        if fallback == "answer" or not unsure or self.runner_up < self.threshold:
            return self
        if fallback == "base" or self.nearest_task is None or self.second_task is None:
            return replace(self, group=None)
        return replace(self, group=None, unsure_between=(self.nearest_task, self.second_task))

    @property
    def why(self) -> str:
        """A sentence on what decided."""
        if self.nearest_task is None:
            return "there is no task to compare it with: the base model answers."
        if self.exact:
            return f"the instruction is one of {self.nearest_task}'s own."
        score = f"similarity {self.similarity:.3f} to {self.nearest_task}"
        if self.evidence:
            score += f" and {self.evidence:+.3f} from the input make {self.score:.3f}"
        if self.unsure_between is not None:
            return f"{score}, and {self.second_task} has {self.runner_up:.3f}: the caller is asked which one is meant."
        if self.group is not None:
            return f"{score}, at least the threshold {self.threshold:.3f}."
        if self.score >= self.threshold:
            return (
                f"{score}, and {self.second_task} has {self.runner_up:.3f}, too near to tell: the base model answers."
            )
        return f"{score}, below the threshold {self.threshold:.3f}: the base model answers."

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for people and programs; `task` is None where no task answers."""
        second = {"task": self.second_task, "score": self.runner_up} if self.second_task else None
        return {
            "group": self.group,
            "task": self.nearest_task if self.group else None,
            "nearest_task": self.nearest_task,
            "similarity": self.similarity,
            "input_evidence": self.evidence,
            "score": self.score,
            "runner_up": second,
            "threshold": self.threshold,
            "exact": self.exact,
            "ask": list(self.unsure_between) if self.unsure_between else None,
            "why": self.why,
        }


UNROUTED = Route(None, 0.0, 0.0, None, exact=False)
"""Route of a request where there is nothing to compare it with."""
