"""Options that start vLLM: with every adapter of an exported version, or for a gateway, which loads them itself."""

import json
import shlex
from pathlib import Path
from typing import Any

from components.model.base import location
from components.serving.bundle import Bundle
from components.serving.contract import BASE, contract_of_task
from components.serving.engine import NotAbleTo
from components.settings import Settings

TESTED = "0.32.0"
"""Release of vLLM that the tests run with; docs/gateway.md says how to install it."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for --max-lora-rank."""
RUNTIME_LOADING = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
"""Variable that lets vLLM load adapters while it runs."""
VERSIONS = 3
"""Versions whose adapters a gateway may need at a time: the champion, its predecessor, a candidate on trial."""
PROJECTOR = "vLLM loads LoRA alone, and adapter.projector trains a projector besides"


def start_arguments(bundle: Bundle, folder: Path, models: Path) -> str:
    """The command line; requests name the adapter by its group id, which the router of the bundle tells.

    It fixes what the version was evaluated under: the type of its numbers, greedy decoding instead of the base model's
    own sampling, and the most tokens that any task may take. `models` is the folder of the converted embedded model.
    """
    settings = bundle.settings
    if settings.adapter.projector:
        return f"none: {PROJECTOR}; PEFT loads both"
    adapters = [f"{g.id}={shlex.quote(str((folder / 'adapters' / g.id).absolute()))}" for g in bundle.pool.groups]
    limits = [each["max_tokens"] for each in contracts(bundle) if "max_tokens" in each]
    greedy = json.dumps({"temperature": 0.0, "max_new_tokens": max(limits)})
    name, options = _options(settings, bundle.pool.base_model, models, len(adapters))
    modules = ["--lora-modules", *adapters] if adapters else []
    override = f"--override-generation-config {shlex.quote(greedy)}"
    return " ".join(["vllm serve", shlex.quote(name), shlex.join(options), *modules, override])


def gateway_arguments(settings: Settings, base_model: str, models: Path, groups: int) -> tuple[str, list[str]]:
    """Name of the base model and the options for a vLLM server that a gateway asks; adapters are loaded at run time.

    `base_model` is its digest, `groups` the number of groups that the assistant has or may get; the neutral adapter
    takes a place besides. There is room for the longest prompt and the longest answer, so no request is cut that the
    gateway lets through.

    Raises:
        NotAbleTo: versions under these settings have more than LoRA.
    """
    if settings.adapter.projector:
        raise NotAbleTo(f"{PROJECTOR}; use gateway.engine embedded")
    adapters = max(1, groups)
    name, options = _options(settings, base_model, models, adapters + 1)
    room = settings.base_model.longest + settings.gateway.new_tokens
    return name, [*options, "--max-cpu-loras", str(VERSIONS * adapters + 1), "--max-model-len", str(room)]


def gateway_command(settings: Settings, base_model: str, models: Path, groups: int) -> str:
    """The command line of `gateway_arguments`.

    Raises:
        NotAbleTo: see there.
    """
    name, options = gateway_arguments(settings, base_model, models, groups)
    return f"{RUNTIME_LOADING}=True vllm serve {shlex.quote(name)} {shlex.join(options)}"


def _options(settings: Settings, base_model: str, models: Path, adapters: int) -> tuple[str, list[str]]:
    """The base model as vLLM names it, and options that all need: its numbers, LoRA, no defaults of the model."""
    base = settings.base_model
    name, revision = location(base, base_model, models)
    rank = next((r for r in RANKS if r >= settings.adapter.rank), RANKS[-1])
    options = ["--enable-lora"]
    if adapters:
        options += ["--max-lora-rank", str(rank), "--max-loras", str(adapters)]
    if revision:
        options += ["--revision", revision, "--tokenizer-revision", revision]
    if base.quantization:
        options += ["--quantization", "bitsandbytes"]
    return name, [*options, "--dtype", base.dtype, "--generation-config", "vllm"]


def contracts(bundle: Bundle) -> list[dict[str, Any]]:
    """The fields that make a chat request be answered as `lcia ask` answers it, by task; the last is that of no task.

    `model` is the adapter, None the base model; a task that chooses by likelihood has no `max_tokens`: no chat request
    asks for that.
    """
    out: list[dict[str, Any]] = []
    for entry in bundle.pool.tasks():
        contract = contract_of_task(bundle, entry.name)
        request: dict[str, Any] = {"task": entry.name, "model": contract.group}
        if contract.decoding.mode == "choose":
            out.append({**request, "choices": list(contract.choices)})
        else:
            out.append({**request, "max_tokens": contract.decoding.max_new_tokens})
    return [*out, {"task": None, "model": None, "max_tokens": BASE.decoding.max_new_tokens}]
