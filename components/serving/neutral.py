"""A neutral adapter, which adds nothing: under it vLLM answers as the base model does, whatever else is under way.

On the CPU, vLLM 0.32.0 gives the rows of the base model the weights of its last LoRA slot as soon as rows of an adapter
are in the same batch (`lora/ops/torch_ops/lora_ops.py` takes the index -1, which stands for no adapter, as that of the
last one; vllm-project/vllm#48421). GPUs had the like with mixtures of experts (#42008). With an adapter of zeros no row
has that index.
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from components.model.adapters import CONFIG, WEIGHTS, AdapterError, is_lora, read_weights


def neutral_files(folder: Path) -> dict[str, bytes]:
    """Files of an adapter of zeros on one layer, for the base model of the adapter in `folder`.

    Raises:
        AdapterError: `folder` holds no LoRA adapter.
    """
    try:
        config, weights = (folder / CONFIG).read_bytes(), read_weights((folder / WEIGHTS).read_bytes())
    except OSError as error:
        raise AdapterError(f"{folder} holds no adapter: {error.strerror}; expected {CONFIG} and {WEIGHTS}") from error
    first = next((name for name in sorted(weights) if is_lora(name)), None)
    if first is None:
        raise AdapterError(f"the adapter in {folder} holds no tensor of LoRA, and vLLM loads nothing else")
    pair = {name: torch.zeros_like(weights[name]) for name in weights if _layer(name) == _layer(first)}
    return {CONFIG: config, WEIGHTS: save(pair, metadata={"format": "pt"})}


def write_neutral(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files into `folder`, which appears whole; nothing is done if it is there."""
    if folder.is_dir():
        return
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".neutral-"))
    try:
        scratch.chmod(0o755)
        for name, content in files.items():
            (scratch / name).write_bytes(content)
        scratch.rename(folder)
    except OSError:
        if not folder.is_dir():  # another gateway may have written it meanwhile
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _layer(name: str) -> str:
    return name.rpartition(".lora_")[0]
