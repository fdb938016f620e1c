"""Arguments that start vLLM with every adapter of an exported version (multi-LoRA serving), and what to ask it."""

import json
import shlex
from pathlib import Path
from typing import Any

from components.model.base import location
from components.serving.bundle import Bundle
from components.serving.contract import FREE

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for --max-lora-rank."""


def start_arguments(bundle: Bundle, folder: Path, models: Path) -> str:
    """The command line; requests name the adapter by its group id, which the router of the bundle tells.

    It fixes what the version was evaluated under: the type of its numbers, greedy decoding instead of the base model's
    own sampling, and the most tokens that any task may take. `models` is the folder of the converted embedded model.
    """
    settings = bundle.settings
    if settings.adapter.projector:
        return "none: vLLM loads LoRA alone, and adapter.projector trains a projector besides; PEFT loads both"
    name, revision = location(settings.base_model, bundle.pool.base_model, models)
    rank = next((r for r in RANKS if r >= settings.adapter.rank), RANKS[-1])
    adapters = [f"{g.id}={shlex.quote(str((folder / 'adapters' / g.id).absolute()))}" for g in bundle.pool.groups]
    limits = [each["max_tokens"] for each in contracts(bundle) if "max_tokens" in each]
    greedy = json.dumps({"temperature": 0.0, "max_new_tokens": max(limits)})
    parts = ["vllm serve", shlex.quote(name), "--enable-lora"]
    if adapters:
        parts += [f"--max-lora-rank {rank}", f"--max-loras {len(adapters)}", "--lora-modules", *adapters]
    if revision:
        parts += [f"--revision {shlex.quote(revision)}", f"--tokenizer-revision {shlex.quote(revision)}"]
    if settings.base_model.quantization:
        parts.append("--quantization bitsandbytes")
    parts += [f"--dtype {settings.base_model.dtype}", "--generation-config vllm"]
    return " ".join([*parts, f"--override-generation-config {shlex.quote(greedy)}"])


def contracts(bundle: Bundle) -> list[dict[str, Any]]:
    """The fields that make a chat request be answered as `lcia ask` answers it, by task; the last is that of no task.

    `model` is the adapter, None the base model; a task that chooses by likelihood has no `max_tokens`: no chat request
    asks for that.
    """
    out: list[dict[str, Any]] = []
    for group in bundle.pool.groups:
        for entry in group.tasks:
            task = bundle.tasks[entry.task]
            if task.decoding.mode == "choose":
                out.append({"task": entry.name, "model": group.id, "choices": list(task.choices or ())})
            else:
                out.append({"task": entry.name, "model": group.id, "max_tokens": task.decoding.max_new_tokens})
    return [*out, {"task": None, "model": None, "max_tokens": FREE.max_new_tokens}]
