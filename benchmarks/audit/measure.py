"""How fast the log is written and verified, and whether any change of an export goes unseen.

`python -m benchmarks.audit.measure [--quick]`; the last line is one JSON object.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.audit.mutations import table, tried
from components.audit import keys, log
from components.audit.log import Actor, Deed
from components.audit.merkle import add_leaf, leaf_hash, root_of
from components.audit.verify import verify_export
from components.storage.database import Database
from tests.private_postgresql import PostgresqlMissing, running

BATCH = 100
"""Entries per transaction: about what one sweep or one delivery enters."""
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


def deed(number: int) -> Deed:
    """An entry as large as most."""
    details = {"state": "learning", "reason": "the task is learnt on the present champion", "attempt": number % 3}
    return Deed("task.moved", Actor("lcia", assured=True, how="system"), f"{number:064x}", details)


def appends_per_second(url: str, count: int) -> float:
    """Entries a second, `BATCH` a transaction, each transaction on disk before the next."""
    db = Database(url)
    db.migrate()
    start = time.perf_counter()
    for first in range(0, count, BATCH):
        with db.begin() as connection:
            log.append_all(connection, [deed(number) for number in range(first, min(count, first + BATCH))])
    seconds = time.perf_counter() - start
    with db.read() as connection:
        assert log.count(connection) == count
    db.engine.dispose()
    return count / seconds


def write_export(path: Path, count: int) -> None:
    """An export of `count` entries, without a database."""
    encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
    peaks: tuple[bytes, ...] = ()
    previous = ""
    with path.open("wb") as file:
        for index in range(count):
            told = deed(index)
            body = encode(
                {
                    "index": index,
                    "at": "2026-01-31T12:00:00.000000Z",
                    "actor": vars(told.actor),
                    "action": told.action,
                    "subject": told.subject,
                    "details": told.details,
                    "previous": previous,
                }
            ).encode()
            leaf = leaf_hash(body)
            peaks, previous = add_leaf(peaks, index, leaf), leaf.hex()
            file.write(
                b'{"body":%b,"hash":"%b","root":"%b"}\n' % (body, previous.encode(), root_of(peaks).hex().encode())
            )


def verified_per_second(folder: Path, count: int) -> tuple[float, float]:
    """Entries a second of CPU time, one core, and of wall time."""
    path = folder / "long.jsonl"
    write_export(path, count)
    wall, cpu = time.perf_counter(), time.process_time()
    found = verify_export(path)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert found.ok
    assert found.entries == count
    path.unlink()
    return count / cpu, count / wall


def sample_export(folder: Path, entries: int) -> tuple[Path, keys.SigningKey]:
    """A short log of a real database with its signed head."""
    db = Database(f"sqlite:///{folder}/sample.db")
    db.migrate()
    key = keys.signing_key(folder / "keys")
    path = folder / "log.jsonl"
    with db.begin() as connection:
        log.append_all(connection, [deed(number) for number in range(entries)])
    with db.read() as connection:
        log.export(connection, path, key)
    return path, key


def main() -> None:
    """Print the figures, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller numbers, about a minute")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    many, long, mutations = (1_000, 100_000, 10_000) if told.quick else (20_000, 1_000_000, 10_000)
    appended = {}
    with tempfile.TemporaryDirectory(prefix="lcia-audit-") as name:
        folder = Path(name)
        appended["sqlite"] = appends_per_second(f"sqlite:///{folder}/state.db", many)
        try:
            with running(**DURABLE) as cluster:
                appended["postgresql"] = appends_per_second(cluster.url(cluster.new()), many)
        except PostgresqlMissing as missing:
            print(f"no PostgreSQL here: {missing}")
        for kind, rate in appended.items():
            print(f"appends, {BATCH} a transaction, {kind}: {rate:,.0f} entries/s")
        cpu, wall = verified_per_second(folder, long)
        print(f"verify, {long:,} entries: {cpu:,.0f} entries a CPU second, {wall:,.0f} a second")
        print(f"so 10^6 entries take {1e6 / cpu:.1f} CPU s")
        path, key = sample_export(folder, 40)
        tallies, honest = tried(path, key, mutations, told.seed, folder)
        print(table(tallies))
        print(f"a cut without a head is called 'freshness not proven': {'always' if honest else 'NOT always'}")
    found = {
        "mutations_tried": sum(tally.tried for tally in tallies.values()),
        "mutations_found": sum(tally.found for tally in tallies.values()),
        "verify_per_s": round(cpu),
        "append_per_s": round(appended.get("postgresql", appended["sqlite"])),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
