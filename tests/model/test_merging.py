import pytest
import torch

from components.model.adapters import AdapterError
from components.model.merging import merge_adapters

RANK, INPUTS, OUTPUTS = 3, 12, 9
NAMES = ("base.layers.0.q_proj", "base.layers.1.down_proj")


def adapter(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in NAMES:
        tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, INPUTS, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(OUTPUTS, RANK, generator=generator)
    return tensors


def update(tensors, name):
    return (tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]).double()


def positive(seed: int) -> dict[str, torch.Tensor]:
    return {name: tensor.abs() for name, tensor in adapter(seed).items()}


def mean(tensors) -> float:
    return float(torch.cat([tensor.flatten() for tensor in tensors.values()]).double().mean())


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.25, 0.75)])
def test_merged_update_is_the_truncated_svd_of_the_weighted_sum(weights):
    """The oracle: the whole product, decomposed."""
    first, second = adapter(1), adapter(2)
    merged, curvature = merge_adapters(first, second, weights)
    assert curvature is None
    for name in NAMES:
        whole = weights[0] * update(first, name) + weights[1] * update(second, name)
        u, values, v = torch.linalg.svd(whole)
        best = u[:, :RANK] * values[:RANK] @ v[:RANK]
        assert torch.allclose(update(merged, name), best, atol=1e-5)
        a, b = merged[f"{name}.lora_A.weight"], merged[f"{name}.lora_B.weight"]
        assert a.dtype == b.dtype == torch.float32
        assert torch.allclose(a.norm(dim=1), b.norm(dim=0), rtol=1e-4)


def test_an_adapter_without_effect_changes_nothing():
    first, idle = adapter(1), adapter(2)
    idle = {name: torch.zeros_like(t) if ".lora_B." in name else t for name, t in idle.items()}
    merged, _ = merge_adapters(first, idle, (1.0, 1.0))
    for name in NAMES:
        assert torch.allclose(update(merged, name), update(first, name), atol=1e-5)


def test_updates_in_orthogonal_spaces_of_half_the_rank_are_both_kept():
    first, second = adapter(1), adapter(1)
    for name in NAMES:
        a, b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        for tensors, rows, columns in ((first, slice(0, 6), slice(0, 4)), (second, slice(6, 12), slice(4, 9))):
            tensors[a], tensors[b] = torch.zeros(RANK, INPUTS), torch.zeros(OUTPUTS, RANK)
            tensors[a][0, rows], tensors[b][columns, 0] = 1.0, 1.0
    merged, _ = merge_adapters(first, second, (1.0, 0.5))
    for name in NAMES:
        assert torch.allclose(update(merged, name), update(first, name) + update(second, name) / 2, atol=1e-5)


def test_order_does_not_matter_and_the_result_is_the_same_every_time():
    first, second = adapter(1), adapter(2)
    curvatures = positive(3), positive(4)
    there, fisher = merge_adapters(first, second, curvatures=curvatures)
    again, same = merge_adapters(first, second, curvatures=curvatures)
    back, turned = merge_adapters(second, first, curvatures=curvatures[::-1])
    for name in there:
        assert torch.equal(there[name], again[name])
        assert torch.equal(fisher[name], same[name])
        assert torch.allclose(there[name], back[name], atol=1e-4)
        assert torch.allclose(fisher[name], turned[name], rtol=1e-3, atol=1e-4)


def test_curvature_follows_the_basis_and_keeps_the_weight_of_both():
    first, second = adapter(1), adapter(2)
    _, both = merge_adapters(first, second, curvatures=(positive(3), positive(4)))
    assert all((tensor >= 0).all() for tensor in both.values())
    assert mean(both) == pytest.approx(mean(positive(3)) + mean(positive(4)), rel=1e-5)
    _, one = merge_adapters(first, second, curvatures=(positive(3), None))
    assert mean(one) == pytest.approx(mean(positive(3)), rel=1e-5)

    # An adapter that already is its own singular value decomposition keeps its curvature entry by entry.
    nothing = {name: torch.zeros_like(t) for name, t in first.items()}
    own, _ = merge_adapters(first, nothing, (1.0, 1.0))
    _, kept = merge_adapters(own, nothing, (1.0, 1.0), (positive(3), None))
    for name, tensor in positive(3).items():
        assert torch.allclose(kept[name], tensor, rtol=1e-3)


def test_what_does_not_belong_together_is_refused():
    other = {name: tensor[:, :5] for name, tensor in adapter(2).items()}
    with pytest.raises(AdapterError, match="different tensors"):
        merge_adapters(adapter(1), other)
    lonely = {"base.q_proj.lora_A.weight": torch.ones(RANK, INPUTS)}
    with pytest.raises(AdapterError, match="no partner"):
        merge_adapters(lonely, lonely)
    odd = {**adapter(1), "bias": torch.ones(3)}
    with pytest.raises(AdapterError, match="no LoRA pair"):
        merge_adapters(odd, odd)
