"""Choosing among given answers by their likelihood."""

from collections.abc import Sequence

import torch
from torch import Tensor

from components.model.prompts import Rendered


def log_likelihood(logits: Tensor, row: Rendered) -> float:
    """Log-likelihood of a row's answer, its end token included; `logits` (answer, vocabulary) are those at it."""
    answer = torch.tensor(row.answer, device=logits.device)
    return float(logits.log_softmax(-1).gather(1, answer[:, None]).sum())


def likeliest(
    likelihoods: Sequence[float], rows: Sequence[Rendered], *, by_token: bool, alone: float
) -> tuple[int, float]:
    """Place of the likeliest of `rows`, the first of equals, and its lead over the second.

    `by_token` compares means over the answers' tokens instead of sums. The lead of an only row is `alone`.
    """
    pairs = zip(likelihoods, rows, strict=True)
    values = [likelihood / (len(row.answer) if by_token else 1) for likelihood, row in pairs]
    best, *others = sorted(range(len(values)), key=lambda i: -values[i])
    return best, values[best] - values[others[0]] if others else alone
