"""Leases: one owner at a time, with an epoch that every write checks.

An owner that stalls and comes back finds a higher epoch, and its writes are refused (a fencing token). All times come
from the database, so clocks of different machines are never compared. That one clock may be set back: a heartbeat from
the future proves nothing, and its lease counts as lost, like one that has run out. How long a lease lives is its
holder's to say: that of a lineage stands in `lcia/lineage.py`.
"""

import os
import socket
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from components.errors import LciaError
from components.storage.database import Database, is_ahead, now
from components.storage.tables import leases


class StaleLease(LciaError):
    """Another owner has taken over the lease; the former one must not write any more."""


class LeaseUnknown(LciaError):
    """Nobody holds a lease of this name."""


class LeaseAlive(LciaError):
    """The lease's owner gave a sign of life within its time, so breaking the lease takes `force`."""


@dataclass(frozen=True)
class Lease:
    """A lease with its owner; `epoch` fences every write made under it."""

    name: str
    owner: str
    epoch: int
    ttl: float
    """Seconds without a renewal after which others may take over."""


def process_owner(role: str) -> str:
    """Owner name of this very process: role, host, boot and namespace, process id, start time.

    A process id alone may be another process by now; with boot, namespace and start time it can't be.
    """
    return f"{role}/{socket.gethostname()}/{_machine()}/{os.getpid()}/{_start_of(os.getpid())}"


def acquire(db: Database, name: str, owner: str, ttl: float) -> Lease | None:
    """Take the lease if it is free or lost (see `Standing`), else None.

    `ttl` is in seconds. A live owner's own second call also gives None: a lease is not re-entrant.
    """
    with db.begin() as connection:
        moment = now(connection)
        row = connection.execute(select(leases).where(leases.c.name == name)).one_or_none()
        if row is None:
            connection.execute(insert(leases).values(name=name, owner=owner, epoch=1, heartbeat=moment, ttl=ttl))
            return Lease(name, owner, 1, ttl)
        if row.owner is not None and not _standing(row, moment).is_lost:
            return None
        connection.execute(
            update(leases)
            .where(leases.c.name == name, leases.c.epoch == row.epoch)
            .values(owner=owner, epoch=row.epoch + 1, heartbeat=moment, ttl=ttl)
        )
        return Lease(name, owner, row.epoch + 1, ttl)


def holder(connection: Connection, name: str) -> Lease | None:
    """The present lease, for `status`; None if it is free or its heartbeat is too old."""
    row = connection.execute(select(leases).where(leases.c.name == name)).one_or_none()
    if row is None or row.owner is None or _is_over(row, now(connection)):
        return None
    return Lease(row.name, row.owner, row.epoch, row.ttl)


@dataclass(frozen=True)
class Standing:
    """State of a lease that its owner has not given back."""

    name: str
    owner: str
    silent: float | None
    """Seconds since the owner's last heartbeat; negative if that lies in the future, None if it is no time."""
    is_lost: bool
    """True if it has run out, lies in the future, or its owner has certainly ended; anybody may take it then."""
    ahead: bool
    """True if its heartbeat lies in the future: the clock was set back."""

    @property
    def words(self) -> str:
        """Its owner and the time since the last heartbeat, for people."""
        role, host, _, process, _ = [*self.owner.rsplit("/", 4), "", "", "", ""][:5]
        owner = f"{role} (host {host}, process {process})" if process else self.owner
        if self.silent is None:
            return f"{self.name} is held by {owner}, whose heartbeat is no time"
        if self.ahead:
            return f"{self.name} is held by {owner}, whose heartbeat lies {-self.silent:.0f} seconds in the future"
        return f"{self.name} is held by {owner}, heard {max(self.silent, 0):.0f} seconds ago"


def standing(connection: Connection) -> list[Standing]:
    """Every lease with an owner, for `doctor`."""
    moment = now(connection)
    rows = connection.execute(select(leases).where(leases.c.owner.is_not(None)).order_by(leases.c.name)).all()
    return [_standing(row, moment) for row in rows]


def break_lease(connection: Connection, name: str, *, force: bool = False) -> Standing:
    """Free a lease that is lost, or any lease with `force`; its owner's next fenced write is refused.

    Returns its state before.

    Raises:
        LeaseUnknown: nobody holds a lease of that name.
        LeaseAlive: its owner is alive, and `force` is not given.
    """
    standings = {one.name: one for one in standing(connection)}
    if name not in standings:
        raise LeaseUnknown(f"nobody holds the lease {name!r}; held: {', '.join(standings) or 'none'}")
    if not standings[name].is_lost and not force:
        raise LeaseAlive(
            f"{standings[name].words}, so it is at work: stop that process, and the lease is free. --force takes the "
            "lease from it all the same; what it has not recorded by then is refused and done again by the next worker"
        )
    connection.execute(update(leases).where(leases.c.name == name).values(owner=None, epoch=leases.c.epoch + 1))
    return standings[name]


def renew(db: Database, lease: Lease) -> None:
    """Record a heartbeat of the owner.

    Raises:
        StaleLease: another owner has taken over.
    """
    with db.begin() as connection:
        check(connection, lease)
        connection.execute(update(leases).where(leases.c.name == lease.name).values(heartbeat=now(connection)))


def release(db: Database, lease: Lease) -> None:
    """Give the lease back; without effect if another owner has taken over."""
    with db.begin() as connection:
        connection.execute(
            update(leases)
            .where(leases.c.name == lease.name, leases.c.epoch == lease.epoch, leases.c.owner == lease.owner)
            .values(owner=None)
        )


def check(connection: Connection, lease: Lease) -> None:
    """Fence a write: call this in the write's own transaction, before writing.

    Raises:
        StaleLease: the epoch is another one now.
    """
    row = connection.execute(select(leases).where(leases.c.name == lease.name)).one_or_none()
    if row is None or row.epoch != lease.epoch or row.owner != lease.owner:
        state = "gone" if row is None else f"at epoch {row.epoch}, owner {row.owner or 'nobody'}"
        raise StaleLease(
            f"lease {lease.name!r} is {state}; {lease.owner} held epoch {lease.epoch}, so its work is not "
            "recorded. Nothing is lost: the next `lcia run` goes on from what was stored"
        )


def _standing(row: Row[Any], moment: datetime) -> Standing:
    silent = None if row.heartbeat is None else (moment - row.heartbeat).total_seconds()
    is_lost = _is_over(row, moment) or _is_dead(row.owner)
    ahead = row.heartbeat is not None and is_ahead(row.heartbeat, moment)
    return Standing(row.name, row.owner, silent, is_lost=is_lost, ahead=ahead)


def _is_over(row: Row[Any], moment: datetime) -> bool:
    """True if the last heartbeat no longer keeps others out: too old, from the future, or no time."""
    if row.heartbeat is None or not isinstance(row.ttl, int | float):
        return True
    return (moment - row.heartbeat).total_seconds() >= row.ttl or is_ahead(row.heartbeat, moment)


def _machine() -> str:
    """This boot and process-id namespace, within which a process id means one process; '' without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """Start time of a process, in clock ticks since boot; '' if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the program's name, in brackets, may hold blanks and brackets
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _is_dead(owner: str) -> bool:
    """True if `owner` names a process of this boot and namespace (see `process_owner`) that has certainly ended."""
    parts = owner.rsplit("/", 4)
    if len(parts) != 5 or not _machine() or parts[1:3] != [socket.gethostname(), _machine()] or not parts[3].isdigit():
        return False
    return _start_of(int(parts[3])) != parts[4]
