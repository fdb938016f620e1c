"""Length of a tuning: passes over a task's rows, bounded by a number of steps; and the rows that it leaves out."""

from dataclasses import dataclass
from math import ceil
from typing import Any

from components.settings.learning import TuningSettings


@dataclass(frozen=True)
class Length:
    """Planned length of a tuning on `available` training rows; early stopping may end it before.

    `drawn` rows take part (`tuning.max_rows`), and `read` of them come up at least once in `steps` steps.
    """

    available: int
    drawn: int
    steps: int
    batch_size: int
    remarks: tuple[str, ...] = ()
    """Sentences about rows that are never read and passes that are cut short; empty if every row is read as asked."""

    @property
    def visits(self) -> int:
        """Rows read in all steps, each as often as it comes up; rows of earlier tasks come on top."""
        return self.steps * self.batch_size

    @property
    def read(self) -> int:
        """Rows that come up at least once."""
        return min(self.drawn, self.visits)

    @property
    def epochs(self) -> float:
        """Passes over the drawn rows."""
        return self.visits / self.drawn if self.drawn else 0.0

    def to_json(self) -> dict[str, Any]:
        """For records."""
        return {
            "rows": self.available,
            "rows_drawn": self.drawn,
            "rows_read": self.read,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "epochs": round(self.epochs, 3),
            "remarks": list(self.remarks),
        }


def length(rows: int, settings: TuningSettings) -> Length:
    """Length of a tuning on `rows` training rows: `steps` if it is set, else `epochs` within the bounds.

    Where the bounds contradict each other, `max_steps` holds.
    """
    pool = min(rows, settings.max_rows or rows)
    goal = ceil(settings.epochs * pool / settings.batch_size)
    steps = settings.steps or min(max(goal, settings.min_steps), settings.max_steps)
    plain = Length(rows, pool, steps, settings.batch_size)
    return Length(rows, pool, steps, settings.batch_size, _remarks(plain, goal, settings))


def _remarks(plan: Length, goal: int, settings: TuningSettings) -> tuple[str, ...]:
    by_steps = "tuning.steps" if settings.steps else "tuning.max_steps"
    causes, ways = list[str](), list[str]()
    if plan.drawn < plan.available:
        causes.append(f"tuning.max_rows is {plan.drawn}")
        ways.append("set tuning.max_rows to null")
    if plan.read < plan.drawn:
        causes.append(f"{by_steps} is {plan.steps}, of {plan.batch_size} rows each")
        ways.append("set tuning.steps to null" if settings.steps else "raise tuning.max_steps or tuning.batch_size")
    remarks = []
    if causes:
        unread = plan.available - plan.read
        remarks.append(
            f"{unread} of {plan.available} training rows are not read: {' and '.join(causes)}; "
            f"to read them, {' and '.join(ways)}"
        )
    if plan.read == plan.drawn and plan.steps < goal:
        remarks.append(
            f"the rows are read {plan.epochs:.2g} times instead of {settings.epochs:g}: tuning.max_steps is "
            f"{plan.steps}; raise it for more passes"
        )
    return tuple(remarks)


def old_shares(settings: TuningSettings, with_rows: float, recall_tasks: float) -> tuple[float, float]:
    """Shares of kept and of recalled rows among all rows of a step.

    `with_rows` and `recall_tasks` are the shares of the earlier tasks that are rehearsed and recalled. Recall fills
    in for rehearsal: tasks without kept rows have their part of both shares recalled.
    """
    recall = settings.pseudo_rehearsal.share * recall_tasks
    if recall > 0:
        recall += settings.rehearsal.share * (1 - with_rows)
    return settings.rehearsal.share * with_rows, recall
