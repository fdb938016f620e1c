"""Two adapters become one of the same rank: the best low-rank approximation of the weighted sum of their updates.

Adding `lora_A` and `lora_B` entry by entry would mix bases that have nothing to do with each other; what an adapter
does is the product B A. The diagonal curvature follows the change of basis.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from components.model.adapters import AdapterError, is_projector

WEIGHT = 0.75
"""Of each update in the sum. At 1 two unlike updates disturb each other more, at 0.5 two alike ones lose more of what
they can do (benchmarks/grouping, one seed)."""

_A, _B = ".lora_A.", ".lora_B."


def merge_adapters(
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    weights: tuple[float, float] = (WEIGHT, WEIGHT),
    curvatures: tuple[Mapping[str, Tensor] | None, Mapping[str, Tensor] | None] = (None, None),
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """The merged adapter and its curvature, None where neither has one.

    Per pair of `lora_A` (rank, in) and `lora_B` (out, rank): B A is the truncated singular value decomposition of
    w1 B1 A1 + w2 B2 A2, the nearest matrix of that rank (Eckart and Young 1936), its singular values shared evenly
    between the factors. With A = T [A1; A2] and B = [B1 B2] S, a diagonal Fisher goes over with the squares of T and S
    (cross terms are dropped, as a diagonal drops them), then is scaled so that its mean is the sum of both means:
    each task keeps the weight it had. Tensors of a projector, which are whole, are averaged; their Fishers add up.

    Raises:
        AdapterError: the two do not have the same tensors, or tensors that are no LoRA pairs.
    """
    if first.keys() != second.keys() or any(first[n].shape != second[n].shape for n in first):
        raise AdapterError("two adapters with different tensors cannot be merged; a pool keeps its `adapter` settings")
    known = [curvature for curvature in curvatures if curvature is not None]
    tensors: dict[str, Tensor] = {}
    curvature: dict[str, Tensor] = {}
    for name in sorted(name for name in first if is_projector(name)):
        tensors[name] = (first[name] + second[name]) / 2
        if known:
            curvature[name] = sum((_or_zeros(c, name, first) for c in curvatures), torch.zeros_like(first[name]))
    for a in sorted(name for name in first if _A in name):
        b = a.replace(_A, _B)
        if b not in first:
            raise AdapterError(f"{a} has no partner {b}, expected LoRA pairs")
        rows = torch.cat([first[a], second[a]]).double()
        columns = torch.cat([first[b] * weights[0], second[b] * weights[1]], dim=1).double()
        tensors[a], tensors[b] = _factors(columns, rows, rank=len(first[a]))
        if known:
            plain = torch.cat([first[b], second[b]], dim=1).double()
            down = tensors[a].double() @ torch.linalg.pinv(rows)  # T: (rank, 2 rank)
            up = torch.linalg.pinv(plain) @ tensors[b].double()  # S: (2 rank, rank)
            fisher_a = torch.cat([_or_zeros(c, a, first) for c in curvatures]).double()
            fisher_b = torch.cat([_or_zeros(c, b, first) for c in curvatures], dim=1).double()
            curvature[a], curvature[b] = up.square().T @ fisher_a, fisher_b @ down.square().T
    if len(tensors) != len(first):
        raise AdapterError(f"{len(first) - len(tensors)} tensors of the adapter belong to no LoRA pair")
    single = {name: tensor.float() for name, tensor in tensors.items()}
    return single, _scaled(curvature, sum(_mean(c) for c in known)) if known else None


def _factors(columns: Tensor, rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """`lora_A` and `lora_B` of the best approximation of `columns @ rows`, without forming the product."""
    left, left_r = torch.linalg.qr(columns)
    right, right_r = torch.linalg.qr(rows.T)
    u, values, v = torch.linalg.svd(left_r @ right_r.T)
    u, values, v = left @ u[:, :rank], values[:rank], v[:rank] @ right.T
    largest = u.abs().argmax(dim=0)
    sign = torch.where(u[largest, torch.arange(rank)] < 0, -1.0, 1.0)  # a singular vector's sign is arbitrary
    root = values.sqrt() * sign
    return root[:, None] * v, u * root


def _or_zeros(curvature: Mapping[str, Tensor] | None, name: str, like: Mapping[str, Tensor]) -> Tensor:
    return torch.zeros_like(like[name]) if curvature is None else curvature[name]


def _mean(tensors: Mapping[str, Tensor]) -> float:
    return float(sum(t.double().sum() for t in tensors.values()) / sum(t.numel() for t in tensors.values()))


def _scaled(tensors: Mapping[str, Tensor], mean: float) -> dict[str, Tensor]:
    own = _mean(tensors)
    factor = mean / own if own > 0 else 0.0
    return {name: (tensor * factor).float() for name, tensor in tensors.items()}
