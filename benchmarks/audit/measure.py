"""Speed of writing and verifying the log, and a search for changes of an export that go unseen.

`python -m benchmarks.audit.measure [--quick]`; the last line is one JSON object.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import rfc8785

from benchmarks.audit.mutations import table, tried
from components.audit import keys, log
from components.audit.log import Actor, Deed
from components.audit.merkle import add_leaf, leaf_hash, root_of
from components.audit.verify import verify_export
from components.storage.database import Database
from tests.support.private_postgresql import PostgresqlMissing, running

BATCH = 100
"""Entries per transaction: about what one sweep or one delivery enters."""
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


def deed(number: int) -> Deed:
    """An entry as large as most."""
    details = {"state": "learning", "reason": "the task is learnt on the present champion", "attempt": number % 3}
    return Deed("task.moved", Actor("lcia", assured=True, how="system"), f"{number:064x}", details)


def appends_per_second(url: str, count: int, batch: int) -> float:
    """Entries a second, `batch` a transaction, each transaction on disk before the next."""
    db = Database(url)
    db.migrate()
    with db.read() as connection:
        before = log.count(connection)
    start = time.perf_counter()
    for first in range(0, count, batch):
        with db.begin() as connection:
            log.append_all(connection, [deed(number) for number in range(first, min(count, first + batch))])
    seconds = time.perf_counter() - start
    with db.read() as connection:
        assert log.count(connection) == before + count
    db.engine.dispose()
    return count / seconds


def write_export(path: Path, count: int) -> None:
    """An export of `count` entries, without a database."""
    encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
    peaks: tuple[bytes, ...] = ()
    previous = ""
    with path.open("wb") as file:
        for index in range(count):
            entry = deed(index)
            body = encode(
                {
                    "index": index,
                    "at": "2026-01-31T12:00:00.000000Z",
                    "actor": vars(entry.actor),
                    "action": entry.action,
                    "subject": entry.subject,
                    "details": entry.details,
                    "previous": previous,
                }
            ).encode()
            leaf = leaf_hash(body)
            peaks, previous = add_leaf(peaks, index, leaf), leaf.hex()
            file.write(
                b'{"body":%b,"hash":"%b","root":"%b"}\n' % (body, previous.encode(), root_of(peaks).hex().encode())
            )


def verified_per_second(path: Path, verifier: Callable[[Path], int], count: int) -> tuple[float, float]:
    """Entries a second of CPU time, one core, and of wall time."""
    wall, cpu = time.perf_counter(), time.process_time()
    assert verifier(path) == count
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return count / cpu, count / wall


def ours(path: Path) -> int:
    """Entries of a log that is good."""
    report = verify_export(path)
    assert report.ok
    return report.entries


def plain(path: Path) -> int:
    """The same as the formats' texts put it, one step after the other: what speed is compared with."""
    previous, peaks, index = "", (), 0  # type: tuple[str, tuple[bytes, ...], int]
    with path.open("rb") as file:
        for line in file:
            value = json.loads(line)
            assert rfc8785.dumps(value) + b"\n" == line
            body, leaf = value["body"], leaf_hash(rfc8785.dumps(value["body"]))
            assert (body["index"], body["previous"], value["hash"]) == (index, previous, leaf.hex())
            peaks, previous, index = add_leaf(peaks, index, leaf), leaf.hex(), index + 1
            assert root_of(peaks).hex() == value["root"]
    return index


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


def both(url: str, count: int, name: str) -> float:
    """Appends in batches and, side by side, one a transaction; returns the first."""
    single = appends_per_second(url, count // 10, 1)
    rate = appends_per_second(url, count, BATCH)
    print(f"appends, {name}: {rate:,.0f}/s, {BATCH} a transaction; {single:,.0f}/s one by one: ratio "
          f"{rate / single:.1f}")  # fmt: skip
    return rate


def main() -> None:
    """Print the figures, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller numbers, about a minute")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    many, long, mutations = (1_000, 100_000, 10_000) if arguments.quick else (20_000, 1_000_000, 10_000)
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="lcia-audit-") as name:
        folder = Path(name)
        rates["sqlite"] = both(f"sqlite:///{folder}/state.db", many, "SQLite")
        try:
            with running(**DURABLE) as cluster:
                rates["postgresql"] = both(cluster.url(cluster.new()), many, "PostgreSQL")
        except PostgresqlMissing as missing:
            print(f"no PostgreSQL here: {missing}")
        export = folder / "long.jsonl"
        write_export(export, long)
        cpu, wall = verified_per_second(export, ours, long)
        few = long // 10
        export.write_bytes(b"".join(islice(export.open("rb"), few)))
        slow, _ = verified_per_second(export, plain, few)
        print(f"verify, {long:,} entries: {cpu:,.0f} entries a CPU second, {wall:,.0f} a second")
        print(f"so 10^6 entries take {1e6 / cpu:.1f} CPU s; plainly {slow:,.0f} a CPU second: ratio {cpu / slow:.1f}")
        path, key = sample_export(folder, 40)
        tallies, honest = tried(path, key, mutations, arguments.seed, folder)
        print(table(tallies))
        print(f"a cut without a head is called 'freshness not proven': {'always' if honest else 'NOT always'}")
    results = {
        "mutations_tried": sum(tally.tried for tally in tallies.values()),
        "mutations_found": sum(tally.found for tally in tallies.values()),
        "verify_per_s": round(cpu),
        "append_per_s": round(rates.get("postgresql", rates["sqlite"])),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
