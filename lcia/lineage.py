"""Lease on an assistant's lineage: a process that learns, sweeps or rebases holds it, and only one at a time.

Other leases are held in the same way.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from components.errors import LciaError
from components.storage import leases
from components.storage.database import Database
from components.storage.leases import Lease

LOG = logging.getLogger("lcia.lineage")
LEASE_SECONDS = 60.0
"""Seconds without a heartbeat after which another worker may take over."""


class LineageBusy(LciaError):
    """Another worker is at work on this assistant."""


@contextmanager
def hold_lineage(db: Database, assistant: str, role: str) -> Iterator[Lease]:
    """Hold the lease of an assistant's lineage, with a heartbeat, for as long as the block takes.

    Raises:
        LineageBusy: another live process holds it.
    """
    name = f"lineage:{assistant}"
    with hold(db, name, role) as lease:
        if lease is None:
            with db.read() as connection:
                holder = leases.holder(connection, name)
            raise LineageBusy(
                f"{holder.owner if holder else 'another worker'} is at work on {assistant!r}; "
                "versions are registered by one worker at a time: wait for it (`lcia status`) or stop it"
            )
        yield lease


@contextmanager
def hold(db: Database, name: str, role: str) -> Iterator[Lease | None]:
    """Hold a lease, with a heartbeat, for as long as the block takes; None if another live process has it."""
    lease = leases.acquire(db, name, leases.process_owner(role), LEASE_SECONDS)
    if lease is None:
        yield None
        return
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(db, lease, stop), daemon=True)
    beat.start()
    try:
        yield lease
    finally:
        stop.set()
        beat.join()
        leases.release(db, lease)


def _beat(db: Database, lease: Lease, stop: threading.Event) -> None:
    while not stop.wait(LEASE_SECONDS / 4):
        try:
            leases.renew(db, lease)
        except (LciaError, OSError):  # taken over, or the database is away; the next fenced write finds out
            continue
        except Exception as error:  # noqa: BLE001 - a live worker must go on sending heartbeats
            LOG.warning("the lease was not renewed: %s: %s", type(error).__name__, error)
