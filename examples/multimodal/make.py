"""A small multimodal base model and three tasks about handwritten digits, made from what is installed; takes a minute.

    python examples/multimodal/make.py build/digits

writes `build/digits/base` (architecture LLaVA-1.5: a CLIP-shaped vision tower, a projector, SmolLM2-135M-Instruct) and
`build/digits/tasks/{read_digit,even_or_odd,larger_digit}`. The text weights are the embedded base model's. Tower and
projector are fitted here, on 800 of the 1,797 digits that come with scikit-learn; the tasks show the other 997, each
task its own.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from components.model.base import load_base
from components.settings import BaseModelSettings

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FITTED = 800
"""Digits that the vision tower is fitted on; no task shows them."""
ROWS = {"train": 200, "validation": 50, "test": 82}
"""Rows of each task, a digit of its own (or, in `larger_digit`, pairs of its own digits) for each."""
SIDE, PATCH = 32, 16
"""Pixels of a side and of a patch: four image tokens."""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make(folder: Path, seed: int = 0) -> None:
    """Write the base model and the task packages below `folder`; nothing is written over."""
    if not (folder / "base").exists():
        with tempfile.TemporaryDirectory(dir=_made(folder)) as part:
            _base(Path(part) / "base", folder, seed)
            (Path(part) / "base").rename(folder / "base")
    images, labels = _digits(seed)
    own = sum(ROWS.values())
    for number, (name, task) in enumerate(TASKS.items()):
        start = FITTED + number * own
        if not (folder / "tasks" / name).exists():
            _package(folder / "tasks" / name, task, images[start : start + own], labels[start : start + own])


def _base(target: Path, folder: Path, seed: int) -> None:
    """The text model with eyes: the tower and the projector are fitted, the text weights stay as they are."""
    text = load_base(BaseModelSettings(device="cpu"), folder / "models")
    tokenizer = AutoTokenizer.from_pretrained(_folder_of(folder / "models"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = TEMPLATE
    eyes = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
    )
    config = LlavaConfig(
        vision_config=eyes,
        text_config=text.model.config,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(text.model.model.state_dict())
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.tie_weights()
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    images, labels = _digits(seed)
    shown = [Image.fromarray(image) for image in images[:FITTED]]
    pixels = processor.image_processor(shown, return_tensors="pt")["pixel_values"]
    _fit(model, pixels, torch.tensor(labels[:FITTED]), _meanings(model, tokenizer))
    model.save_pretrained(target)
    processor.save_pretrained(target)


def _fit(model: LlavaForConditionalGeneration, pixels: Tensor, labels: Tensor, meanings: Tensor) -> None:
    """Let every image token come to lie near the embedding of its digit's word, as captions align a projector."""
    inner = model.model
    parameters = [*inner.vision_tower.parameters(), *inner.multi_modal_projector.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    steps, draw = 400, torch.Generator().manual_seed(0)
    size = meanings.norm(dim=-1).mean()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        batch = torch.randint(len(pixels), (64,), generator=draw)
        tokens = torch.stack(inner.get_image_features(pixel_values=pixels[batch]).pooler_output)
        near = nn.functional.cosine_similarity(tokens[:, :, None], meanings, dim=-1)
        loss = nn.functional.cross_entropy(10 * near.mean(1), labels[batch])
        loss = loss + (tokens.norm(dim=-1) / size - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        tokens = torch.stack(inner.get_image_features(pixel_values=pixels).pooler_output)
        right = (
            nn.functional.cosine_similarity(tokens[:, :, None], meanings, dim=-1).mean(1).argmax(-1) == labels
        ).float()
    print(f"vision tower: {right.mean():.3f} of the {len(pixels)} digits it was fitted on are nearest to their word")


@torch.no_grad()
def _meanings(model: LlavaForConditionalGeneration, tokenizer: AutoTokenizer) -> Tensor:
    """Embedding of each digit's word (10, width), apart from what all ten share."""
    ids = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in WORDS]
    return model.get_input_embeddings().weight[ids].clone()


def _digits(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All digits as 8-bit grey images (rows, 8, 8) and what they are, in an order of their own for each seed."""
    found = load_digits()
    order = np.random.default_rng(seed).permutation(len(found.target))
    return (found.images[order] * 255 / 16).astype(np.uint8), found.target[order]


def _package(folder: Path, task: dict, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    (_made(folder) / "images").mkdir()
    names = [f"images/{number}.png" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    places = iter(range(len(images)))
    for split, count in ROWS.items():
        own = [next(places) for _ in range(count)]
        rows = [
            {"instruction": task["instruction"], "image": [names[i] for i in shown], "output": answer}
            for shown, answer in task["rows"](own, labels)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    header = {
        "name": folder.name,
        "version": "1",
        "owner": "digits",
        "description": task["description"],
        "licence": "CC-BY-4.0",
        "choices": list(task["choices"]),
        "metric": "exact_match",
        "decoding": {"mode": "generate", "max_new_tokens": 4},
        "retention": {"train_rows": 30, "evaluation_rows": True},
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(header, sort_keys=False))
    (folder / "ATTRIBUTION.md").write_text(
        "Digits: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI (CC BY 4.0), by scikit-learn.\n"
    )


Shown = tuple[list[int], str]
"""Places of the images of a row, and its answer."""


def _one(places: Sequence[int], labels: NDArray[np.int64]) -> Iterator[Shown]:
    return (([place], WORDS[labels[place]]) for place in places)


def _parity(places: Sequence[int], labels: NDArray[np.int64]) -> Iterator[Shown]:
    return (([place], ("even", "odd")[labels[place] % 2]) for place in places)


def _pairs(places: Sequence[int], labels: NDArray[np.int64]) -> Iterator[Shown]:
    """As many pairs as places, of different digits."""
    draw = np.random.default_rng(places[0])
    for place in places:
        other = next(i for i in draw.permutation(places) if labels[i] != labels[place])
        yield [place, int(other)], "first" if labels[place] > labels[other] else "second"


TASKS = {
    "read_digit": {
        "instruction": "Name the handwritten digit in the image.",
        "description": "Which digit is shown?",
        "choices": WORDS,
        "rows": _one,
    },
    "even_or_odd": {
        "instruction": "Say whether the handwritten digit in the image is even or odd.",
        "description": "Is the digit even or odd?",
        "choices": ("even", "odd"),
        "rows": _parity,
    },
    "larger_digit": {
        "instruction": "Say which of the two handwritten digits is larger, the first or the second.",
        "description": "Which of two digits is larger?",
        "choices": ("first", "second"),
        "rows": _pairs,
    },
}


def _folder_of(models: Path) -> Path:
    return next(file.parent for file in models.glob("*/lcia.json"))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
