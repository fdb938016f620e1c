"""Leases: one owner at a time, told apart by an epoch that every write checks.

An owner that stalls and comes back finds a higher epoch and its writes refused (a fencing token). All times
are the database's, so clocks of different machines never meet. That one clock may be set back: a heartbeat from the
future proves nothing, and its lease is lost like one that has run out.
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
    """The lease was taken over; whatever its former owner was about to write must not be written."""


class LeaseUnknown(LciaError):
    """Nobody holds a lease of this name."""


class LeaseAlive(LciaError):
    """The owner of the lease was heard a moment ago, so it is not broken without force."""


@dataclass(frozen=True)
class Lease:
    """A held lease; `epoch` fences every write made under it."""

    name: str
    owner: str
    epoch: int
    ttl: float
    """Seconds without a renewal after which others may take over."""


def process_owner(role: str) -> str:
    """An owner name for this very process: role, host, boot and namespace, process id, its start time."""
    return f"{role}/{socket.gethostname()}/{_place()}/{os.getpid()}/{_start_of(os.getpid())}"


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
        if row.owner is not None and not _standing(row, moment).lost:
            return None
        connection.execute(
            update(leases)
            .where(leases.c.name == name, leases.c.epoch == row.epoch)
            .values(owner=owner, epoch=row.epoch + 1, heartbeat=moment, ttl=ttl)
        )
        return Lease(name, owner, row.epoch + 1, ttl)


def holder(connection: Connection, name: str) -> Lease | None:
    """The lease as it is held now, for `status`; None when it is free or its heartbeat holds no more."""
    row = connection.execute(select(leases).where(leases.c.name == name)).one_or_none()
    if row is None or row.owner is None or _is_over(row, now(connection)):
        return None
    return Lease(row.name, row.owner, row.epoch, row.ttl)


@dataclass(frozen=True)
class Standing:
    """How a lease that somebody has not given back stands."""

    name: str
    owner: str
    silent: float | None
    """Seconds since its owner was heard; negative where the heartbeat lies in the future, None where it is no time."""
    lost: bool
    """It has run out, lies in the future, or its owner certainly runs no more; the next one that wants it gets it."""
    ahead: bool
    """Its heartbeat lies in the future: the clock was set back."""

    @property
    def words(self) -> str:
        """Its owner and when that was heard, for people."""
        role, host, _, process, _ = [*self.owner.rsplit("/", 4), "", "", "", ""][:5]
        owner = f"{role} (host {host}, process {process})" if process else self.owner
        if self.silent is None:
            return f"{self.name} is held by {owner}, whose heartbeat is no time"
        if self.ahead:
            return f"{self.name} is held by {owner}, whose heartbeat lies {-self.silent:.0f} seconds in the future"
        return f"{self.name} is held by {owner}, heard {max(self.silent, 0):.0f} seconds ago"


def standing(connection: Connection) -> list[Standing]:
    """Every lease that was not given back, for `doctor`."""
    moment = now(connection)
    rows = connection.execute(select(leases).where(leases.c.owner.is_not(None)).order_by(leases.c.name)).all()
    return [_standing(row, moment) for row in rows]


def break_lease(connection: Connection, name: str, *, force: bool = False) -> Standing:
    """Free a lease that is lost, or with `force` any; its owner's next fenced write is refused. Returns how it stood.

    Raises:
        LeaseUnknown: nobody holds one of that name.
        LeaseAlive: its owner was heard within its time, and `force` is not given.
    """
    held = {one.name: one for one in standing(connection)}
    if name not in held:
        raise LeaseUnknown(f"nobody holds the lease {name!r}; held: {', '.join(held) or 'none'}")
    if not held[name].lost and not force:
        raise LeaseAlive(
            f"{held[name].words}, so it is at work: stop that process, and the lease is free. --force takes the lease "
            "from it all the same; what it has not recorded by then is refused and done again by the next worker"
        )
    connection.execute(update(leases).where(leases.c.name == name).values(owner=None, epoch=leases.c.epoch + 1))
    return held[name]


def renew(db: Database, lease: Lease) -> None:
    """Prove that the owner still works.

    Raises:
        StaleLease: somebody else took over.
    """
    with db.begin() as connection:
        check(connection, lease)
        connection.execute(update(leases).where(leases.c.name == lease.name).values(heartbeat=now(connection)))


def release(db: Database, lease: Lease) -> None:
    """Give the lease back; without effect when it was taken over already."""
    with db.begin() as connection:
        connection.execute(
            update(leases)
            .where(leases.c.name == lease.name, leases.c.epoch == lease.epoch, leases.c.owner == lease.owner)
            .values(owner=None)
        )


def check(connection: Connection, lease: Lease) -> None:
    """Fence a write: call it in the same transaction, before writing.

    Raises:
        StaleLease: the epoch has moved on.
    """
    row = connection.execute(select(leases).where(leases.c.name == lease.name)).one_or_none()
    if row is None or row.epoch != lease.epoch or row.owner != lease.owner:
        seen = "gone" if row is None else f"at epoch {row.epoch}, owner {row.owner or 'nobody'}"
        raise StaleLease(
            f"lease {lease.name!r} is {seen}; {lease.owner} held epoch {lease.epoch}, so its work is not "
            "recorded. Nothing is lost: the next `lcia run` goes on from what was stored"
        )


def _standing(row: Row[Any], moment: datetime) -> Standing:
    silent = None if row.heartbeat is None else (moment - row.heartbeat).total_seconds()
    lost = _is_over(row, moment) or _is_dead(row.owner)
    ahead = row.heartbeat is not None and is_ahead(row.heartbeat, moment)
    return Standing(row.name, row.owner, silent, lost=lost, ahead=ahead)


def _is_over(row: Row[Any], moment: datetime) -> bool:
    """True if the last heartbeat keeps others out no more: too old, from the future, or no time."""
    if row.heartbeat is None or not isinstance(row.ttl, int | float):
        return True
    return (moment - row.heartbeat).total_seconds() >= row.ttl or is_ahead(row.heartbeat, moment)


def _place() -> str:
    """This boot and process-id namespace: within it, a process id means one process; '' where /proc is absent."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """When a process began, in clock ticks since boot; '' if it runs no more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _is_dead(owner: str) -> bool:
    """Whether `owner` names a process of this very place (see `process_owner`) that certainly runs no more."""
    parts = owner.rsplit("/", 4)
    if len(parts) != 5 or not _place() or parts[1:3] != [socket.gethostname(), _place()] or not parts[3].isdigit():
        return False
    return _start_of(int(parts[3])) != parts[4]
