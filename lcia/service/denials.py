"""Denials in the log: the first is entered at once, further ones as a count.

Otherwise a caller without a role could fill the log, from which nothing can be deleted. The first denial of a person
and permission is entered at once. Those that follow within the hour are counted in this process, and the count is
entered when the hour is over. If the process dies before, the count is lost.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from components.audit.log import Actor, append
from components.identity.access import Forbidden
from components.storage.database import Database

WINDOW = 3600.0
"""Seconds during which denials of one person and permission are counted together."""
MOST = 10_000
"""Windows that stay open; beyond that the oldest closes."""


@dataclass
class _Window:
    """Denials of one person and permission."""

    db: Database
    actor: Actor
    operation: str
    began: float
    reason: str
    more: int = 0
    """Denials after the first one."""


class Denials:
    """Open windows of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock, self._turn = clock, threading.Lock()
        self._open: dict[tuple[str, str, str], _Window] = {}

    def add(self, db: Database, actor: Actor, operation: str, permission: str, why: Forbidden) -> None:
        """Enter a denial, or count it; windows that are over are closed."""
        self.close()
        key = (db.url, actor.name, permission)
        with self._turn:
            standing = self._open.get(key)
            if standing is not None:
                standing.more += 1
                return
            self._open[key] = _Window(db, actor, operation, self._clock(), str(why))
        with db.begin() as connection:
            append(connection, "access.denied", actor, operation, {"reason": str(why), "permission": permission})

    def close(self, *, everything: bool = False) -> None:
        """Enter the counts of windows that are over; with `everything`, at the end of the process, of all."""
        with self._turn:
            over = [key for key, one in self._open.items() if everything or self._clock() - one.began >= WINDOW]
            over += list(self._open)[: max(0, len(self._open) - MOST)]
            windows = [(key[2], self._open.pop(key)) for key in dict.fromkeys(over)]
        for permission, one in windows:
            if one.more:
                details = {"reason": one.reason, "permission": permission, "more": one.more, "seconds": int(WINDOW)}
                with one.db.begin() as connection:
                    append(connection, "access.denied", one.actor, one.operation, details)


DENIALS = Denials()
"""Denials of this process."""
