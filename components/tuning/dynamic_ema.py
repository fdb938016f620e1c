"""Dynamic EMA for continual adapter tuning. One file, needs torch and nothing else: copy it.

After "Large Continual Instruction Assistant" (ICML 2025, arXiv 2410.10868). Notation: theta live weights,
theta* protected weights, g gradient, y = g_t - g_(t-1), d = theta_t - theta*_(t-1), alpha = 1 - beta;
|.|_1 is the L1 norm over one tensor, n its number of entries.

    theta*_t = theta*_(t-1) + alpha_t d        after every optimizer step, theta*_0 = the parent's weights

| rule         | alpha_t, per tensor                                            | outside (0, 1)       |
|--------------|----------------------------------------------------------------|----------------------|
| `fixed`      | 1 - beta                                                       |                      |
| `paper`      | |theta_(t-1) - theta*_(t-1)|_1 (1 + |g|_1) / (|d|_1 |y|_1)   (Eq. 45) | 1 - beta, counted |
| `released`   | 2 (1 + |g|_1) / (|d|_1 |y|_1)   (the authors' published code)  | 0.01, counted        |
| `scale_free` | rho lr n (|g|_1 / |y|_1) / |d|_1 in [alpha_min, horizon / steps] | alpha_min, counted when undefined |

Smoothing: |y|_1 is mostly sampling noise, so alpha_t of a dynamic rule may be replaced by its running
geometric mean over about m = smoothing * steps steps, per tensor: log a_t += (log alpha_t - log a_t) / min(k, m)
at the k-th defined value. It stays within the bounds of what it averages; undefined steps leave it as it is.

`curvature` replaces the paper's stability term, a distance of parameters, by the loss of the old tasks to
second order. With their diagonal Fisher F_old it pulls the live weights after each step,

    theta <- theta_old + (theta - theta_old) exp(-lr_t kappa F_old)

so beta = 1 - exp(-lr_t kappa F_old) per parameter, always in [0, 1]; `consolidate` then averages once,

    theta* = theta_old + (theta - theta_old) F_new / (tau F_old + F_new).

Usage, once per optimizer step (with a gradient scaler: after `unscale_`, and with `skipped=True` when the
scaler skipped the step, `scaler.get_scale() < scale_before`; with several processes: after gradients are reduced):

    ema = DynamicEMA(parameters, "scale_free", steps=120, peak_lr=1e-3)
    for batch in data:
        loss(batch).backward(); ema.read_gradients(); optimizer.step(); ema.update(lr); optimizer.zero_grad()
    with ema.swap():            # live weights are theta* in here
        evaluate(model); save(model)

No step waits for the device, and memory does not grow with the number of steps.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

RULES = ("none", "fixed", "paper", "released", "scale_free", "curvature")
DYNAMIC = ("paper", "released", "scale_free")
RELEASED_CONSTANT, RELEASED_FALLBACK = 2.0, 0.01
SMOOTHING = {"scale_free": 0.05}
"""Default of `smoothing` by rule; the published rules are not smoothed."""
TINY = 1e-12
CPU_BLOCK, GPU_BLOCK = 2**18, 2**26
"""Entries worked on at once: within a CPU's cache, and few kernels on a GPU."""
HISTORY = 2048
"""Rows of the history; when they are full, neighbours are merged."""
BAND = (0.1, 0.5, 0.9)


class _Block:
    """Tensors of one shape and dtype, stacked to (k, *shape) so that one operation serves them all."""

    def __init__(self, members: list[int], rows: slice, parameters: Sequence[Tensor], copies: int) -> None:
        self.members, self.rows = members, rows
        self.live = [parameters[i] for i in members]
        self.average = torch.stack([p.detach().float() for p in self.live])
        self.averages = list(self.average.unbind())
        self.start = self.average.clone()
        self.importance = self.average[:0]
        self.previous, self.present = (torch.zeros_like(self.average[: None if copies > i else 0]) for i in range(2))


class DynamicEMA:
    """Protected weights theta* (float32) beside live parameters that an optimizer moves.

    `live`, `start` (theta*_0), `average` (theta*) and `importance` are lists in the order of `parameters`.

    Args:
        parameters: live trainable tensors on one device, of any floating dtype; their values now are theta*_0.
        rule: one of `RULES`.
        steps: optimizer steps of this task; bounds `scale_free`, sets the window of the smoothing.
        peak_lr: peak learning rate; scales `scale_free`.
        beta: decay of `fixed` and fallback of `paper`.
        rho, alpha_min, horizon: see `scale_free` above.
        smoothing: window of the running geometric mean of alpha as a share of `steps`; 0 is none, None the
            rule's default (`SMOOTHING`).
        kappa: pull strength of `curvature`.
        importance: F_old of `curvature`, shaped like `parameters`, mean 1 per old task.
        names: names of the parameters for `fallbacks`; their positions where not given.

    Raises:
        ValueError: unknown rule, an argument out of range, or `curvature` without a matching importance.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        rule: str,
        *,
        steps: int,
        peak_lr: float,
        beta: float = 0.98,
        rho: float = 0.1,
        alpha_min: float = 1e-4,
        horizon: float = 3.0,
        smoothing: float | None = None,
        kappa: float = 30.0,
        importance: Sequence[Tensor] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.live = list(parameters)
        self.names = list(names) if names is not None else [str(i) for i in range(len(self.live))]
        self._check(rule, steps, beta, importance)
        self.rule, self.beta, self.kappa = rule, beta, kappa
        self.needs_gradients = rule in DYNAMIC
        share = SMOOTHING.get(rule, 0.0) if smoothing is None else smoothing
        self.window = max(1, round(share * steps)) if self.needs_gradients else 1
        self.updates = 0
        self._blocks = self._stack()
        self.average = self._views("average")
        self.start = self._views("start")
        self.importance: list[Tensor] = []
        if rule == "curvature":
            for block in self._blocks:
                block.importance = torch.stack([(importance or ())[i].to(block.average) for i in block.members])
            self.importance = self._views("importance")
        device, count = self.live[0].device, len(self.live)
        scratch = 2 if rule == "curvature" else 1
        self._scratch = torch.empty(scratch, max(b.average.numel() for b in self._blocks), device=device)
        # One entry per tensor, in the order of the blocks.
        self._order = torch.tensor([i for b in self._blocks for i in b.members], device=device)
        self._speed = rho * peak_lr * torch.cat([torch.full((len(b.live),), b.live[0].numel()) for b in self._blocks])
        self._speed = self._speed.to(device, torch.float32)
        self._bounds = (min(alpha_min, horizon / steps), min(1.0, horizon / steps))
        self._alphas = torch.full((count,), 1 - beta, device=device)
        self._gradient = torch.zeros(count, device=device)  # |g|_1
        self._change = torch.zeros(count, device=device)  # |y|_1
        self._length = torch.zeros(count, device=device)  # |d|_1
        self._distance = torch.zeros(count, device=device)  # |theta_(t-1) - theta*_(t-1)|_1
        self._log_alpha = torch.zeros(count, device=device)
        self._defined = torch.zeros(count, device=device)
        self._fallbacks = torch.zeros(count, dtype=torch.int64, device=device)
        self._read, self._has_previous, self._swapped = False, False, False
        self._stride = 1  # updates merged into one row of the history
        self._history = torch.zeros(HISTORY, len(BAND) + 1, device=device)
        place = torch.tensor(BAND, device=device) * (count - 1)
        self._band = (place.floor().long(), place.ceil().long(), place.frac())

    def _check(self, rule: str, steps: int, beta: float, importance: Sequence[Tensor] | None) -> None:
        if rule not in RULES:
            raise ValueError(f"rule is {rule!r}, expected one of {', '.join(RULES)}")
        if not self.live or len({p.device for p in self.live}) != 1:
            raise ValueError(f"{len(self.live)} parameters given, expected at least one, all on one device")
        if len(self.names) != len(self.live):
            raise ValueError(f"{len(self.names)} names given for {len(self.live)} parameters")
        if steps < 1 or not 0 <= beta <= 1:
            raise ValueError(f"steps is {steps}, beta {beta}; expected at least 1 and a number in [0, 1]")
        shapes = [f.shape for f in importance or ()]
        if rule == "curvature" and shapes != [p.shape for p in self.live]:
            raise ValueError("curvature needs one importance tensor per parameter, of its shape")

    def _stack(self) -> list[_Block]:
        """Tensors of equal shape and dtype, in blocks of at most `CPU_BLOCK` or `GPU_BLOCK` entries."""
        alike: dict[tuple[Any, ...], list[int]] = {}
        for i, p in enumerate(self.live):
            alike.setdefault((p.shape, p.dtype), []).append(i)
        blocks, row = list[_Block](), 0
        copies = 2 if self.needs_gradients else int(self.rule == "fixed")
        limit = CPU_BLOCK if self.live[0].device.type == "cpu" else GPU_BLOCK
        for members in alike.values():
            size = max(1, limit // max(1, self.live[members[0]].numel()))
            for first in range(0, len(members), size):
                block = members[first : first + size]
                rows = slice(row, row := row + len(block))
                blocks.append(_Block(block, rows, self.live, copies))
        return blocks

    def _views(self, field: str) -> list[Tensor]:
        views: dict[int, Tensor] = {}
        for block in self._blocks:
            views |= zip(block.members, getattr(block, field).unbind(), strict=True)
        return [views[i] for i in range(len(self.live))]

    @torch.no_grad()
    def read_gradients(self) -> None:
        """Take |g|_1 and |y|_1 of the gradients at theta; between backward and the optimizer step.

        Raises:
            ValueError: a parameter has no gradient (frozen, or sharded by the optimizer).
        """
        if not self.needs_gradients:
            return
        for name, p in zip(self.names, self.live, strict=True):
            if p.grad is None:
                raise ValueError(f"parameter {name} has no gradient; DynamicEMA reads replicated, unsharded gradients")
        lengths, changes = [], []
        for block in self._blocks:
            present = gather([p.grad for p in block.live if p.grad is not None], block.present)
            scratch = self._like(block, 0)
            lengths.append(torch.abs(present, out=scratch).flatten(1).sum(1))
            if self._has_previous:
                changes.append(torch.sub(present, block.previous, out=scratch).abs_().flatten(1).sum(1))
        self._gradient = torch.cat(lengths)
        if self._has_previous:
            self._change = torch.cat(changes)
        self._read = True

    @torch.no_grad()
    def update(self, lr: float, *, skipped: bool = False) -> None:
        """Move theta* after an optimizer step at learning rate `lr`; a `skipped` step changes nothing.

        Raises:
            RuntimeError: the rule needs gradients and `read_gradients` was not called before the step, or the
                live weights are swapped.
        """
        if self._swapped:
            raise RuntimeError("the live weights are swapped for theta*; leave `swap()` before training goes on")
        read, self._read = self._read, False
        if skipped or self.rule == "none":
            return
        if self.needs_gradients and not read:
            raise RuntimeError(f"rule {self.rule} needs `read_gradients()` before every optimizer step")
        if self.rule == "curvature":
            for block in self._blocks:
                self._pull(block, lr)
        else:
            self._follow()
        self._has_previous = read
        self._record()

    def _follow(self) -> None:
        lengths = []
        for block in self._blocks:
            # The norm |y|_1 is known, so the place of the older gradient is free; it takes the live weights.
            live = gather(block.live, block.previous)
            lengths.append(torch.sub(live, block.average, out=self._like(block, 0)).abs_().flatten(1).sum(1))
        self._length = torch.cat(lengths)
        if self.needs_gradients:
            self._alphas = self._dynamic()
        self._distance = (1 - self._alphas) * self._length
        for block in self._blocks:
            alpha = self._alphas[block.rows].view(-1, *[1] * (block.average.dim() - 1))
            block.average.lerp_(block.previous, alpha)
            if self.needs_gradients:
                block.previous, block.present = block.present, block.previous

    def _dynamic(self) -> Tensor:
        """alpha of every tensor."""
        usable = (self._length > TINY) & (self._change > TINY) & self._gradient.isfinite()
        bottom = torch.where(usable, self._length * self._change, 1.0)
        if self.rule == "scale_free":
            other = self._bounds[0]
            alpha = (self._speed * self._gradient / bottom).clamp_(*self._bounds)
        else:
            other = RELEASED_FALLBACK if self.rule == "released" else 1 - self.beta
            numerator = RELEASED_CONSTANT if self.rule == "released" else self._distance
            alpha = numerator * (1 + self._gradient) / bottom
            usable &= (alpha > 0) & (alpha < 1)
        if self._has_previous:  # the first update has no y yet: nothing was tried
            self._fallbacks += ~usable
        if self.window > 1:
            self._defined += usable
            step = (alpha.log() - self._log_alpha) / self._defined.clamp(1, self.window)
            self._log_alpha += torch.where(usable, step, 0.0)
            alpha = self._log_alpha.exp()
        return torch.where(usable, alpha, other)

    def _pull(self, block: _Block, lr: float) -> None:
        keep = torch.mul(block.importance, -lr * self.kappa, out=self._like(block, 1)).exp_()
        self._alphas[block.rows] = keep.flatten(1).mean(1)
        live = gather(block.live, self._like(block, 0))
        torch.lerp(block.start, live, keep, out=block.average)
        self._distance[block.rows] = torch.sub(block.average, block.start, out=live).abs_().flatten(1).sum(1)
        torch._foreach_copy_(block.live, block.averages)

    def _like(self, block: _Block, which: int) -> Tensor:
        return self._scratch[which, : block.average.numel()].view_as(block.average)

    def _record(self) -> None:
        """Append the band of beta over tensors and the distance; merge neighbours when the rows are full."""
        if self.updates == len(self._history) * self._stride:
            means = (self._history[0::2] + self._history[1::2]) / 2
            self._history.zero_()[: len(means)] = means
            self._stride *= 2
        betas = (1 - self._alphas).sort().values
        low, high, between = self._band
        entry = torch.cat([betas[low].lerp(betas[high], between), self._distance.sum().view(1)])
        self._history[self.updates // self._stride] += entry / self._stride
        self.updates += 1

    @torch.no_grad()
    def consolidate(self, new_importance: Sequence[Tensor], tau: float) -> None:
        """`curvature`, after the last step: theta* by the curvature-weighted average with weight `tau`."""
        parts = zip(self.average, self.live, self.start, self.importance, new_importance, strict=True)
        for average, live, start, old, new in parts:
            weight = new.to(old) / (tau * old + new.to(old)).clamp_min(TINY)
            average.copy_(start + (live - start) * weight)

    @contextmanager
    def swap(self) -> Iterator[None]:
        """Within the block the live weights are theta*, for evaluating or saving; after it they are back, bit for bit.

        Raises:
            RuntimeError: called within itself.
        """
        if self._swapped:
            raise RuntimeError("the live weights are swapped for theta* already")
        with torch.no_grad():
            backup = [p.detach().clone() for p in self.live]
            torch._foreach_copy_(self.live, self.average)
        self._swapped = True
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.live, backup)
            self._swapped = False

    @torch.no_grad()
    def copy_to(self, parameters: Sequence[Tensor]) -> None:
        """Write theta* into other tensors of the same shapes, in the order of the constructor."""
        for target, average in zip(parameters, self.average, strict=True):
            target.copy_(average)

    def fallbacks(self) -> dict[str, int]:
        """Updates that fell back to a fixed alpha, by name of the tensor (one host synchronisation)."""
        counts = torch.empty_like(self._fallbacks)
        counts[self._order] = self._fallbacks
        return dict(zip(self.names, counts.tolist(), strict=True))

    def fallback_share(self) -> float:
        """Share of per-tensor updates that fell back to a fixed alpha, the first one, which has no y, left out.

        One host synchronisation.
        """
        updates = (self.updates - self.needs_gradients) * len(self.live)
        return int(self._fallbacks.sum()) / updates if updates > 0 else 0.0

    def history(self) -> dict[str, list[float]]:
        """Median and 10-90 % band of beta over tensors, and |theta - theta*|_1, over the updates so far.

        `curvature` moves the live weights themselves: there the distance is |theta - theta_old|_1, and beta the
        mean over each tensor's entries.
        One entry per update up to `HISTORY` of them, then the mean over 2, 4, ... updates each.
        """
        rows = -(-self.updates // self._stride)
        table = self._history[:rows].cpu()
        if self.updates % self._stride:
            table[-1] *= self._stride / (self.updates % self._stride)
        names = ("beta_low", "beta_median", "beta_high", "distance")
        return {name: table[:, i].tolist() for i, name in enumerate(names)}

    def state_dict(self) -> dict[str, Tensor]:
        """State that a resumed run needs besides the live weights, as tensors of its own; importance comes again."""
        state = {f"average.{i}": t.clone() for i, t in enumerate(self.average)}
        state |= {f"start.{i}": t.clone() for i, t in enumerate(self.start)}
        if self._has_previous:
            state |= {f"previous.{i}": t.clone() for i, t in enumerate(self._views("previous"))}
        for name, vector in self._vectors().items():
            state[name] = torch.empty_like(vector)
            state[name][self._order] = vector
        state["history"] = self._history[: -(-self.updates // self._stride)].clone()
        state["counters"] = torch.tensor([RULES.index(self.rule), self.updates, self._stride, self.window])
        return state

    def _vectors(self) -> dict[str, Tensor]:
        vectors = {"distance": self._distance, "fallbacks": self._fallbacks}
        return vectors | {"log_alpha": self._log_alpha, "defined": self._defined} if self.window > 1 else vectors

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: the state is of another rule, other steps or smoothing, or other tensors; nothing was changed.
        """
        self._compare(state)
        _, self.updates, self._stride, _ = state["counters"].tolist()
        self._has_previous = "previous.0" in state
        fields = ("average", "start", "previous") if self._has_previous else ("average", "start")
        for field in fields:
            for i, own in enumerate(self._views(field)):
                own.copy_(state[f"{field}.{i}"])
        for name, vector in self._vectors().items():
            vector.copy_(state[name].to(vector)[self._order])
        self._history.zero_()[: len(state["history"])] = state["history"].to(self._history)
        self._read = False

    def _compare(self, state: dict[str, Tensor]) -> None:
        if "counters" not in state:
            raise ValueError("counters are absent: this is no state of this version's DynamicEMA")
        rule, updates, stride, window = state["counters"].tolist()
        if (RULES[rule], window) != (self.rule, self.window):
            raise ValueError(
                f"the state is of rule {RULES[rule]} with a smoothing window of {window} steps, this is {self.rule} "
                f"with {self.window}; resume with the arguments the run was started with"
            )
        fields = ("average", "start", "previous") if "previous.0" in state else ("average", "start")
        own = {f"{field}.{i}": p.shape for field in fields for i, p in enumerate(self.live)}
        own |= {name: vector.shape for name, vector in self._vectors().items()}
        own |= {"counters": torch.Size((4,)), "history": torch.Size((-(-updates // stride), len(BAND) + 1))}
        shapes = {name: tensor.shape for name, tensor in state.items()}
        odd = sorted(name for name in own.keys() | shapes.keys() if own.get(name) != shapes.get(name))
        if odd:
            raise ValueError(
                f"the state does not fit: {odd[0]} is {shapes.get(odd[0], 'absent')}, expected "
                f"{own.get(odd[0], 'absent')} ({len(odd)} tensors differ); it belongs to other parameters"
            )


def gather(tensors: Sequence[Tensor], out: Tensor) -> Tensor:
    """Tensors of one shape, stacked into the float32 tensor `out`."""
    if tensors[0].dtype == out.dtype:
        return torch.stack(tuple(tensors), out=out)
    torch._foreach_copy_(list(out.unbind()), list(tensors))
    return out
