"""Finished work, found again by key: insert-if-absent, the first writer wins."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select

from components.storage.database import now
from components.storage.leases import Lease, check
from components.storage.tables import results


@dataclass(frozen=True)
class Result:
    """What a step gave for one key."""

    key: str
    """sha256 over inputs, resolved configuration and the hash of the sources that made it."""
    step: str
    output: str
    """Digest of the output object."""
    lease_epoch: int
    created_at: datetime


def find(connection: Connection, key: str) -> Result | None:
    """The result recorded under `key`, if any."""
    row = connection.execute(select(results).where(results.c.key == key)).one_or_none()
    return None if row is None else Result(row.key, row.step, row.output, row.lease_epoch, row.created_at)


def record(connection: Connection, lease: Lease, key: str, step: str, output: str) -> Result:
    """Record `output` under `key` and return what stands there now, which an earlier writer may have put.

    Raises:
        StaleLease: the writer's lease was taken over.
    """
    check(connection, lease)
    found = find(connection, key)
    if found is not None:
        return found
    result = Result(key, step, output, lease.epoch, now(connection))
    connection.execute(
        insert(results).values(key=key, step=step, output=output, lease_epoch=lease.epoch, created_at=result.created_at)
    )
    return result
