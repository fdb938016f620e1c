"""Rounds: work that a process repeats. A failed round is counted, shown, and tried again, later each time."""

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
"""Seconds that a failing round rests at most."""
STANDING = 300.0
"""Seconds between two notes in the database while nothing changes."""


@dataclass
class _Round:
    """Counts of one round."""

    ok: int = 0
    failures: int = 0
    ok_at: float | None = None
    """Seconds since 1970."""
    in_a_row: int = 0
    error: str = ""
    next_at: float = 0.0
    """On the monotonic clock."""
    noted_at: float = -STANDING


@dataclass
class Rounds:
    """Rounds of one process; `every` is the number of seconds between two, `role` names the process."""

    db: Database
    home: Path
    role: str
    every: float
    names: tuple[str, ...] = ()
    _rounds: dict[str, _Round] = field(default_factory=dict)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._rounds = {name: _Round() for name in self.names}

    def run(self, name: str, work: Callable[[], object]) -> bool:
        """Do a round unless it rests after failures; true if it was done. Its exceptions are caught."""
        counts = self._rounds.setdefault(name, _Round())
        if time.monotonic() < counts.next_at:
            return False
        error = ""
        try:
            work()
        except LciaError as refusal:  # the database or MLflow can't be reached: try again in the next round
            error = str(refusal) or type(refusal).__name__
            LOG.warning("round %s was not finished: %s", name, error)
        except Exception as broken:  # noqa: BLE001 - other rounds and later ones go on whatever it is
            error = failures.note(broken, self.home, f"round {name}")
        self._note(name, counts, error)
        return not error

    def start(self, work: Callable[[], None], stop: threading.Event) -> threading.Thread:
        """Start a thread that calls `work`, which calls `run`, until `stop`; if it ends before, /health says so."""

        def forever() -> None:
            while not stop.wait(self.every):
                self.run("loop", work)

        self._thread = threading.Thread(target=forever, daemon=True)
        self._thread.start()
        return self._thread

    def troubles(self) -> list[str]:
        """Sentences about rounds of this process that fail, without details; empty if all is well."""
        failing = [(name, one.in_a_row) for name, one in sorted(self._rounds.items()) if one.in_a_row]
        troubles = [f"round {name} failed {count} time{'s' if count > 1 else ''} in a row" for name, count in failing]
        if self._thread is not None and not self._thread.is_alive():
            troubles.append("the thread of the rounds ended; start the service again")
        return troubles

    def counts(self) -> list[tuple[str, int, int, float | None]]:
        """For each round: name, number done, number failed, time of the last one done."""
        return [(name, one.ok, one.failures, one.ok_at) for name, one in sorted(self._rounds.items())]

    def _note(self, name: str, counts: _Round, error: str) -> None:
        """Count a round. Failures and recoveries are written to the database at once, other rounds now and then."""
        moment = time.monotonic()
        news = bool(error) or bool(counts.in_a_row) or moment - counts.noted_at >= STANDING
        if error:
            counts.failures, counts.in_a_row, counts.error = counts.failures + 1, counts.in_a_row + 1, error
            counts.next_at = moment + min(self.every * 2 ** min(counts.in_a_row - 1, 20), LONGEST)
        else:
            counts.ok, counts.in_a_row, counts.error, counts.ok_at = counts.ok + 1, 0, "", time.time()
        if not news:
            return
        try:
            with self.db.begin() as connection:
                table.record(connection, name, f"{self.role}/{socket.gethostname()}", error or None)
            counts.noted_at = moment
        except Exception as failure:  # noqa: BLE001 - the database may be what fails
            LOG.warning("that round %s %s could not be noted: %s", name, "failed" if error else "was done", failure)
