"""Choosing a point on the stability-plasticity curve, on validation data only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """Validation scores of one tuned adapter: on the new task and on each prior task of its group."""

    name: str
    new: float
    prior: Mapping[str, float]

    def worst_drop(self, before: Mapping[str, float]) -> float:
        """Largest loss of a prior task against the scores before tuning (0 without prior tasks)."""
        return max((before[task] - score for task, score in self.prior.items()), default=0.0)


def choose_point(points: Sequence[Point], before: Mapping[str, float], margin: float) -> tuple[Point, str]:
    """The point best at the new task among those that lose at most `margin` on every prior task.

    If none does, the one that loses least. Ties go to the point listed first. Returns it with the reason.
    """
    # a drop of exactly the margin is admissible, and a difference of two means is not exact
    admissible = [p for p in points if p.worst_drop(before) <= margin + 1e-9]
    if admissible:
        best = max(admissible, key=lambda p: p.new)
        if not before:
            return (
                best,
                f"{best.name}: best validation score of the new task ({best.new:.3f}); nothing to protect",
            )
        return best, (
            f"{best.name}: best validation score of the new task ({best.new:.3f}) among the "
            f"{len(admissible)} of {len(points)} points that lose at most {margin:.3f} on every prior task"
        )
    least = min(points, key=lambda p: (p.worst_drop(before), -p.new))
    return least, (
        f"{least.name}: every point loses more than {margin:.3f} on some prior task; this one loses least "
        f"({least.worst_drop(before):.3f})"
    )
