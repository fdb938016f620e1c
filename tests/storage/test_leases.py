"""Two workers on a database whose clock jumps back and forth: whoever was overtaken writes nothing any more."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from components.storage import leases
from components.storage.database import Database
from components.storage.leases import Lease, StaleLease

STEPS, TTL = 300, 60.0


@pytest.fixture
def db(tmp_path):
    found = Database(f"sqlite:///{tmp_path}/lcia.db")
    found.migrate()
    return found


@pytest.mark.parametrize("seed", range(3))
def test_no_write_of_an_overtaken_worker_is_taken(db, monkeypatch, seed):
    chance, clock = random.Random(seed), [datetime(2026, 11, 30, tzinfo=UTC)]
    monkeypatch.setattr(leases, "now", lambda _: clock[0])
    held: dict[str, Lease] = {}
    written: list[int] = []
    refused = taken = 0
    for _ in range(STEPS):
        clock[0] += timedelta(seconds=chance.choice((1, 1, 5, 20, 70, 3600, -1, -30, -70, -3600)))
        worker = chance.choice(("one", "two"))
        lease = held.get(worker)
        if lease is None:
            found = leases.acquire(db, "lineage:a", f"{worker} of another host", TTL)
            if found is not None:
                held[worker], taken = found, taken + 1
            continue
        try:
            leases.renew(db, lease)
            with db.begin() as connection:
                leases.check(connection, lease)
                written.append(lease.epoch)
        except StaleLease:
            del held[worker]
            refused += 1
    assert written == sorted(written), "no older epoch wrote after a newer one"
    assert (refused > 0, taken > 2, len(written) > 20) == (True, True, True), "and each of it happened"
