import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from components.storage.objects import ObjectStore

HEADER = {
    "name": "colours",
    "version": "1",
    "owner": "demo",
    "description": "Name the colour of a thing.",
    "licence": "CC0-1.0",
}


def rows(prefix: str, count: int) -> list[dict]:
    return [
        {"instruction": "Name the colour.", "input": f"{prefix} {i}", "output": f"colour {i}"} for i in range(count)
    ]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/objects")


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[..., Path]:
    """Write a small valid package, with keys of `task.yaml` and whole files replaced as asked."""

    def make(name: str = "package", header: dict | None = None, **files: str | bytes | list) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "task.yaml").write_text(yaml.safe_dump({**HEADER, **(header or {})}))
        splits = {
            "train": rows("train", 6),
            "validation": rows("validation", 3),
            "test": rows("test", 4),
            **files,
        }
        for split, content in splits.items():
            path = folder / (split if split == "task.yaml" else f"{split}.jsonl")
            text = "".join(json.dumps(row) + "\n" for row in content) if isinstance(content, list) else content
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return make
