"""Spreading the frozen base's layers over processes (FSDP), for a base model that one GPU can't hold.

The adapter stays whole in every process, so optimizer, EMA and checkpoints are those of an unspread base. Each layer is
gathered when it runs and given back after it: all processes must run the same layers in the same order.

Tested with processes on a CPU only. It stays because a base model larger than one GPU can't be tuned without it.
"""

from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from components.model.adapters import AdapterSlot
from components.model.base import BaseModel, BaseModelError


def spread(base: BaseModel, slot: AdapterSlot) -> None:
    """Leave each process its part of every decoder layer; what is not in a layer (embeddings, head, eyes) stays whole.

    Raises:
        BaseModelError: the architecture has no list of decoder layers.
    """
    layers: Any = getattr(base.model.get_decoder(), "layers", None)
    if not isinstance(layers, torch.nn.ModuleList):
        raise BaseModelError(
            f"base_model.sharded is on, but {type(base.model).__name__} has no list of decoder layers; set it to false"
        )
    device = "cuda" if torch.cuda.is_available() and base.settings.device != "cpu" else "cpu"
    mesh = init_device_mesh(device, (base.ranks.count,))
    whole = set(slot.parameters.values())
    for layer in layers:  # given back after it ran: left to itself, a layer that is called alone is kept
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    base.model.to(device)
