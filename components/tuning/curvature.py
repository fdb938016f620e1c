"""Diagonal Fisher information of an adapter: how much the loss of a task depends on each parameter."""

from collections.abc import Sequence

import torch
from torch import Tensor

from components.model.adapters import AdapterSlot
from components.model.trunk import State, Trunk


def diagonal_fisher(
    trunk: Trunk, slot: AdapterSlot, states: Sequence[State], prompt_lengths: Sequence[int], seed: int
) -> list[Tensor]:
    """E[(d log p(y|x) / d theta)^2] with labels y sampled from the model, normalised to mean 1.

    One backward pass per row. Sampled labels make this the Fisher information rather than the empirical
    one (Kunstner et al., NeurIPS 2019); the normalisation makes tasks commensurable (a task that is
    fitted perfectly would otherwise have no curvature at all).

    Returns one tensor per slot parameter, in its order; all ones if no gradient reaches the adapter.
    """
    generator = torch.Generator(device=trunk.base.device).manual_seed(seed)
    parameters = list(slot.parameters.values())
    total = [torch.zeros_like(p) for p in parameters]
    for state, length in zip(states, prompt_lengths, strict=True):
        logits = trunk.answer_logits([state], [length])[0]
        with torch.no_grad():
            labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        gradients = torch.autograd.grad(loss, parameters)
        torch._foreach_addcmul_(total, gradients, gradients)
    mean = sum(t.sum() for t in total) / sum(t.numel() for t in total)
    if mean <= 0:
        return [torch.ones_like(t) for t in total]
    return [t / mean for t in total]
