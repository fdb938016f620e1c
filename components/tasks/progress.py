"""How far a run is, for people who watch it from elsewhere: a small file in the task's work area, lost without harm."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from components.storage.objects import ObjectStore

FILE = "progress.json"


@dataclass(frozen=True)
class Progress:
    """`done` of `total` of something that takes long."""

    what: str
    done: int
    total: int
    at: str
    """ISO time, UTC, of the machine that is at work."""


def write(store: ObjectStore, package: str, what: str, count: int, total: int) -> None:
    """Say how far the run on a package is."""
    progress = Progress(what, count, total, datetime.now(UTC).isoformat())
    store.scratch(_area(package)).tell(FILE, json.dumps(asdict(progress)).encode())


def read(store: ObjectStore, package: str) -> Progress | None:
    """How far it is; None where nothing was said."""
    content = store.scratch(_area(package)).read(FILE)
    return Progress(**json.loads(content)) if content else None


def clear(store: ObjectStore, package: str) -> None:
    """Forget it: a run begins, or has ended."""
    store.scratch(_area(package)).clear()


def _area(package: str) -> str:
    return f"progress:{package}"
