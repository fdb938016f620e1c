"""Mixes of parent and live adapter, uniform and by groups of layers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tuning.curve import grid, layer_groups, mix

NAMES = [f"base_model.model.model.layers.{i}.mlp.up_proj.lora_{half}.weight" for i in (24, 25, 9, 28) for half in "AB"]


def adapter(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(3, 4, generator=draw) for name in NAMES}


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1))
def test_a_uniform_mix_lies_on_the_line_and_its_ends_are_exact(share) -> None:
    parent, live = adapter(0), adapter(1)
    mixed = mix(parent, live, share)
    for name in NAMES:
        torch.testing.assert_close(mixed[name], parent[name] + share * (live[name] - parent[name]))
        assert torch.equal(mix(parent, live, 0.0)[name], parent[name])
        assert torch.equal(mix(parent, live, 1.0)[name], live[name])


def test_every_tensor_takes_its_own_share() -> None:
    parent, live = adapter(0), adapter(1)
    mixed = mix(parent, live, {name: float(".28." in name) for name in NAMES})
    for name in NAMES:
        assert torch.equal(mixed[name], live[name] if ".28." in name else parent[name])


def test_layers_are_grouped_by_number_not_by_name() -> None:
    lower, upper = layer_groups(NAMES, 2)
    assert {name.split(".")[4] for name in lower} == {"9", "24"}
    assert {name.split(".")[4] for name in upper} == {"25", "28"}
    assert [len(g) for g in layer_groups(NAMES, 3)] == [4, 2, 2]
    assert layer_groups(NAMES, 1) == [NAMES]


def test_the_grid_covers_all_combinations_and_names_the_uniform_ones_as_ever() -> None:
    points = grid(NAMES, 2, (0.3, 0.6, 1.0))
    assert len(points) == 9
    assert {"mix-0.3", "mix-1", "mix-0.3-0.6", "mix-0.6-0.3"} <= points.keys()
    lower, upper = layer_groups(NAMES, 2)
    assert points["mix-0.3-0.6"] == dict.fromkeys(lower, 0.3) | dict.fromkeys(upper, 0.6)
    assert points["mix-0.6"] == dict.fromkeys(NAMES, 0.6)
    assert list(grid(NAMES, 1, (0.5,))) == ["mix-0.5"]


def test_what_does_not_fit_is_refused() -> None:
    parent, live = adapter(0), adapter(1)
    with pytest.raises(ValueError, match="1 tensors are not in"):
        mix({k: v for k, v in parent.items() if k != NAMES[0]}, live, 0.5)
    with pytest.raises(ValueError, match="8 tensors are not in"):
        mix(parent, live, {})
    with pytest.raises(ValueError, match="no layer number"):
        layer_groups(["lora_A.weight"], 1)
    with pytest.raises(ValueError, match="5 groups of 4 adapted layers"):
        layer_groups(NAMES, 5)
