"""The curves of a tuning run, finished or in flight, as people watch them; needs no torch to be read."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

FILE = "curves.json"
"""Name in the run's work area; written with every checkpoint."""

Curves = dict[str, list[tuple[int, float]]]
"""Name -> (step counted from 1, value)."""


class Area(Protocol):
    """A work area that can be read; None for what is absent or damaged."""

    def read(self, name: str) -> bytes | None:
        """Bytes written under `name`."""


def curves(record: Mapping[str, Any]) -> Curves:
    """Loss and, if a rule averages, beta and distance per step, from `losses`, `old_losses`, `history` and `rule`.

    `beta` is the median over tensors. A long run's history has one entry per 2, 4, ... steps; each is put at its
    last step.
    """
    losses, history = record["losses"], record["history"]
    lines: Curves = {"loss": list(enumerate(losses, start=1))}
    earlier = [(step, loss) for step, loss in enumerate(record["old_losses"], start=1) if loss is not None]
    if earlier:
        lines["loss_earlier_tasks"] = earlier
    if record["rule"] != "none" and history["beta_median"]:
        stride = 1
        while len(history["beta_median"]) * stride < len(losses):
            stride *= 2
        for name, values in (("beta", history["beta_median"]), ("distance", history["distance"])):
            lines[name] = [(min(i * stride, len(losses)), value) for i, value in enumerate(values, start=1)]
    return lines


def read_curves(area: Area) -> Curves | None:
    """The curves of a run in flight up to its last checkpoint; None before the first."""
    data = area.read(FILE)
    return curves(json.loads(data)) if data else None
