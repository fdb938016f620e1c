"""Early stopping: when to measure validation rows in a tuning, which weights to keep, and when to end.

A measurement is the share of rows whose whole answer is the likeliest at each token (teacher forcing), and among equal
shares the lower loss. It follows from the measurements alone when a run ends, so a resumed one ends at the same step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from components.settings import Length

ROWS = 100
"""Most validation rows in a measurement."""
LEAST_ROWS = 20
COST = 1 / 3
"""Validation rows read in all measurements, as a share of the rows that are learnt from; without gradients each takes
about a third of the time."""
MOST = 10
"""Most measurements of a run."""
PATIENCE = 3
"""Measurements without a gain that end a run."""


class ValidationScore(NamedTuple):
    """Measurement after `step` steps."""

    step: int
    score: float
    loss: float


def validation_rows(length: Length, limit: int | None) -> int:
    """Number of validation rows worth reading in a run: a tenth of the rows it learns from, between 20 and 100."""
    return min(ROWS if limit is None else min(ROWS, limit), max(LEAST_ROWS, length.visits // 10))


@dataclass
class EarlyStopping:
    """Measurements of one run on `rows` validation rows; without rows there are none, and it runs to its end."""

    length: Length
    rows: int

    def __post_init__(self) -> None:
        self.checks: list[ValidationScore] = []
        affordable = int(COST * self.length.visits) // self.rows if self.rows else 0
        count = max(2, min(MOST, affordable, round(2 * self.length.epochs)))
        self.every = max(1, self.length.steps // count)

    def is_due(self, step: int) -> bool:
        """True if validation rows are to be measured after this many steps."""
        return self.rows > 0 and (step % self.every == 0 or step == self.length.steps)

    def add(self, check: ValidationScore) -> bool:
        """Note a measurement; True if it is better than all before it."""
        self.checks.append(check)
        return self.best is check

    @property
    def best(self) -> ValidationScore | None:
        """The best measurement, of equal ones the first."""
        return max(self.checks, key=lambda c: (c.score, -c.loss), default=None)

    def is_over(self, step: int) -> bool:
        """True after the last step, or once three measurements in a row were no gain and every row was read."""
        if step >= self.length.steps:
            return True
        best = self.best
        no_gain = best is not None and len(self.checks) - self.checks.index(best) > PATIENCE
        return no_gain and step * self.length.batch_size >= self.length.drawn

    def record(self, steps: int) -> dict[str, Any]:
        """Measurements and the step whose weights were kept, for the record of a run that made `steps` steps."""
        step = self.best.step if self.best else steps
        return {"checks": [list(check) for check in self.checks], "step": step, "words": self._words(steps, step)}

    def _words(self, steps: int, step: int) -> str:
        goal = self.length.steps
        if steps < goal:
            return f"stopped after step {steps} of {goal}: no gain on validation since step {step}"
        if step < steps:
            return f"ran all {goal} steps; the weights are those of step {step}, the best on validation"
        return f"ran all {goal} steps"


def checks_of(values: Sequence[Sequence[float]]) -> list[ValidationScore]:
    """Measurements from a checkpoint."""
    return [ValidationScore(int(step), score, loss) for step, score, loss in values]
