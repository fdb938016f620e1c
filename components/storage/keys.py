"""Keys of finished work: a digest of inputs, resolved configuration, code and library versions."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from components.libraries import version_of
from components.storage.objects import Json, canonical, digest_of

COMPONENTS = Path(__file__).parents[1]
LIBRARIES = ("evidently", "great-expectations", "numpy", "peft", "scikit-learn", "torch", "transformers")


def step_key(step: str, inputs: Mapping[str, Json], config: Mapping[str, Json], folders: Iterable[str]) -> str:
    """Digest that names a step's result; equal keys mean equal outputs.

    `folders` are the folders of `components/` that the step's code lies in.
    """
    return digest_of(
        canonical(
            {
                "step": step,
                "inputs": dict(inputs),
                "config": dict(config),
                "sources": {folder: _sources(folder) for folder in sorted(folders)},
                "libraries": _libraries(),
            }
        )
    )


@cache
def _sources(folder: str) -> str:
    files = sorted((COMPONENTS / folder).rglob("*.py"))
    text = b"".join(str(f.relative_to(COMPONENTS)).encode() + b"\0" + f.read_bytes() for f in files)
    return hashlib.sha256(text).hexdigest()


@cache
def _libraries() -> dict[str, Json]:
    return {name: version_of(name) for name in LIBRARIES}
