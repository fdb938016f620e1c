"""Checks of the installation and its machine: Python, libraries, settings, disk, files of keys."""

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec

from components import libraries
from components.audit.keys import PRIVATE_NAME
from components.quality.fingerprints import KEY_NAME
from components.settings import ClusterSettings
from lcia.doctor.findings import Finding, Installation
from lcia.instance import user_name
from lcia.operations import relocation

KEY_LIBRARIES = (
    "accelerate", "alembic", "cryptography", "evidently", "fsspec", "great-expectations", "mlflow", "numpy", "peft",
    "pydantic", "safetensors", "scikit-learn", "sqlalchemy", "tokenizers", "torch", "transformers", "typer", "zenml",
)  # fmt: skip
"""Libraries whose versions decide what is computed, stored or understood."""
PYTHON = (3, 11)
LOW_DISK, NO_DISK = 5.0, 1.0
"""GiB free below which there is a warning, and a problem."""


def check_python(subject: Installation) -> Iterator[Finding]:  # noqa: ARG001 - every check has it
    """Check the version of Python."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == PYTHON:
        yield Finding("python", "ok", f"Python {version}")
    else:
        right = ".".join(map(str, PYTHON))
        yield Finding("python", "problem", f"Python {version}, expected {right}", f"install {right}, `make setup`")


def steps_elsewhere(subject: Installation) -> ClusterSettings | None:
    """Cluster that runs the steps of an installation without torch; None if it has torch or needs it."""
    return subject.settings.cluster if find_spec("torch") is None else None


def check_libraries(subject: Installation) -> Iterator[Finding]:
    """Compare the key libraries with requirements.lock."""
    locks = libraries.pins()
    if not locks:
        sentence = f"{libraries.LOCK} does not exist: versions can't be compared"
        yield Finding("libraries", "warning", sentence, "use the checkout")
        return
    differing = []
    names = [name for name in KEY_LIBRARIES if not (name in libraries.WITH_TORCH and steps_elsewhere(subject))]
    for name in names:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding("libraries", "problem", f"{name} is not installed", "`make setup` installs requirements.lock")
            continue
        lock = locks.get(libraries.plain(name))
        if lock is not None and libraries.public(version) != libraries.public(lock):
            differing.append(f"{name} {version} (locked {lock})")
    if differing:
        yield Finding(
            "libraries",
            "warning",
            f"other versions than tested: {', '.join(differing)}",
            "`make setup` installs requirements.lock; versions made under other libraries are predicted again",
        )
    else:
        yield Finding("libraries", "ok", f"{len(names)} key libraries as in requirements.lock")


def check_settings(subject: Installation) -> Iterator[Finding]:
    """Check that the paths of the settings lead where they say, and that there is a state."""
    summary = (
        f"{subject.file or 'built-in defaults'}; assistant {subject.settings.assistant!r}, state in {subject.home}"
    )
    links = relocation.links(subject.home, subject.settings)
    for sentence in links:
        yield Finding("settings", "problem", sentence, "do what it says; `withdraw`, `sweep` and `sync` refuse it")
    if links:
        return
    if subject.home.is_dir():
        yield Finding("settings", "ok", summary)
    else:
        yield Finding(
            "settings", "warning", f"{summary}, which does not exist yet", "`lcia submit` or `lcia demo` makes it"
        )


def check_disk(subject: Installation) -> Iterator[Finding]:
    """Check that the disk has room, and that the state folder can be written."""
    folder = next(path for path in (subject.home, *subject.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free / 2**30
    sentence = f"{free:.1f} GiB free below {folder}"
    advice = "free space; `lcia retention` shows what `lcia sweep` would delete"
    if free < NO_DISK:
        yield Finding("disk", "problem", sentence, advice)
    else:
        yield Finding("disk", "warning" if free < LOW_DISK else "ok", sentence, advice if free < LOW_DISK else "")
    if subject.home.is_dir() and not os.access(subject.home, os.W_OK):
        who = user_name(subject.home.stat().st_uid)
        yield Finding("disk", "problem", f"{subject.home} can't be written", f"run lcia as {who}, its owner")


def check_permissions(subject: Installation) -> Iterator[Finding]:
    """Check that nobody else can read the private keys or write beside them."""
    keys = subject.home / "keys"
    files = [path for path in (keys / PRIVATE_NAME, keys / KEY_NAME) if path.exists()]
    for path in files:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield Finding("permissions", "problem", f"{path} has mode {mode:04o}, expected 0600", f"chmod 600 {path}")
    if len(files) == 2 and subject.settings.storage.promoter:
        sentence = f"{keys} holds the key that signs the log and that of the leak checks"
        advice = (
            "leave the first with the service and the second with the worker (docs/kubernetes.md, Keys and secrets)"
        )
        yield Finding("permissions", "warning", sentence, advice)
    open_folder = keys.is_dir() and stat.S_IMODE(keys.stat().st_mode) & 0o022
    if open_folder:
        yield Finding("permissions", "problem", f"others may write to {keys}", f"chmod go-w {keys}")
    elif all(not stat.S_IMODE(path.stat().st_mode) & 0o077 for path in files):
        sentence = f"{len(files)} private keys, readable by their owner only" if files else "no keys yet"
        yield Finding("permissions", "ok", sentence)
