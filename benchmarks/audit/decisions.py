"""Duration of a decision in a log of a thousand, a hundred thousand and a million entries.

`python -m benchmarks.audit.decisions [--quick]`; the last line is one JSON object. A decision is all that follows from
a person's yes: the number of the attempt, the approval, the promotion, its signed statement and head, the check of the
champion and its statement before it is loaded, and a proof that the promotion is in the log.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, text

from benchmarks.audit.measure import DURABLE
from components.audit import heads, keyring, log, proofs
from components.audit.log import Actor
from components.audit.merkle import add_leaf, leaf_hash, root_of
from components.gate.attempts import Family, attempts
from components.promotion import approvals, champion, statements
from components.settings import PolicySettings
from components.storage.database import Database
from components.storage.objects import ObjectStore
from components.storage.tables import log as rows
from components.storage.tables import moment_text
from tests.support.private_postgresql import PostgresqlMissing, running

sys.path.append(str(Path(__file__).parents[2] / "tests" / "support"))
from promotion_state import BOB, CAROL, State

LENGTHS, QUICK = (1_000, 100_000, 1_000_000), (1_000, 10_000, 50_000)
REPEATED = 15
"""Decisions per length; the median counts."""
WARM = 3
"""Decisions before that, which fill caches."""
FLAT = 1.5
POLICY = PolicySettings()


def filling(start: int, end: int, previous: str, peaks: tuple[bytes, ...]) -> Iterator[dict[str, Any]]:
    """Rows of the log from `start` on, as denials of people without a role would have made them."""
    encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
    actor, moment = asdict(Actor("eve", assured=True, how="token")), moment_text(datetime.now(UTC))
    for index in range(start, end):
        entry = {"index": index, "at": moment, "actor": actor, "action": "access.denied", "subject": "approve"}
        body = encode({**entry, "details": {"reason": "no role"}, "previous": previous}).encode()
        leaf = leaf_hash(body)
        peaks, previous = add_leaf(peaks, index, leaf), leaf.hex()
        beside = {"hash": previous, "root": root_of(peaks).hex(), "peaks": " ".join(peak.hex() for peak in peaks)}
        yield {"position": index, "body": body, **beside, "action": "access.denied", "subject": "approve"}


def fill(db: Database, length: int) -> None:
    """Bring the log to a length, past its guard: a million entries through it take a quarter of an hour."""
    with db.begin() as connection:
        last = connection.execute(select(rows).order_by(rows.c.position.desc()).limit(1)).one()
        entries = filling(last.position + 1, length, last.hash, log.read_peaks(last.peaks))
        guards = _guards_off(connection)
        while batch := [row for row, _ in zip(entries, range(5_000), strict=False)]:
            connection.execute(insert(rows), batch)
        for statement in guards:
            connection.execute(text(statement.replace(":", r"\:")))
        if connection.dialect.name == "postgresql":  # the tests' own server does not look by itself
            connection.execute(text("ANALYZE"))


def _guards_off(connection: Any) -> list[str]:
    if connection.dialect.name == "postgresql":
        connection.execute(text("ALTER TABLE log DISABLE TRIGGER USER"))
        return ["ALTER TABLE log ENABLE TRIGGER USER"]
    triggers = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")).all()
    for name, _ in triggers:
        connection.execute(text(f"DROP TRIGGER {name}"))
    return [str(statement) for _, statement in triggers]


def decision(state: State, folder: Path, version: int) -> dict[str, float]:
    """Milliseconds of each part of one decision about a candidate that waits."""
    seconds: dict[str, float] = {}
    start = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal start
        seconds[name] = (time.perf_counter() - start) * 1000
        start = time.perf_counter()

    fields = {"assistant": "a", "version": version, "policy": POLICY}
    with state.db.read() as connection:
        attempts(connection, Family("a", f"t{version}", "team"), 90)
    lap("attempt")
    approvals.approve(state.db, state.store, actor=BOB, reason="fine", **fields)
    lap("approve")
    promotion = champion.promote(state.db, state.store, actor=CAROL, reason="go", **fields)
    lap("promote")
    key = keyring.current(state.db, folder)
    statements.sign_owed(state.db, state.store, key, "a")
    heads.enqueue(state.db, key, [str(folder / "heads")])
    lap("sign")
    with state.db.read() as connection:
        winner = champion.candidates.get(connection, "a", version)
    statements.need(state.db, state.store, "a", winner, key.public)
    lap("check")
    with state.db.read() as connection:
        proofs.prove_inclusion(connection, int(promotion.entry or 0), key)
    lap("prove")
    return seconds


def measured(databases: dict[int, Database], folder: Path) -> list[dict[str, float]]:
    """The median of each part, and of all, at each length; each log has a state of its own, and they take turns."""
    states, parents = {}, dict.fromkeys(databases, "")
    for length, db in databases.items():
        db.migrate()
        states[length] = State(folder / str(length), db, ObjectStore(f"file://{folder}/{length}/objects"))
        with db.begin() as connection:
            log.append(connection, "access.denied", BOB, "approve")
        fill(db, length)
    runs: dict[int, list[dict[str, float]]] = {length: [] for length in databases}
    for version in range(1, WARM + REPEATED + 1):
        for length, state in states.items():
            parents[length] = state.candidate(f"t{version}", parents[length] or None).digest
            runs[length].append(decision(state, folder / str(length) / "keys", version))
    table = []
    for length, ones in runs.items():
        medians = {name: statistics.median(one[name] for one in ones[WARM:]) for name in ones[0]}
        table.append({"entries": length, **medians, "all": statistics.median(sum(one.values()) for one in ones[WARM:])})
    return table


def show(name: str, table: list[dict[str, float]]) -> float:
    """Print a table; returns how much slower the longest log is than the shortest."""
    names = list(table[0])
    print(f"\n{name}, milliseconds (median of {REPEATED})")
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in table:
        print("| " + " | ".join(f"{row[one]:,.0f}" if one == "entries" else f"{row[one]:.1f}" for one in names) + " |")
    ratio = table[-1]["all"] / table[0]["all"]
    print(f"{table[-1]['entries']:,} entries against {table[0]['entries']:,}: {ratio:.2f} times")
    return ratio


def main() -> None:
    """Print a table for each database, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short logs, about a minute")
    lengths = QUICK if parser.parse_args().quick else LENGTHS
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="lcia-decisions-") as name:
        folder = Path(name)
        files = {length: Database(f"sqlite:///{folder}/sqlite/{length}/state.db") for length in lengths}
        ratios["sqlite"] = show("SQLite", measured(files, folder / "sqlite"))
        try:
            with running(**DURABLE) as cluster:
                databases = {length: Database(cluster.url(cluster.new())) for length in lengths}
                ratios["postgresql"] = show("PostgreSQL", measured(databases, folder / "postgresql"))
                for db in databases.values():
                    db.engine.dispose()
        except PostgresqlMissing as missing:
            print(f"no PostgreSQL here: {missing}")
    fields = {f"{name}_ratio": round(ratio, 2) for name, ratio in ratios.items()}
    print(json.dumps({"lengths": list(lengths), **fields, "flat": all(ratio <= FLAT for ratio in ratios.values())}))


if __name__ == "__main__":
    main()
