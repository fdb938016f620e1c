"""Versions of other people's libraries in an installation: the installed ones, else those that the lock pins."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
WITH_TORCH = frozenset({"accelerate", "gguf", "peft", "tokenizers", "torch", "transformers"})
"""Libraries for computing with a model; if steps run on a cluster, service and worker don't have them."""


def plain(name: str) -> str:
    """A distribution's name, normalised for comparison (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def pins() -> Mapping[str, str]:
    """Version of each distribution in the lock; empty without a lock, as in an exported model."""
    if not LOCK.exists():
        return {}
    lines = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return {plain(name): version for name, version in lines}


def public(version: str) -> str:
    """A version without its local part: `2.13.0+cpu` is a build of `2.13.0` (PEP 440)."""
    return version.partition("+")[0]


def version_of(name: str) -> str | None:
    """The installed version, or the pinned one, or None if there is no lock either.

    The image of service and worker has no torch, but needs its version: the image of the steps has the pinned one.
    """
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return pins().get(plain(name))


def requirement(name: str) -> str:
    """The requirement for pip that gives another environment the same version; any version if it is unknown."""
    version = version_of(name)
    return f"{name}=={public(version)}" if version else name
