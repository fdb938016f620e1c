"""Points that a tuning run lays out for the choice: theta*, live weights, and mixes with the parent."""

from collections.abc import Sequence

import torch
from torch import Tensor

from components.errors import LciaError
from components.model.adapters import is_lora
from components.settings import TuningSettings
from components.tuning.curve import grid, layer_groups, mix

Tensors = dict[str, Tensor]


class TuningFailed(LciaError):
    """The run produced nothing that may be used; nothing was registered."""


class Points:
    """Points of one run; impossible ones are refused before any training.

    A new group (`has_parent` False) has the live weights as its only point.

    Raises:
        TuningFailed: the settings ask for points that do not exist.
    """

    def __init__(self, names: Sequence[str], settings: TuningSettings, *, has_parent: bool) -> None:
        self.names, self.settings, self.has_parent = names, settings, has_parent
        self.mixes = self._mixes()

    def _mixes(self) -> dict[str, dict[str, float]]:
        try:
            lora, groups = [name for name in self.names if is_lora(name)], 2 if self.settings.curve_by_layers else 1
            points = grid(lora, groups, self.settings.curve)
            lowest = layer_groups(lora, groups)[0][0]  # a projector lies below all layers
        except ValueError as error:
            raise TuningFailed(f"tuning.curve_by_layers is on, but {error}; switch it off") from error
        return {
            point: shares | {name: shares[lowest] for name in self.names if name not in shares}
            for point, shares in points.items()
        }

    @torch.no_grad()
    def lay_out(self, before: Tensors, live: Tensors, average: Sequence[Tensor]) -> dict[str, Tensors]:
        """Adapters by point, from the parent's weights, the live ones and theta*."""
        if not self.has_parent:
            return {"live": live}
        points = {"live": live, "ema": {n: t.cpu().clone() for n, t in zip(self.names, average, strict=True)}}
        return points | {name: mix(before, live, shares) for name, shares in self.mixes.items()}
