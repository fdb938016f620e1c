"""One LoRA slot on the frozen base; adapters are sets of named float32 tensors loaded into it.

An adapter on fewer layers than the slot, or of a lower rank at the same scale alpha / r, is completed: what it lacks
gets A at its start and B zero, so that it computes the same and can learn there. A pool may so hold adapters of several
depths; each keeps its own files and digest until it is tuned.

Files are PEFT's own (`adapter_config.json`, `adapter_model.safetensors`), so every PEFT-aware tool
reads them; they are written with sorted keys and without machine paths, so equal adapters are equal bytes.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import ModulesToSaveWrapper
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from components.errors import LciaError
from components.model.base import BaseModel
from components.settings import AdapterSettings
from components.storage.objects import Json, ObjectStore, canonical, digest_of

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
DIGEST = "sha256:"
"""Prefix of a stored adapter's name for its base model, before the digest; a bundle names its folder instead."""
SHAPING = {"target_modules": "adapter.modules", "modules_to_save": "adapter.projector"}
"""Keys of PEFT's configuration that all adapters of a pool share, and the settings behind them."""
CPU_LAYERS = 12
"""Layers that `adapter.top_layers: auto` adapts on a CPU. Four tasks with an adapter each ended at .619 / .780 / .811
on 6 / 12 / 30 layers of the embedded model (docs/decisions/0037): most of the gain at less than half of the work."""
NUMBERS = re.compile(r"\(\d+(\|\d+)*\)")
"""Layers in the pattern that names a multimodal base model's modules."""
PROJECTORS = ("multi_modal_projector", "connector", "merger", "aligner", "mlp1", "embed_vision")
"""Names of the module between vision tower and language model, by architecture."""


class AdapterError(LciaError):
    """An adapter that does not fit the base model or is damaged."""


class AdapterSlot:
    """The place in the base model where one adapter at a time is applied.

    `parameters` maps PEFT state-dict names to trainable float32 parameters, in sorted order:
    `lora_A` (rank, in), `lora_B` (out, rank), and the projector's own where `adapter.projector` is on. Of a multimodal
    base model the language model alone gets LoRA.
    """

    def __init__(self, base: BaseModel, settings: AdapterSettings) -> None:
        self._base, self.settings = base, settings
        count: int | str = settings.top_layers
        if count == "auto":
            count = base.layers if base.on_gpu else min(base.layers, CPU_LAYERS)
        elif count == "all":
            count = base.layers
        if int(count) > base.layers:
            raise AdapterError(f"adapter.top_layers is {count}, but the base model has {base.layers} layers")
        self.own_first_layer = base.layers - int(count)
        """Lowest layer that the settings ask for."""
        self._adapt(self.own_first_layer)

    def _adapt(self, first_layer: int) -> None:
        base, settings = self._base, self.settings
        self.first_layer = first_layer
        indices = list(range(first_layer, base.layers))
        where: dict[str, Any] = {"target_modules": list(settings.modules), "layers_to_transform": indices}
        if base.sight:
            where = {"target_modules": _in_decoder(base, settings.modules, indices)}
        self.projector = settings.projector
        self.config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            modules_to_save=[_projector(base)] if settings.projector else None,
            task_type="CAUSAL_LM",
            **where,
        )
        try:
            self.model = get_peft_model(base.model, self.config)
        except ValueError as error:
            raise AdapterError(
                f"adapter.modules {', '.join(settings.modules)} do not occur in the last {len(indices)} layers of "
                f"{base.settings.name}: {error}"
            ) from error
        trainable = {_state_name(n): p for n, p in self.model.named_parameters() if p.requires_grad}
        self.parameters: dict[str, nn.Parameter] = dict(sorted(trainable.items()))
        self._original = {n: p.detach().cpu().clone() for n, p in self.parameters.items() if not is_lora(n)}
        for parameter in self.parameters.values():
            parameter.data = parameter.data.float()
        for module in self.model.modules():
            if settings.projector and isinstance(module, ModulesToSaveWrapper):
                _in_float32(module.modules_to_save["default"], base.model.dtype)
        self.model.eval()

    def adapt_from(self, first_layer: int) -> None:
        """Adapt the layers from `first_layer` on instead; what was in the slot is gone."""
        for name, module in list(self.model.named_modules()):
            if isinstance(module, ModulesToSaveWrapper):  # PEFT would leave the tuned copy in the base model
                parent, _, own = name.rpartition(".")
                setattr(self.model.get_submodule(parent), own, module.original_module)
        self.model.unload()
        self._adapt(first_layer)

    def initialise(self, seed: int) -> None:
        """PEFT's default start: A uniform (Kaiming, a = sqrt 5), B zero; the output is the base's own."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.parameters.items():
            if ".lora_A." in name:
                limit = parameter.shape[1] ** -0.5
                draw = torch.empty(parameter.shape).uniform_(-limit, limit, generator=generator)
                parameter.data.copy_(draw)
            elif name in self._original:
                parameter.data.copy_(self._original[name])
            else:
                parameter.data.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """A copy of the adapter in the slot, on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.parameters.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put an adapter into the slot, completed if need be.

        Raises:
            AdapterError: see `complete`.
        """
        tensors = self.complete(tensors)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])

    def complete(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """An adapter with all tensors of the slot; layers and ranks that it lacks get A at its start and B zero.

        Raises:
            AdapterError: names or shapes are not those of this base model and `adapter` settings.
        """
        self._need_whole_layers(tensors)
        out = {}
        for name, parameter in self.parameters.items():
            tensor, shape = tensors.get(name), parameter.shape
            if tensor is None or (is_lora(name) and _narrower(name, tensor.shape, shape)):
                whole = _start(name, shape)
                if tensor is not None:
                    whole[: tensor.shape[0], : tensor.shape[1]] = tensor
                tensor = whole
            if tensor.shape != shape:
                raise AdapterError(
                    f"{name} is {tuple(tensor.shape)}, expected {tuple(shape)}; was `adapter.rank` lowered? Set it to "
                    "that of the pool's adapters or higher"
                )
            out[name] = tensor
        return out

    def importance(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Importance of every parameter of the slot (curvature) from that of an adapter that had fewer.

        It was never measured at the others; they get the mean of the same module's tensors where it was.

        Raises:
            AdapterError: see `complete`.
        """
        self._need_whole_layers(tensors)
        means: dict[str, list[Tensor]] = {}
        for name, values in tensors.items():
            means.setdefault(_kind(name), []).append(values.mean())
        out = {}
        for name, parameter in self.parameters.items():
            tensor = tensors.get(name)
            if tensor is None or tensor.shape != parameter.shape:
                out[name] = torch.full(parameter.shape, float(torch.stack(means[_kind(name)]).mean()))
                if tensor is not None:
                    out[name][: tensor.shape[0], : tensor.shape[1]] = tensor
            else:
                out[name] = tensor
        return out

    def _need_whole_layers(self, tensors: Mapping[str, Tensor]) -> None:
        layers = {_layer(name) for name in tensors if is_lora(name)}
        lacks = {n for n in self.parameters.keys() - tensors.keys() if not is_lora(n) or _layer(n) in layers}
        odd = sorted(lacks | (tensors.keys() - self.parameters.keys()))
        if odd:
            raise AdapterError(f"the adapter does not fit the base model: {len(odd)} names differ, first {odd[0]}")

    def fetch(self, store: ObjectStore, digest: str) -> dict[str, Tensor]:
        """The tensors of a stored adapter, completed for this slot.

        Raises:
            AdapterError: it was made under other `adapter` settings, so here it would compute something else.
            ObjectMissing, ObjectCorrupt: see `fetch_adapter`.
        """
        tensors = fetch_adapter(store, digest)
        self.need_shape(config_of(store, digest), digest)
        return self.complete(tensors)

    def need_shape(self, config: Mapping[str, Any], digest: str) -> None:
        """Refuse the configuration of an adapter that would compute something else in this slot.

        Raises:
            AdapterError: it has other modules, another scale, a higher rank or more layers.
        """
        own, name = self.config.to_dict(), f"adapter {digest[:12]}"
        for key, setting in SHAPING.items():
            if _modules(config.get(key)) != _modules(own[key]):
                raise AdapterError(
                    f"{name} was made with {key} {_modules(config.get(key))}, the settings ask for "
                    f"{_modules(own[key])}; a pool keeps the {setting} it began with: set it back or use another "
                    "`assistant`"
                )
        rank, scale = config["r"], config["lora_alpha"] / config["r"]
        if rank > own["r"] or scale != own["lora_alpha"] / own["r"]:
            raise AdapterError(
                f"{name} was made with adapter.rank {rank} and adapter.alpha {config['lora_alpha']:g}, the settings "
                f"ask for {own['r']} and {own['lora_alpha']:g}; a pool keeps the adapter's scale alpha / rank, "
                f"{scale:g}, and its rank may only grow: set both accordingly or use another `assistant`"
            )
        first = first_layer(config)
        if first < self.first_layer:
            raise AdapterError(
                f"{name} was made on the last {self._base.layers - first} layers, adapter.top_layers is "
                f"{self.settings.top_layers}; a pool keeps the adapter's depth, or grows: set it to auto or to "
                f"{self._base.layers - first} or more"
            )

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
        # PEFT keeps sets, whose order differs from process to process; equal adapters must be equal bytes
        config = {k: sorted(v) if isinstance(v, set) else v for k, v in self.config.to_dict().items()}
        config["target_modules"] = _in_order(config["target_modules"])
        config["base_model_name_or_path"] = DIGEST + base_digest
        config["inference_mode"] = True
        weights = {name: tensors[name].contiguous() for name in sorted(tensors)}
        return {CONFIG: config_bytes(config), WEIGHTS: save(weights, metadata={"format": "pt"})}


def config_bytes(config: Mapping[str, Any]) -> bytes:
    """PEFT's configuration as it is written: equal configurations give equal bytes."""
    return json.dumps(config, sort_keys=True, indent=1, default=str).encode()


def config_of(store: ObjectStore, digest: str) -> dict[str, Any]:
    """PEFT's configuration of a stored adapter.

    Raises:
        ObjectMissing, ObjectCorrupt: it is absent or was altered.
    """
    config: dict[str, Any] = store.get_json(store.folder_files(digest)[CONFIG])
    return config


def first_layer(config: Mapping[str, Any]) -> int:
    """Lowest layer that an adapter has, by its configuration."""
    modules = config["target_modules"]
    if isinstance(modules, str) and (numbers := NUMBERS.search(modules)):
        return min(int(number) for number in re.findall(r"\d+", numbers[0]))
    layers: list[int] = config["layers_to_transform"] or [0]
    return min(layers)


def first_layer_of(tensors: Iterable[str]) -> int:
    """Lowest layer that an adapter has, by the names of its tensors."""
    return min((int(number) for name in tensors if is_lora(name) and (number := _layer(name))), default=0)


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


def is_lora(name: str) -> bool:
    """True if a tensor of an adapter is LoRA's."""
    return ".lora_A." in name or ".lora_B." in name


def _layer(name: str) -> str:
    """Number of the layer in a tensor's name: the first number there; experts may be counted behind it."""
    number = re.search(r"\.(\d+)\.", name)
    return number[1] if number else ""


def _kind(name: str) -> str:
    """Name of a tensor without its layer."""
    return re.sub(r"\.\d+\.", "..", name, count=1)


def _narrower(name: str, shape: torch.Size, whole: torch.Size) -> bool:
    """True if a tensor differs from the whole one by a lower rank alone."""
    side = 0 if ".lora_A." in name else 1
    return len(shape) == 2 and shape[side] < whole[side] and shape[1 - side] == whole[1 - side]


def _start(name: str, shape: torch.Size) -> Tensor:
    """PEFT's start of a tensor; A by a seed of its name, so that it does not matter in how many steps a slot grew."""
    if ".lora_B." in name:
        return torch.zeros(shape)
    generator = torch.Generator().manual_seed(int(digest_of(name.encode())[:15], 16))
    limit = shape[1] ** -0.5
    return torch.empty(shape).uniform_(-limit, limit, generator=generator)


def _modules(names: str | Iterable[str] | None) -> str | list[str] | None:
    """Modules of a configuration without the numbers of their layers."""
    return NUMBERS.sub("(..)", names) if isinstance(names, str) else names if names is None else sorted(names)


def _state_name(name: str) -> str:
    return re.sub(r"(\.modules_to_save)?\.default(?=\.|$)", "", name)


def _in_order(modules: str | Iterable[str]) -> str | list[str]:
    return modules if isinstance(modules, str) else sorted(modules)


def _in_decoder(base: BaseModel, modules: Sequence[str], layers: Sequence[int]) -> str:
    """Pattern of names inside the decoder: layers of vision towers have the same names."""
    decoder = base.model.get_decoder()
    place = next(name for name, module in base.model.named_modules() if module is decoder)
    numbers, names = "|".join(map(str, layers)), "|".join(map(re.escape, modules))
    return rf"{re.escape(place)}\.layers\.({numbers})\.(?:.+\.)?({names})"


def _in_float32(module: nn.Module, dtype: torch.dtype) -> None:
    """Let a module with float32 parameters work between others of `dtype`, as LoRA's layers do."""

    def widen(value: Any) -> Any:  # noqa: ANN401 - a tensor, or another argument
        return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

    def before(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(map(widen, args)), {name: widen(value) for name, value in options.items()}

    module.register_forward_pre_hook(before, with_kwargs=True)
    module.register_forward_hook(lambda _, __, result: result.to(dtype))


def _projector(base: BaseModel) -> str:
    """Name of the module between vision tower and language model.

    Raises:
        AdapterError: the base model has none that is known.
    """
    names = {name.rpartition(".")[2]: name for name, _ in base.model.named_modules()} if base.sight else {}
    match: str | None = next((names[name] for name in PROJECTORS if name in names), None)
    if match is None:
        raise AdapterError(
            f"adapter.projector is on, but {base.settings.name} has no module called {', '.join(PROJECTORS)}; "
            "set it to false, or name a multimodal base model"
        )
    return match


def store_adapter(store: ObjectStore, files: Mapping[str, bytes]) -> str:
    """Put adapter files into the object store as a folder object; returns its digest."""
    return store.put_json({"kind": "folder", "files": {name: store.put(data) for name, data in files.items()}})


def digest_of_files(files: Mapping[str, bytes]) -> str:
    """Digest of a folder with these files, as the object store names it."""
    names: Json = {name: digest_of(content) for name, content in files.items()}
    return digest_of(canonical({"kind": "folder", "files": names}))


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
