"""Any EMA length after training: power-function EMAs, tracked while training, combined by least squares.

After "Analyzing and Improving the Training Dynamics of Diffusion Models" (Karras et al., CVPR 2024,
arXiv 2312.02696), section 3 and appendix C. The power-function EMA of exponent gamma weights the live weights
theta_i of step i in proportion to i^gamma; its length is stated as sigma_rel, the standard deviation of these
weights over the steps, as a share of the training so far:

    theta*_t = beta_t theta*_(t-1) + (1 - beta_t) theta_t,     beta_t = (1 - 1/t)^(gamma + 1)
    sigma_rel = (gamma + 1)^(1/2) (gamma + 2)^(-1) (gamma + 3)^(-1/2)

The betas multiply to the closed form of the weight of step i, used here instead of the paper's integrals,
which are its limit for many steps:

    w_gamma,t(i) = (i^(gamma + 1) - (i - 1)^(gamma + 1)) / t^(gamma + 1),     i <= t.

Two or more such EMAs are stored at intervals; the profile w of any other EMA is approximated by the least-squares
combination of the stored profiles, and theta* by the same combination of the stored weights. So the length is
chosen after the training, on validation rows, without training again.

The initial weights have no part in these averages; mixing with the parent is another axis (`curve`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

GAMMAS = (16.97, 6.94)
"""sigma_rel 0.05 and 0.10, the paper's choice."""
SNAPSHOTS = 32
"""Snapshots kept of each EMA; when they are more, every second one goes and the interval doubles."""


def sigma_rel(gamma: float) -> float:
    """Relative length of the power-function EMA of exponent `gamma` (Eq. 123 of the paper)."""
    return float((gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5))


def exponent(length: float) -> float:
    """gamma of the power-function EMA of relative length `length`, the inverse of `sigma_rel`.

    Raises:
        ValueError: `length` is not in (0, 0.28]; 0.289 is the length of the plain mean (gamma = 0).
    """
    if not 0 < length <= 0.28:
        raise ValueError(f"the relative length of an EMA is {length}, expected a number in (0, 0.28]")
    square = length**-2
    return float(np.roots([1, 7, 16 - square, 12 - square]).real.max())


def profile(gamma: float, step: int, steps: int) -> np.ndarray:
    """Weights (steps,) that the EMA of exponent `gamma` gives to the live weights of steps 1 ... `step`."""
    edges = (np.minimum(np.arange(steps + 1), step) / step) ** (gamma + 1)
    return np.diff(edges)


def planned_error(length: float, steps: int, every: int) -> float:
    """`PowerEMA.error` of `length` at the end of a training, known before it: it depends on the schedule alone."""
    ema = PowerEMA([torch.zeros(1)], every=every)
    for step in range(1, steps + 1):
        ema.update(step)
    if steps not in ema.snapshots:
        ema.snapshot()
    return ema.error(length)


class PowerEMA:
    """Power-function EMAs of live parameters, and snapshots of them on the CPU, all float32.

    Memory: one copy of the parameters per exponent on their device, at most `SNAPSHOTS` per exponent on the CPU.

    Args:
        parameters: live tensors in a fixed order.
        gammas: exponents to track; two are enough for any longer EMA and moderately shorter ones.
        every: steps between snapshots; the last step of a training should be a multiple, or call `snapshot`.

    Raises:
        ValueError: no parameters, or an exponent or interval out of range.
    """

    def __init__(self, parameters: Sequence[Tensor], gammas: Sequence[float] = GAMMAS, every: int = 10) -> None:
        if not parameters or not gammas or min(gammas) <= 0 or every < 1:
            raise ValueError(f"{len(parameters)} parameters, exponents {tuple(gammas)}, every {every}: expected more")
        self.live, self.gammas, self.every = list(parameters), tuple(gammas), every
        self.averages = [[p.detach().float().clone() for p in self.live] for _ in self.gammas]
        self.step = 0
        self.snapshots: dict[int, list[Tensor]] = {}
        """By step: one flat tensor per exponent."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Average the live weights after optimizer step number `step`, counted from 1; keep a snapshot if one is due.

        Raises:
            ValueError: steps are left out or repeated.
        """
        if step != self.step + 1:
            raise ValueError(f"step {step} follows step {self.step}; every optimizer step is averaged once, from 1 on")
        self.step = step
        for gamma, average in zip(self.gammas, self.averages, strict=True):
            weight = 1 - (1 - 1 / step) ** (gamma + 1)
            for mean, p in zip(average, self.live, strict=True):
                mean.lerp_(p.detach().float(), weight)
        if step % self.every == 0:
            self.snapshot()

    @torch.no_grad()
    def snapshot(self) -> None:
        """Keep the averages of the present step; thins out the older snapshots when there are too many."""
        self.snapshots[self.step] = [torch.cat([t.flatten() for t in average]).cpu() for average in self.averages]
        while len(self.snapshots) > SNAPSHOTS:
            self.every *= 2
            kept = [s for s in self.snapshots if s % self.every == 0 or s == self.step]
            self.snapshots = {s: self.snapshots[s] for s in kept}

    def reconstruct(self, length: float, step: int | None = None) -> list[Tensor]:
        """theta* of the power-function EMA of relative length `length` at `step` (the last snapshot's if None).

        Returns CPU tensors shaped like the parameters. `error` tells how well the snapshots span that length.

        Raises:
            ValueError: there is no snapshot yet, `step` lies behind the last one, or see `exponent`.
        """
        weights, _ = self._solve(length, step)
        flat = torch.zeros_like(next(iter(self.snapshots.values()))[0], dtype=torch.float64)
        stored = [tensor for averages in self.snapshots.values() for tensor in averages]
        for weight, tensor in zip(weights, stored, strict=True):
            flat.add_(tensor, alpha=float(weight))
        parts = torch.split(flat.float(), [p.numel() for p in self.live])
        return [part.view(p.shape) for part, p in zip(parts, self.live, strict=True)]

    def error(self, length: float, step: int | None = None) -> float:
        """Distance of the combined profile from the wanted one, as a share of the wanted one's norm."""
        return self._solve(length, step)[1]

    def _solve(self, length: float, step: int | None) -> tuple[np.ndarray, float]:
        if not self.snapshots:
            raise ValueError(f"no snapshot yet at step {self.step}, the first comes at step {self.every}")
        last = max(self.snapshots)
        step = last if step is None else step
        if not 1 <= step <= last:
            raise ValueError(f"step {step} was asked for, the snapshots reach from 1 to {last}")
        stored = np.stack([profile(g, s, last) for s in self.snapshots for g in self.gammas], axis=1)
        wanted = profile(exponent(length), step, last)
        weights = np.linalg.lstsq(stored, wanted, rcond=1e-9)[0]
        return weights, float(np.linalg.norm(stored @ weights - wanted) / np.linalg.norm(wanted))

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs, as tensors of its own."""
        state = {f"average.{k}.{i}": t.clone() for k, ts in enumerate(self.averages) for i, t in enumerate(ts)}
        for step, averages in self.snapshots.items():
            state |= {f"snapshot.{step}.{k}": t.clone() for k, t in enumerate(averages)}
        return state | {
            "gammas": torch.tensor(self.gammas, dtype=torch.float64),
            "steps": torch.tensor([self.step, self.every]),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: the state is of other exponents or other tensors; nothing was changed.
        """
        if tuple(state["gammas"].tolist()) != self.gammas:
            raise ValueError(f"the state is of exponents {tuple(state['gammas'].tolist())}, this is {self.gammas}")
        own = {f"average.{k}.{i}": p.shape for k in range(len(self.gammas)) for i, p in enumerate(self.live)}
        given = {name: tensor.shape for name, tensor in state.items() if name.startswith("average.")}
        if own != given:
            raise ValueError(f"the state is of {len(given)} other tensors; expected the {len(own)} it was taken from")
        for k, average in enumerate(self.averages):
            for i, mean in enumerate(average):
                mean.copy_(state[f"average.{k}.{i}"])
        steps = sorted({int(name.split(".")[1]) for name in state if name.startswith("snapshot.")})
        self.snapshots = {s: [state[f"snapshot.{s}.{k}"].cpu().clone() for k in range(len(self.gammas))] for s in steps}
        self.step, self.every = (int(value) for value in state["steps"])
