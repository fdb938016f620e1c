"""Points that a tuning run lays out for the choice: theta*, live weights, mixes with the parent, other EMAs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from components.errors import LciaError
from components.model.adapters import is_lora
from components.settings import TuningSettings
from components.tuning.curve import grid, layer_groups, mix
from components.tuning.power_ema import PowerEMA, planned_error

Tensors = dict[str, Tensor]
SNAPSHOTS = 30
"""About as many snapshots of the power-function EMAs are kept, spread over the steps."""
LARGEST_ERROR = 0.05
"""How far the weights that a reconstructed EMA gives to the steps may be off, as a share of their norm."""


class TuningFailed(LciaError):
    """The run produced nothing that may be used; nothing was registered."""


class Points:
    """Mixes and power-function EMAs of one run; what cannot be laid out is refused before any training.

    A new group (`reused` False) has the live weights as its only point.

    Raises:
        TuningFailed: the settings ask for points that cannot be had.
    """

    def __init__(
        self, names: Sequence[str], parameters: Sequence[Tensor], settings: TuningSettings, *, reused: bool
    ) -> None:
        self.names, self.settings, self.reused = names, settings, reused
        self.mixes = self._mixes()
        self.power = self._power(parameters) if reused and settings.ema_lengths else None

    def _mixes(self) -> dict[str, dict[str, float]]:
        try:
            layered, groups = [name for name in self.names if is_lora(name)], 2 if self.settings.curve_by_layers else 1
            points = grid(layered, groups, self.settings.curve)
            lowest = layer_groups(layered, groups)[0][0]  # a projector lies below all layers
        except ValueError as error:
            raise TuningFailed(f"tuning.curve_by_layers is on, but {error}; switch it off") from error
        return {
            point: shares | {name: shares[lowest] for name in self.names if name not in shares}
            for point, shares in points.items()
        }

    def _power(self, parameters: Sequence[Tensor]) -> PowerEMA:
        steps = self.settings.steps
        every = max(1, steps // SNAPSHOTS)
        for length in self.settings.ema_lengths:
            error = planned_error(length, steps, every)
            if error > LARGEST_ERROR:
                raise TuningFailed(
                    f"tuning.ema_lengths: an EMA of length {length:g} cannot be reconstructed after {steps} steps: the "
                    f"weights of the steps would be off by {error:.0%}, at most {LARGEST_ERROR:.0%} are allowed; "
                    "use lengths from 0.02 to 0.25"
                )
        return PowerEMA(parameters, every=every)

    def update(self, step: int) -> None:
        """After optimizer step number `step`, from 1."""
        if self.power:
            self.power.update(step)

    def state_dict(self) -> Tensors:
        """What a resumed run needs."""
        return self.power.state_dict() if self.power else {}

    def load_state_dict(self, state: Tensors) -> None:
        """Go on where `state_dict` was taken."""
        if self.power:
            self.power.load_state_dict(state)

    @torch.no_grad()
    def lay_out(self, before: Tensors, live: Tensors, average: Sequence[Tensor]) -> dict[str, Tensors]:
        """Adapters by point, from the parent's weights, the live ones and theta*."""
        if not self.reused:
            return {"live": live}
        points = {"live": live, "ema": {n: t.cpu().clone() for n, t in zip(self.names, average, strict=True)}}
        points |= {name: mix(before, live, shares) for name, shares in self.mixes.items()}
        if self.power:
            if self.power.step not in self.power.snapshots:
                self.power.snapshot()
            for length in self.settings.ema_lengths:
                points[f"ema-{length:g}"] = dict(zip(self.names, self.power.reconstruct(length), strict=True))
        return points
