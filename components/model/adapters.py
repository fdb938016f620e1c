"""One LoRA slot on the frozen base; adapters are sets of named float32 tensors loaded into it.

Files are PEFT's own (`adapter_config.json`, `adapter_model.safetensors`), so every PEFT-aware tool
reads them; they are written with sorted keys and without machine paths, so equal adapters are equal bytes.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from components.errors import LciaError
from components.model.base import BaseModel
from components.settings import AdapterSettings
from components.storage.objects import ObjectStore

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
SHAPING = {
    "r": "adapter.rank",
    "lora_alpha": "adapter.alpha",
    "layers_to_transform": "adapter.top_layers",
    "target_modules": "adapter.modules",
}
"""Keys of PEFT's configuration that change what the same tensors do, and the settings behind them."""


class AdapterError(LciaError):
    """An adapter that does not fit the base model or is damaged."""


class AdapterSlot:
    """The place in the base model where one adapter at a time is applied.

    `parameters` maps PEFT state-dict names to trainable float32 parameters, in sorted order:
    `lora_A` (rank, in), `lora_B` (out, rank).
    """

    def __init__(self, base: BaseModel, settings: AdapterSettings) -> None:
        layers = base.model.config.num_hidden_layers
        count = layers if settings.top_layers == "all" else settings.top_layers
        if count > layers:
            raise AdapterError(f"adapter.top_layers is {count}, but the base model has {layers} layers")
        self.first_layer = layers - count
        self.config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=list(settings.modules),
            layers_to_transform=list(range(self.first_layer, layers)),
            task_type="CAUSAL_LM",
        )
        try:
            self.model = get_peft_model(base.model, self.config)
        except ValueError as error:
            raise AdapterError(
                f"adapter.modules {', '.join(settings.modules)} do not occur in the last {count} layers of "
                f"{base.settings.name}: {error}"
            ) from error
        named = {_state_name(n): p for n, p in self.model.named_parameters() if p.requires_grad}
        self.parameters: dict[str, nn.Parameter] = dict(sorted(named.items()))
        for parameter in self.parameters.values():
            parameter.data = parameter.data.float()
        self.model.eval()

    def initialise(self, seed: int) -> None:
        """PEFT's default start: A uniform (Kaiming, a = sqrt 5), B zero; the output is the base's own."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.parameters.items():
            if ".lora_A." in name:
                bound = parameter.shape[1] ** -0.5
                draw = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
                parameter.data.copy_(draw)
            else:
                parameter.data.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """A copy of the adapter in the slot, on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.parameters.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put an adapter into the slot.

        Raises:
            AdapterError: names or shapes are not those of this base model and `adapter` settings.
        """
        if tensors.keys() != self.parameters.keys():
            odd = sorted(tensors.keys() ^ self.parameters.keys())
            raise AdapterError(f"the adapter does not fit the base model: {len(odd)} names differ, first {odd[0]}")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if tensors[name].shape != parameter.shape:
                    raise AdapterError(
                        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(parameter.shape)}; was "
                        "`adapter.rank` changed? A pool keeps the rank it began with"
                    )
                parameter.copy_(tensors[name])

    def fetch(self, store: ObjectStore, digest: str) -> dict[str, Tensor]:
        """The tensors of a stored adapter that was made for a slot like this one.

        Raises:
            AdapterError: it was made under other `adapter` settings, so here it would compute something else.
            ObjectMissing, ObjectCorrupt: see `fetch_adapter`.
        """
        tensors = fetch_adapter(store, digest)
        stored = store.get_json(store.folder_files(digest)[CONFIG])
        own = {**self.config.to_dict(), "target_modules": sorted(self.config.target_modules)}
        for key, setting in SHAPING.items():
            if stored.get(key) != own[key]:
                raise AdapterError(
                    f"adapter {digest[:12]} was made with {key} {stored.get(key)}, the settings ask for {own[key]}; "
                    f"a pool keeps the {setting} it began with: set it back or use another `assistant`"
                )
        return tensors

    def dropout(self, *, active: bool) -> None:
        """Switch LoRA dropout; the frozen base always runs in evaluation mode."""
        for name, module in self.model.named_modules():
            if "lora_dropout" in name:
                module.train(active)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Within the block the base model answers alone."""
        with self.model.disable_adapter():
            yield

    def files(self, tensors: Mapping[str, Tensor], base_digest: str) -> dict[str, bytes]:
        """The adapter as PEFT files; equal tensors give equal bytes."""
        config = {k: sorted(v) if isinstance(v, set) else v for k, v in self.config.to_dict().items()}
        config["target_modules"] = sorted(config["target_modules"])
        config["base_model_name_or_path"] = f"sha256:{base_digest}"
        config["inference_mode"] = True
        text = json.dumps(config, sort_keys=True, indent=1, default=str)
        ordered = {name: tensors[name].contiguous() for name in sorted(tensors)}
        return {CONFIG: text.encode(), WEIGHTS: save(ordered, metadata={"format": "pt"})}


def read_weights(data: bytes) -> dict[str, Tensor]:
    """Tensors of an `adapter_model.safetensors` file.

    Raises:
        AdapterError: the bytes are no safetensors file.
    """
    try:
        tensors: dict[str, Tensor] = load(data)
    except SafetensorError as error:
        raise AdapterError(f"{len(data)} bytes expected to be a safetensors file are none: {error}") from error
    return tensors


def _state_name(name: str) -> str:
    return re.sub(r"\.default(?=\.|$)", "", name)


def store_adapter(store: ObjectStore, files: Mapping[str, bytes]) -> str:
    """Put adapter files into the object store as a folder object; returns its digest."""
    return store.put_json({"kind": "folder", "files": {name: store.put(data) for name, data in files.items()}})


def fetch_adapter(store: ObjectStore, digest: str) -> dict[str, Tensor]:
    """The tensors of a stored adapter.

    Raises:
        ObjectMissing, ObjectCorrupt: a file is absent or was altered.
        AdapterError: the object is no adapter.
    """
    files = store.folder_files(digest)
    if not files.keys() >= {WEIGHTS, CONFIG}:
        raise AdapterError(f"object {digest} holds {', '.join(sorted(files))}, expected {WEIGHTS} and {CONFIG}")
    return read_weights(store.get(files[WEIGHTS]))
