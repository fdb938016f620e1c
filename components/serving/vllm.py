"""Arguments that start vLLM with every adapter of an exported version (multi-LoRA serving)."""

import shlex
from pathlib import Path

from components.model.base import EMBEDDED
from components.serving.bundle import Bundle

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for --max-lora-rank."""


def start_arguments(bundle: Bundle, folder: Path, models: Path) -> str:
    """The command line; requests name the adapter by its group id, which the router of the bundle tells.

    `models` is where the embedded model lies once converted: vLLM cannot read it from its package.
    """
    settings = bundle.settings
    if settings.adapter.projector:
        return "none: vLLM loads LoRA alone, and adapter.projector trains a projector besides; PEFT loads both"
    name = settings.base_model.name
    base = shlex.quote(str(models / bundle.pool.base_model) if name in EMBEDDED else name)
    rank = next((r for r in RANKS if r >= settings.adapter.rank), RANKS[-1])
    adapters = [f"{g.id}={shlex.quote(str((folder / 'adapters' / g.id).absolute()))}" for g in bundle.pool.groups]
    parts = ["vllm serve", base, "--enable-lora", f"--max-lora-rank {rank}", f"--max-loras {max(1, len(adapters))}"]
    return " ".join([*parts, "--lora-modules", *adapters] if adapters else parts[:2])
