"""Finished work by key, so that it is never done twice: insert-if-absent, the first writer wins."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select

from components.storage.database import now
from components.storage.leases import Lease, check
from components.storage.tables import results


@dataclass(frozen=True)
class Result:
    """Output of a step for one key."""

    key: str
    """sha256 over inputs, resolved configuration and the hash of the sources (see `keys`)."""
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
    """Record `output` under `key`; returns the result on record, which may be an earlier writer's.

    Raises:
        StaleLease: another owner has taken over the writer's lease.
    """
    check(connection, lease)
    earlier = find(connection, key)
    if earlier is not None:
        return earlier
    result = Result(key, step, output, lease.epoch, now(connection))
    connection.execute(
        insert(results).values(key=key, step=step, output=output, lease_epoch=lease.epoch, created_at=result.created_at)
    )
    return result
