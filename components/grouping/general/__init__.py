"""Texts that belong to no task in particular: requests as people type them to any assistant, and texts they paste.

They are the background that tasks stand out from: what all requests have in common counts less, and the threshold of
requests is set so that it lets in a stated share of these. Written for this project, under its licence.
"""

from functools import lru_cache
from pathlib import Path

_FOLDER = Path(__file__).parent
VECTORS = _FOLDER / "vectors.safetensors"
"""Vectors of both lists by the packaged sentence model, as `python -m benchmarks.routing.vectors` writes them."""


@lru_cache(maxsize=1)
def general_requests() -> tuple[str, ...]:
    """Instructions without an input."""
    return _lines("requests.txt")


@lru_cache(maxsize=1)
def foreign_requests() -> dict[str, tuple[str, ...]]:
    """Instructions without an input in other languages than English, by language."""
    return {file.suffixes[0][1:]: _lines(file.name) for file in sorted(_FOLDER.glob("requests.*.txt"))}


@lru_cache(maxsize=1)
def general_inputs() -> tuple[str, ...]:
    """Short texts as they come with an instruction."""
    return _lines("inputs.txt")


def _lines(name: str) -> tuple[str, ...]:
    return tuple((_FOLDER / name).read_text(encoding="utf-8").splitlines())
