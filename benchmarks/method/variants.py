"""Variants of the method that only the comparison needs; the product has no settings for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from components.model.adapters import AdapterSlot
from components.tuning import run
from components.tuning.dynamic_ema import DynamicEMA

Tensors = dict[str, Tensor]
TASK_RANK = 8
"""Rank that `orthogonal` gives to each task; the slot's rank is that of all tasks together."""


class RoundedEMA(DynamicEMA):
    """theta* kept in bfloat16: rounded to nearest after every update."""

    @torch.no_grad()
    def update(self, lr: float, *, skipped: bool = False) -> None:
        """As `DynamicEMA.update`."""
        super().update(lr, skipped=skipped)
        for average in self.average:
            average.copy_(average.bfloat16())


@contextmanager
def applied(variant: str, slot: AdapterSlot, earlier: int) -> Iterator[None]:
    """Within the block tuning runs under `variant`; `earlier` is the number of tasks the adapter has learnt.

    `bfloat16`: theta* is rounded to bfloat16. `orthogonal:<weight>`: O-LoRA (arXiv 2310.14152).
    """
    name, _, value = variant.partition(":")
    if name == "bfloat16":
        kept, run.DynamicEMA = run.DynamicEMA, RoundedEMA  # type: ignore[misc]
        try:
            yield
        finally:
            run.DynamicEMA = kept  # type: ignore[misc]
    elif name == "orthogonal":
        hooks = [p.register_hook(_own_slice(n, p, earlier, float(value))) for n, p in slot.parameters.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
    else:
        yield


def _own_slice(name: str, parameter: Tensor, earlier: int, weight: float) -> Any:
    """Gradient of one task's slice of a LoRA pair: the loss plus weight |A_task A_earlier^T|_1; zero elsewhere.

    lora_A is (rank, in), lora_B (out, rank); task t owns rows, or columns, t TASK_RANK to (t + 1) TASK_RANK.
    """
    own = slice(earlier * TASK_RANK, (earlier + 1) * TASK_RANK)
    is_a = ".lora_A." in name

    def change(gradient: Tensor) -> Tensor:
        masked = torch.zeros_like(gradient)
        if not is_a:
            masked[:, own] = gradient[:, own]
            return masked
        old, new = parameter.detach()[: own.start], parameter.detach()[own]
        masked[own] = gradient[own] + weight * (new @ old.T).sign() @ old
        return masked

    return change


def damped(variant: str, curvature: Tensors | None) -> Tensors | None:
    """F_old as the rule sees it: `damping:<x>` adds x to every entry, a pull towards theta_old everywhere."""
    name, _, value = variant.partition(":")
    if name != "damping" or curvature is None:
        return curvature
    return {key: f + float(value) for key, f in curvature.items()}


def undamped(total: Tensors | None, given: Tensors | None, old: Tensors | None) -> Tensors | None:
    """F_old of the next task: `total`, which was made from `given`, without what `damped` added to `old`."""
    if total is None or given is None or old is None:
        return total
    return {key: f - given[key] + old[key] for key, f in total.items()}
