"""Base models of the measured shapes with random weights, made once and saved as any base model is; and their rows."""

import gc
import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from benchmarks.byte_pairs import CHATML, byte_pairs
from components.storage.objects import canonical, digest_of
from components.tasks.images import Picture
from components.tasks.package import read_package
from components.tasks.rows import Example
from components.tasks.task_file import Task

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"]
PARTS = (
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
)
IMAGE = CHATML.replace("{{ message['content'] }}", PARTS)
SHADES = {"dark": 30, "grey": 128, "light": 225}
IMAGE_TASK = Task.model_validate(
    {
        "name": "shade",
        "version": "1",
        "owner": "benchmark",
        "description": "How light is an image of noise?",
        "licence": "CC0-1.0",
        "decoding": {"max_new_tokens": 8},
    },
    strict=False,
)


@dataclass(frozen=True)
class Shape:
    """A base model to measure: how many `words` its tokenizer has, rows a step, optimizer steps, rows to predict.

    `tops` are the settings of `adapter.top_layers`, `side` the pixels of an image, None where it reads text only.
    """

    config: PretrainedConfig
    words: int
    batch: int
    steps: int
    predict: int
    tops: tuple[int | str, ...]
    side: int | None = None

    @property
    def max_tokens(self) -> int:
        """Longest row."""
        return 1024 if self.side else 256

    @property
    def kind(self) -> type:
        """Class that loads it."""
        return AutoModelForImageTextToText if self.side else AutoModelForCausalLM


def _llama(hidden: int, layers: int, heads: int, kv: int, inner: int, vocabulary: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        intermediate_size=inner,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


def _llava(text: LlamaConfig, hidden: int, layers: int, heads: int, side: int, patch: int) -> LlavaConfig:
    eyes = CLIPVisionConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=side,
        patch_size=patch,
    )
    return LlavaConfig(vision_config=eyes, text_config=text, image_token_id=3, vision_feature_layer=-2)


def _qwen() -> Qwen2Config:
    return Qwen2Config(
        hidden_size=1536,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        intermediate_size=8960,
        vocab_size=151936,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


_SEVEN = (4096, 32, 32, 32, 11008)
_TINY = (48, 4, 4, 2, 96)
SHAPES: dict[str, Callable[[], Shape]] = {
    "1.5b": lambda: Shape(_qwen(), 4096, 32, 20, 64, ("all", 6)),
    "7b": lambda: Shape(_llama(*_SEVEN, 32000), 4096, 32, 20, 64, ("all", 6)),
    "llava": lambda: Shape(_llava(_llama(*_SEVEN, 32064), 1024, 24, 16, 336, 14), 4096, 8, 20, 64, ("all", 6), 336),
    "tiny": lambda: Shape(_llama(*_TINY, 704), 700, 4, 2, 8, ("all", 2)),
    "tiny-llava": lambda: Shape(_llava(_llama(*_TINY, 704), 32, 2, 4, 32, 8), 700, 4, 2, 8, ("all", 2), 32),
}
"""Qwen2-1.5B, Llama-2-7B, LLaVA-1.5-7B with its CLIP ViT-L/14-336, and two of four narrow layers for the CPU."""


def saved(name: str, shape: Shape, work: Path, device: str) -> Path:
    """The folder of the base model, made if it is not there; its weights are drawn on `device`, in bfloat16."""
    folder = work / f"{name}-{digest_of(canonical(shape.config.to_diff_dict()))[:12]}"
    if folder.exists():
        return folder
    work.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=work, prefix=".making-"))
    try:
        torch.manual_seed(0)
        with torch.device(device):
            model = shape.kind.from_config(shape.config, dtype=torch.bfloat16)
        need, free = sum(p.nbytes for p in model.parameters()), shutil.disk_usage(work).free
        if free < 1.05 * need:
            raise SystemExit(f"{name} takes {need / 2**30:.1f} GiB, {work} has {free / 2**30:.1f}; name another --work")
        model.save_pretrained(part)
        tokenizer = _tokenizer(shape)
        tokenizer.save_pretrained(part)
        if shape.side:
            size = {"height": shape.side, "width": shape.side}
            LlavaProcessor(
                CLIPImageProcessorPil(size={"shortest_edge": shape.side}, crop_size=size),
                tokenizer,
                patch_size=shape.config.vision_config.patch_size,
                vision_feature_select_strategy="default",
                num_additional_image_tokens=1,
                chat_template=IMAGE,
            ).save_pretrained(part)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    del model
    release()
    return folder


def release() -> None:
    """Give back the device memory of what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _tokenizer(shape: Shape) -> PreTrainedTokenizerFast:
    """Byte pairs of the example tasks."""
    tasks = [read_package(path) for path in sorted(EXAMPLES.iterdir()) if path.is_dir()]
    rows = [row for task in tasks for row in task.splits["train"]]
    bpe = byte_pairs((text for r in rows for text in (r.instruction, r.input or "", r.output)), shape.words, SPECIAL)
    tokens = {"bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "pad_token": SPECIAL[0]}
    template = IMAGE if shape.side else CHATML
    return PreTrainedTokenizerFast(tokenizer_object=bpe, chat_template=template, **tokens)


def examples(shape: Shape, name: str, train: int, test: int) -> tuple[Task, list[Example], list[Example]]:
    """A task with rows to learn and rows to predict: an example task, or images of noise made here."""
    if shape.side:
        images = [_shade(number, shape.side) for number in range(train + test)]
        return IMAGE_TASK, images[:train], images[train:]
    package = read_package(EXAMPLES / name)
    rows = package.splits["train"]
    train_rows = [rows[i % len(rows)] for i in range(train)]
    return package.task, train_rows, list(package.splits["test"][:test])


def _shade(number: int, side: int) -> Example:
    shade = list(SHADES)[number % len(SHADES)]
    noise = np.random.default_rng(number).integers(-25, 26, (side, side, 3))
    file = io.BytesIO()
    Image.fromarray((SHADES[shade] + noise).clip(0, 255).astype(np.uint8)).save(file, "PNG", compress_level=1)
    return Example("How light is it?", None, shade, images=(Picture.of(file.getvalue()),))
