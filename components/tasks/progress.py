"""Progress of a run, for people who watch from elsewhere: a small file in the task's work area, harmless to lose."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from components.storage.objects import ObjectStore

FILE = "progress.json"


@dataclass(frozen=True)
class Progress:
    """`done` of `total` steps of a long piece of work."""

    what: str
    done: int
    total: int
    at: str
    """ISO time, UTC, by the clock of the working machine."""


def write(store: ObjectStore, package: str, what: str, count: int, total: int) -> None:
    """Record how far the run on a package is."""
    progress = Progress(what, count, total, datetime.now(UTC).isoformat())
    store.scratch(_area(package)).tell(FILE, json.dumps(asdict(progress)).encode())


def read(store: ObjectStore, package: str) -> Progress | None:
    """The progress on record; None if there is none."""
    content = store.scratch(_area(package)).read(FILE)
    return Progress(**json.loads(content)) if content else None


def clear(store: ObjectStore, package: str) -> None:
    """Forget the progress: a run begins, or has ended."""
    store.scratch(_area(package)).clear()


def _area(package: str) -> str:
    return f"progress:{package}"
