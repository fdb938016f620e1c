"""What a server does again and again: no failure ends it, each is counted, shown and tried again, later each time."""

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from components.errors import LciaError
from components.storage import rounds as table
from components.storage.database import Database
from lcia import failures

LOG = logging.getLogger("lcia.worker.rounds")
LONGEST = 600.0
"""Seconds that a round that fails rests at most."""
STANDING = 300.0
"""Seconds between two notes in the database that nothing changed."""


@dataclass
class _Round:
    """Counts of one."""

    ok: int = 0
    failed: int = 0
    ok_at: float | None = None
    """Seconds since 1970."""
    in_a_row: int = 0
    error: str = ""
    next_at: float = 0.0
    """On the monotonic clock."""
    noted_at: float = -STANDING


@dataclass
class Rounds:
    """The rounds of one process; `every` are the seconds between two, `role` says whose they are."""

    db: Database
    home: Path
    role: str
    every: float
    names: tuple[str, ...] = ()
    _known: dict[str, _Round] = field(default_factory=dict)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._known = {name: _Round() for name in self.names}

    def run(self, name: str, work: Callable[[], object]) -> bool:
        """Do a round unless it rests after failures; true if it was done. Nothing it raises comes out."""
        known = self._known.setdefault(name, _Round())
        if time.monotonic() < known.next_at:
            return False
        error = ""
        try:
            work()
        except LciaError as refusal:  # the database or MLflow is away: the next round does it
            error = str(refusal) or type(refusal).__name__
            LOG.warning("round %s was not finished: %s", name, error)
        except Exception as broken:  # noqa: BLE001 - whatever it is, there are later rounds and others
            error = failures.noted(broken, self.home, f"round {name}")
        self._note(name, known, error)
        return not error

    def start(self, work: Callable[[], None], stop: threading.Event) -> threading.Thread:
        """A thread that calls `work`, which calls `run`, until `stop`; /health says so should it ever end before."""

        def forever() -> None:
            while not stop.wait(self.every):
                self.run("loop", work)

        self._thread = threading.Thread(target=forever, daemon=True)
        self._thread.start()
        return self._thread

    def troubles(self) -> list[str]:
        """What does not go as it should in this process, without details; empty where all is well."""
        failing = [(name, one.in_a_row) for name, one in sorted(self._known.items()) if one.in_a_row]
        found = [f"round {name} failed {count} time{'s' if count > 1 else ''} in a row" for name, count in failing]
        if self._thread is not None and not self._thread.is_alive():
            found.append("the thread of the rounds ended; start the service again")
        return found

    def counts(self) -> list[tuple[str, int, int, float | None]]:
        """Name, rounds that were done, rounds that failed, time of the last that was done."""
        return [(name, one.ok, one.failed, one.ok_at) for name, one in sorted(self._known.items())]

    def _note(self, name: str, known: _Round, error: str) -> None:
        """Count it; tell the database of failures and of what is well again at once, else now and then."""
        moment = time.monotonic()
        news = bool(error) or bool(known.in_a_row) or moment - known.noted_at >= STANDING
        if error:
            known.failed, known.in_a_row, known.error = known.failed + 1, known.in_a_row + 1, error
            known.next_at = moment + min(self.every * 2 ** min(known.in_a_row - 1, 20), LONGEST)
        else:
            known.ok, known.in_a_row, known.error, known.ok_at = known.ok + 1, 0, "", time.time()
        if not news:
            return
        try:
            with self.db.begin() as connection:
                table.record(connection, name, f"{self.role}/{socket.gethostname()}", error or None)
            known.noted_at = moment
        except Exception as failure:  # noqa: BLE001 - the database may be what fails
            LOG.warning("that round %s %s could not be noted: %s", name, "failed" if error else "was done", failure)
