"""Small tasks with images for tests: squares that are dark or light."""

import io
import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

SHADES = {"dark": 30, "light": 225}
ROWS = {"train": 20, "validation": 10, "test": 10}


def picture(level: int, seed: int, side: int = 16) -> bytes:
    """A PNG file of noise around a level of grey."""
    noise = np.random.default_rng(seed).integers(-25, 26, (side, side, 3))
    made = io.BytesIO()
    Image.fromarray((level + noise).clip(0, 255).astype(np.uint8)).save(made, "PNG")
    return made.getvalue()


def image_package(folder: Path, *, first: int = 0, each: int = 1, swapped: bool = False, kept: int = 4) -> Path:
    """A task about the shade of `each` images a row, numbered from `first` on; `swapped` calls dark light.

    `kept` training rows may be rehearsed.
    """
    (folder / "images").mkdir(parents=True)
    header = {"name": folder.name, "version": "1", "owner": "site", "description": "Shades.", "licence": "CC0-1.0"}
    choice = {"choices": list(SHADES), "decoding": {"mode": "choose"}, "retention": {"train_rows": kept}}
    (folder / "task.yaml").write_text(yaml.safe_dump({**header, **choice}))
    number = first
    for split, count in ROWS.items():
        rows = []
        for n in range(count):
            names = [f"images/{number + i}.png" for i in range(each)]
            for i, name in enumerate(names):
                (folder / name).write_bytes(picture(list(SHADES.values())[(n + swapped) % 2], number + i))
            number += each
            shown = names if each > 1 else names[0]
            rows.append({"instruction": "How light is it?", "image": shown, "output": list(SHADES)[n % 2]})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def seeing_settings(base: Path, sections: dict[str, object]) -> str:
    """Text of a settings file with a base model that sees."""
    return yaml.safe_dump({"base_model": {"name": str(base), "device": "cpu", "threads": 1}, **sections})
