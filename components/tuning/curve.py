"""Points of the stability-plasticity curve: mixes of a group's old adapter with the newly tuned one.

    theta = parent + lambda (live - parent),

with one lambda for the adapter (Wortsman et al., arXiv 2109.01903) or one per group of layers, since layers may
differ in how much of the new task and how much of the old ones they hold.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import product

from torch import Tensor

Tensors = dict[str, Tensor]


def mix(parent: Mapping[str, Tensor], live: Mapping[str, Tensor], shares: Mapping[str, float] | float) -> Tensors:
    """parent + share (live - parent), with one share for all tensors or one per tensor name; 0 and 1 are exact.

    Raises:
        ValueError: names of `parent`, `live` and `shares` differ.
    """
    if not isinstance(shares, Mapping):
        shares = dict.fromkeys(live, shares)
    if parent.keys() != live.keys() or live.keys() != shares.keys():
        odd = sorted((parent.keys() ^ live.keys()) | (live.keys() ^ shares.keys()))
        raise ValueError(f"{len(odd)} tensors are not in the parent, the live adapter and the shares, first {odd[0]}")
    return {name: parent[name].lerp(tensor, shares[name]) for name, tensor in live.items()}


def layer_groups(names: Sequence[str], count: int) -> list[list[str]]:
    """Tensor names in `count` groups of neighbouring adapted layers, lowest first, of as equal size as possible.

    The layer is the first number between dots, as in `base_model.model.model.layers.24.mlp.up_proj.lora_A.weight`.

    Raises:
        ValueError: a name has no layer, or there are fewer layers than groups.
    """
    layer_of = {}
    for name in names:
        match = re.search(r"\.(\d+)\.", name)
        if not match:
            raise ValueError(f"{name} has no layer number between dots")
        layer_of[name] = int(match[1])
    layers = sorted(set(layer_of.values()))
    if not 1 <= count <= len(layers):
        raise ValueError(f"{count} groups of {len(layers)} adapted layers were asked for; expected 1 to {len(layers)}")
    group_of = {layer: i * count // len(layers) for i, layer in enumerate(layers)}
    return [[name for name in names if group_of[layer_of[name]] == group] for group in range(count)]


def grid(names: Sequence[str], groups: int, shares: Sequence[float]) -> dict[str, dict[str, float]]:
    """Shares by tensor name for every combination of `shares` over `groups` groups of layers.

    Keyed by the name of the point: `mix-0.3` for one share everywhere, `mix-0.3-0.6` for 0.3 in the lower half
    of the layers and 0.6 in the upper one.
    """
    members = layer_groups(names, groups)
    points = {}
    for combination in product(shares, repeat=groups):
        distinct = combination if len(set(combination)) > 1 else combination[:1]
        share_of = {name: share for group, share in zip(members, combination, strict=True) for name in group}
        points["mix-" + "-".join(f"{share:g}" for share in distinct)] = share_of
    return points
