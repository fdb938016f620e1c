"""Evidence of a request's input: how far it lowers each task's similarity, given the inputs that tasks usually have.

It is a weight times the log share of a task among all tasks and general texts: near 0 for the task that an input fits
best, and never above. So it favours nothing: an instruction that resembles no task goes to none, whatever its input.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from components.grouping.input_profile import InputProfile, Kind

WEIGHT = 0.03
"""Similarity for each unit of log share."""
FLOOR = -5.0
"""Least log share: what an input can say against a task ends at `WEIGHT * FLOOR`; instructions stay stronger."""


class TypicalInputs(Protocol):
    """The inputs of a pool's tasks."""

    def log_ratios(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """log p(input | task) - log p(input | general texts), shape (texts, tasks)."""

    def typical_log_ratios(self, number: int) -> NDArray[np.float64]:
        """The same for inputs drawn at random as the tasks have them; the same ones in each call."""


def evidence(log_ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lowering of each task's similarity, at most 0, from log p(input | task) - log p(input | general texts).

    Shape (inputs, tasks) to the same; a task without a profile has 0 there, as general texts have.
    """
    every = np.concatenate([log_ratios, np.zeros((len(log_ratios), 1))], axis=1)
    every -= every.max(axis=1, keepdims=True)
    shares = every - np.log(np.exp(every).sum(axis=1, keepdims=True))
    penalties: NDArray[np.float64] = WEIGHT * np.maximum(shares[:, :-1], FLOOR)
    return penalties


def means(
    profiles: Sequence[InputProfile | None], kind: Kind, columns: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values of profiles of one kind, (tasks, columns), and which tasks have one; others have zeros."""
    rows = np.zeros((len(profiles), columns))
    has_one = np.array(
        [p is not None and p.kind == kind and p.values.shape == (columns,) for p in profiles], dtype=bool
    )
    for place, profile in enumerate(profiles):
        if profile is not None and profile.kind == kind and profile.values.shape == (columns,):
            rows[place], has_one[place] = profile.values, True
    return rows, has_one
