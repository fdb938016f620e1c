"""Which versions of other people's libraries an installation runs: those installed, else those that the lock pins."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
WITH_TORCH = frozenset({"accelerate", "gguf", "peft", "tokenizers", "torch", "transformers"})
"""Those that computing with a model needs; where steps run on a cluster, service and worker are without."""


def plain(name: str) -> str:
    """A distribution's name as comparisons want it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def pinned() -> Mapping[str, str]:
    """Version of each distribution in the lock; none where the sources stand without it, as in an exported model."""
    if not LOCK.exists():
        return {}
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return {plain(name): version for name, version in found}


def public(version: str) -> str:
    """A version without its local part: `2.13.0+cpu` is a build of `2.13.0` (PEP 440)."""
    return version.partition("+")[0]


def version_of(name: str) -> str | None:
    """The installed version; where it is not installed, the pinned one, or None where there is no lock either.

    The image of service and worker has no torch, and speaks for the image of the steps, which has what the lock pins.
    """
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return pinned().get(plain(name))


def requirement(name: str) -> str:
    """What pip is asked for, so that another environment has the same version; any, where none is known."""
    version = version_of(name)
    return f"{name}=={public(version)}" if version else name
