"""Dynamic EMA for continual adapter tuning. Needs torch and nothing else.

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

`curvature` replaces the paper's stability term, a distance of parameters, by the loss of the old tasks to
second order. With their diagonal Fisher F_old it pulls the live weights after each step,

    theta <- theta_old + (theta - theta_old) exp(-lr_t kappa F_old)

so beta = 1 - exp(-lr_t kappa F_old) per parameter, always in [0, 1]; `consolidate` then averages once,

    theta* = theta_old + (theta - theta_old) F_new / (tau F_old + F_new).

Usage, once per optimizer step (with a gradient scaler: after `unscale_`, and with `skipped=True` when
the scaler skipped the step; with several processes: after gradients are reduced):

    ema = DynamicEMA(parameters, "scale_free", steps=120, peak_lr=1e-3)
    loss.backward(); ema.read_gradients(); optimizer.step(); ema.update(lr)
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

RULES = ("none", "fixed", "paper", "released", "scale_free", "curvature")
RELEASED_CONSTANT, RELEASED_FALLBACK = 2.0, 0.01
TINY = 1e-12


class DynamicEMA:
    """Protected weights theta* (float32) beside live parameters that an optimizer moves.

    Args:
        parameters: live trainable tensors, float32, in a fixed order; their present values are theta*_0.
        rule: one of `RULES`.
        steps: optimizer steps of this task; bounds `scale_free`.
        peak_lr: peak learning rate; scales `scale_free`.
        beta: decay of `fixed` and fallback of `paper`.
        rho, alpha_min, horizon: see `scale_free` above.
        kappa: pull strength of `curvature`.
        importance: F_old of `curvature`, shaped like `parameters`, mean 1 per old task.

    Raises:
        ValueError: unknown rule, or `curvature` without a matching importance.
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
        kappa: float = 30.0,
        importance: Sequence[Tensor] | None = None,
    ) -> None:
        if rule not in RULES:
            raise ValueError(f"rule is {rule!r}, expected one of {', '.join(RULES)}")
        if rule == "curvature" and (importance is None or len(importance) != len(parameters)):
            raise ValueError("curvature needs one importance tensor per parameter")
        self.rule, self.beta, self.kappa = rule, beta, kappa
        self.live = list(parameters)
        self.start = [p.detach().float().clone() for p in self.live]
        self.average = [p.clone() for p in self.start]
        self.importance = [f.to(p) for f, p in zip(importance or (), self.live, strict=False)]
        device = self.live[0].device
        count = len(self.live)
        sizes = torch.tensor([p.numel() for p in self.live], dtype=torch.float32, device=device)
        self._speed = rho * peak_lr * sizes
        self._bounds = (min(alpha_min, horizon / steps), min(1.0, horizon / steps))
        self._previous: list[Tensor] | None = None  # gradients of the last step that was not skipped
        self._present: list[Tensor] | None = None  # gradients read, their step not yet taken
        self._change = torch.zeros(count, device=device)
        self._gradient = torch.zeros(count, device=device)
        self._distance = torch.zeros(count, device=device)  # |theta_(t-1) - theta*_(t-1)|_1
        self._fallbacks = torch.zeros((), device=device)
        self._alphas: list[Tensor] = []
        self._distances: list[Tensor] = []

    @property
    def needs_gradients(self) -> bool:
        """Whether the rule reads gradients at all."""
        return self.rule in ("paper", "released", "scale_free")

    @torch.no_grad()
    def read_gradients(self) -> None:
        """Take |g|_1 and |y|_1 of the gradients at theta; between backward and the optimizer step.

        Raises:
            ValueError: a parameter has no gradient (frozen, or sharded by the optimizer).
        """
        if not self.needs_gradients:
            return
        gradients = [p.grad for p in self.live]
        if any(g is None for g in gradients):
            raise ValueError("a parameter has no gradient; DynamicEMA reads replicated, unsharded gradients")
        self._present = [g.detach().to(torch.float32, copy=True) for g in gradients if g is not None]
        self._gradient = torch.stack(torch._foreach_norm(self._present, 1))
        if self._previous is None:
            self._change = torch.zeros_like(self._gradient)
            return
        self._change = torch.stack(torch._foreach_norm(torch._foreach_sub(self._previous, self._present), 1))

    @torch.no_grad()
    def update(self, lr: float, *, skipped: bool = False) -> None:
        """Move theta* after an optimizer step at learning rate `lr`; `skipped` steps change nothing."""
        present, self._present = self._present, None
        if skipped or self.rule == "none":
            return
        self._previous = present or self._previous
        if self.rule == "curvature":
            self._pull(lr)
            return
        difference = torch._foreach_sub(self.live, self.average)
        length = torch.stack(torch._foreach_norm(difference, 1)).float()
        alpha, fallback = self._alpha(length)
        self._distance = (1 - alpha) * length
        torch._foreach_mul_(difference, list(alpha.unbind()))
        torch._foreach_add_(self.average, difference)
        self._fallbacks += fallback.sum()
        self._alphas.append(alpha)
        self._distances.append(self._distance.sum())

    def _alpha(self, length: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, fell back), one per tensor, given |d|_1."""
        if self.rule == "fixed":
            return torch.full_like(length, 1 - self.beta), torch.zeros_like(length, dtype=torch.bool)
        defined = (length > TINY) & (self._change > TINY)
        bottom = torch.where(defined, length * self._change, 1.0)
        if self.rule == "scale_free":
            low, high = self._bounds
            raw = (self._speed * self._gradient / bottom).clamp(low, high)
            return torch.where(defined, raw, low), ~defined
        numerator = RELEASED_CONSTANT if self.rule == "released" else self._distance
        raw = numerator * (1 + self._gradient) / bottom
        usable = defined & (raw > 0) & (raw < 1)
        other = RELEASED_FALLBACK if self.rule == "released" else 1 - self.beta
        return torch.where(usable, raw, other), ~usable

    def _pull(self, lr: float) -> None:
        keep = torch._foreach_mul(self.importance, -lr * self.kappa)
        torch._foreach_exp_(keep)
        difference = torch._foreach_sub(self.live, self.start)
        torch._foreach_mul_(difference, keep)
        torch._foreach_copy_(self.live, torch._foreach_add(self.start, difference))
        torch._foreach_copy_(self.average, self.live)
        kept = torch.stack([k.mean() for k in keep])
        self._alphas.append(kept)
        self._distances.append(torch.stack(torch._foreach_norm(difference, 1)).sum())

    @torch.no_grad()
    def consolidate(self, new_importance: Sequence[Tensor], tau: float) -> None:
        """`curvature`, after the last step: theta* by the curvature-weighted average with weight `tau`."""
        parts = zip(self.average, self.live, self.start, self.importance, new_importance, strict=True)
        for average, live, start, old, new in parts:
            weight = new / (tau * old + new).clamp_min(TINY)
            average.copy_(start + (live - start) * weight)

    def fallback_share(self) -> float:
        """Share of per-tensor updates that fell back to a fixed alpha (one host synchronisation)."""
        updates = len(self._alphas) * len(self.live)
        return self._fallbacks.item() / updates if updates else 0.0

    def history(self) -> dict[str, list[float]]:
        """Per step: median and 10-90 % band of beta over tensors, and |theta - theta*|_1."""
        if not self._alphas:
            return {"beta_low": [], "beta_median": [], "beta_high": [], "distance": []}
        betas = 1 - torch.stack(self._alphas).float().cpu()
        band = torch.quantile(betas, torch.tensor([0.1, 0.5, 0.9]), dim=1)
        return {
            "beta_low": band[0].tolist(),
            "beta_median": band[1].tolist(),
            "beta_high": band[2].tolist(),
            "distance": torch.stack(self._distances).cpu().tolist(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Tensors that a resumed run needs; `start` and importance come from the constructor again."""
        state: dict[str, Any] = {f"average.{i}": t for i, t in enumerate(self.average)}
        state |= {f"start.{i}": t for i, t in enumerate(self.start)}
        state |= {f"previous.{i}": t for i, t in enumerate(self._previous or ())}
        state |= {"distance": self._distance, "fallbacks": self._fallbacks}
        if self._alphas:
            state |= {"alphas": torch.stack(self._alphas), "distances": torch.stack(self._distances)}
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        for i in range(len(self.live)):
            self.average[i].copy_(state[f"average.{i}"])
            self.start[i].copy_(state[f"start.{i}"])
        if "previous.0" in state:
            self._previous = [state[f"previous.{i}"].to(p).clone() for i, p in enumerate(self.live)]
        self._distance = state["distance"].to(self._distance)
        self._fallbacks = state["fallbacks"].to(self._fallbacks)
        if "alphas" in state:
            self._alphas = list(state["alphas"].to(self._distance).unbind())
            self._distances = list(state["distances"].to(self._distance).unbind())
