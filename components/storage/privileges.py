"""Accounts of the database on PostgreSQL: what each process may write, as data and as SQL.

The worker handles what hostile packages gave, the service talks to browsers, the promoter moves the champion, the
keeper erases. Each has an account for its own work and nothing of another's: the worker can't approve, the service
can't move the champion, the promoter can't approve. The owner of the tables, to whom all is possible, is for
migrations. Rows are told apart by row security (`CREATE POLICY`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from components.errors import LciaError
from components.storage.tables import metadata

Account: TypeAlias = Literal["worker", "service", "promoter", "keeper"]
ACCOUNTS: tuple[Account, ...] = get_args(Account)
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}")


class NameRefused(LciaError):
    """A name that PostgreSQL would not take as it stands."""


@dataclass(frozen=True)
class Right:
    """One thing an account may write."""

    do: Literal["INSERT", "UPDATE", "DELETE"]
    table: str
    columns: tuple[str, ...] = ()
    """Of an UPDATE; empty means all."""
    before: str = "true"
    """SQL condition that a row to be changed meets."""
    after: str = "true"
    """SQL condition that the written row meets."""


HIDDEN: Mapping[Account, frozenset[str]] = {
    "worker": frozenset({"people", "grants", "tokens", "appointments", "notices"}),
    "service": frozenset(),
    "promoter": frozenset({"tokens", "appointments", "notices"}),
    "keeper": frozenset({"people", "grants", "tokens", "appointments", "notices"}),
}
"""Tables that an account can't even read; it reads all others."""

_MOVE = ("state", "reason", "task", "reports", "launched_by", "attempts", "answers", "changed_at")
_END = ("state", "reason", "changed_at")
_AGAIN = (
    "number", "state", "reason", "task", "task_name", "parent", "evidence", "verdict", "attempt", "submitted_by",
    "launched_by", "item", "marks", "changed_at",
)  # fmt: skip
_BEAT = ("owner", "epoch", "heartbeat", "ttl")
_TOLD = ("attempts", "error", "done_at")
_PARKED = (*_TOLD, "parked_at")
_LOG = Right("INSERT", "log")
_REVOKE = Right("UPDATE", "approvals", ("revoked_at",), "revoked_at IS NULL", "revoked_at IS NOT NULL")


def _leases(*names: str) -> tuple[Right, Right]:
    mine = " OR ".join(f"name LIKE '{name}:%'" for name in names)
    return Right("INSERT", "leases", after=mine), Right("UPDATE", "leases", _BEAT, mine, mine)


RIGHTS: Mapping[Account, tuple[Right, ...]] = {
    "worker": (
        Right("INSERT", "queue", after="state = 'submitted'"),
        Right("UPDATE", "queue", _MOVE, after="state NOT IN ('promoted', 'rejected', 'withdrawn')"),
        Right("INSERT", "candidates", after="state = 'pending'"),
        Right("UPDATE", "candidates", _AGAIN, "state IN ('rejected', 'superseded')", "state = 'pending'"),
        _REVOKE,  # of what is made again on new evidence
        Right("INSERT", "results"),
        *_leases("lineage", "outbox"),
        Right("INSERT", "outbox", after="kind = 'candidate'"),
        Right("UPDATE", "outbox", _PARKED, "kind NOT IN ('promote', 'rollback')"),
        _LOG,
    ),
    "service": (
        Right("INSERT", "queue", after="state = 'submitted'"),
        Right("UPDATE", "queue", _MOVE, after="state IN ('submitted', 'cancelled', 'rejected', 'refused')"),
        Right("UPDATE", "candidates", _END, "state = 'pending'", "state = 'rejected'"),
        Right("INSERT", "approvals", after="revoked_at IS NULL"),
        _REVOKE,
        Right("INSERT", "outbox", after="kind = 'state'"),
        Right("INSERT", "people"),
        Right("UPDATE", "people", ("subject", "disabled_at")),
        Right("INSERT", "grants"),
        Right("DELETE", "grants"),
        Right("INSERT", "appointments"),
        Right("UPDATE", "appointments", ("accepted_by", "ended_at"), "ended_at IS NULL", "ended_at IS NOT NULL"),
        Right("INSERT", "tokens"),
        Right("UPDATE", "tokens", ("revoked_at", "last_used_at")),
        Right("INSERT", "policies"),
        Right("UPDATE", "policies", ("accepted_by", "ended_at")),
        Right("INSERT", "notices"),
        Right("UPDATE", "notices"),
        *_leases("notices"),
        _LOG,
    ),
    "promoter": (
        Right("UPDATE", "queue", _MOVE, "state = 'candidate'", "state IN ('promoted', 'submitted')"),
        Right("UPDATE", "candidates", _END, "state = 'pending'", "state IN ('promoted', 'superseded')"),
        Right("INSERT", "champion"),
        Right("UPDATE", "champion", ("version", "epoch", "decided_at", "served")),
        Right("INSERT", "promotions"),
        Right("INSERT", "outbox", after="kind IN ('state', 'promote', 'rollback')"),
        Right("UPDATE", "outbox", _PARKED),
        Right("INSERT", "signing_keys"),
        Right("INSERT", "statements"),
        Right("INSERT", "heads"),
        Right("UPDATE", "heads", _TOLD),
        *_leases("outbox", "heads"),
        _LOG,
    ),
    "keeper": (
        Right("UPDATE", "queue", _MOVE, after="state = 'withdrawn'"),
        Right("UPDATE", "candidates", (*_END, "marks")),
        Right("UPDATE", "promotions", ("marks",)),
        Right("DELETE", "results"),
        Right("INSERT", "outbox", after="kind IN ('forget', 'marks', 'state')"),
        *_leases("lineage"),
        _LOG,
    ),
}
"""Account -> what it may write. Nobody updates or deletes the log, and nobody deletes a decision."""


def script(prefix: str = "lcia", schema: str = "public") -> str:
    """SQL that makes the accounts `<prefix>_worker`, ... and gives each exactly its rights; may be repeated.

    Passwords are set apart (`\\password lcia_worker` in psql), so that the script is no secret.

    Raises:
        NameRefused: a name that would need quoting.
    """
    for name in (prefix, schema):
        if not _NAME.fullmatch(name):
            raise NameRefused(f"{name!r} is no plain name; expected a-z, 0-9 and _, as in lcia")
    return "\n".join(_statements(prefix, schema)) + "\n"


def _statements(prefix: str, schema: str) -> Iterator[str]:
    names = {account: f"{prefix}_{account}" for account in ACCOUNTS}
    everybody = ", ".join(names.values())
    yield "-- Accounts of lcia: run it as the owner of the tables who may create roles, after every upgrade."
    yield "BEGIN;"
    for name in names.values():
        yield f"DO $$ BEGIN CREATE ROLE {name} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
    yield "DO $$ BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());"
    yield f"  EXECUTE format('GRANT CONNECT ON DATABASE %I TO {everybody}', current_database()); END $$;"
    yield f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC;"
    yield f"GRANT USAGE ON SCHEMA {schema} TO {everybody};"
    yield f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC, {everybody};"
    yield f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA {schema} FROM PUBLIC, {everybody};"
    yield f"GRANT SELECT ON {schema}.alembic_version TO {everybody};"
    for table in metadata.sorted_tables:
        place = f"{schema}.{table.name}"
        yield ""
        yield f"ALTER TABLE {place} ENABLE ROW LEVEL SECURITY;"
        readers = [account for account in ACCOUNTS if table.name not in HIDDEN[account]]
        yield f"GRANT SELECT ON {place} TO {', '.join(names[account] for account in readers)};"
        yield from _policy(f"{prefix}_read", place, "SELECT", "PUBLIC", "USING (true)")
        for account in ACCOUNTS:
            for right in RIGHTS[account]:
                if right.table == table.name:
                    yield from _grant(right, place, names[account])
                    if right.do == "INSERT" and table.autoincrement_column is not None:
                        column = table.autoincrement_column.name
                        yield f"GRANT USAGE ON SEQUENCE {place}_{column}_seq TO {names[account]};"
    yield "COMMIT;"


def _grant(right: Right, place: str, name: str) -> Iterator[str]:
    columns = f" ({', '.join(right.columns)})" if right.columns else ""
    yield f"GRANT {right.do}{columns} ON {place} TO {name};"
    using, check = f"USING ({right.before})", f"WITH CHECK ({right.after})"
    clause = {"INSERT": check, "UPDATE": f"{using} {check}", "DELETE": using}[right.do]
    yield from _policy(f"{name}_{right.do.lower()}", place, right.do, name, clause)


def _policy(policy: str, place: str, do: str, name: str, clause: str) -> Iterator[str]:
    yield f"DROP POLICY IF EXISTS {policy} ON {place};"
    yield f"CREATE POLICY {policy} ON {place} FOR {do} TO {name} {clause};"
