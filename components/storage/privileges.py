"""Accounts of the database on PostgreSQL: the rights of each process, as data and as SQL.

The worker handles the content of hostile packages, the service talks to browsers, the promoter moves the champion, the
keeper erases. Each has an account for its own work and no other: the worker can't approve, the service can't move the
champion, the promoter can't approve. The owner of the tables, who can do everything, is for migrations. Row security
(`CREATE POLICY`) decides by the content of rows.
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
    """A name that PostgreSQL takes only in quotes."""


@dataclass(frozen=True)
class Right:
    """One right of an account to write."""

    do: Literal["INSERT", "UPDATE", "DELETE"]
    table: str
    columns: tuple[str, ...] = ()
    """Columns of an UPDATE; empty means all."""
    before: str = "true"
    """SQL condition on a row before the change."""
    after: str = "true"
    """SQL condition on the written row."""


HIDDEN: Mapping[Account, frozenset[str]] = {
    "worker": frozenset({"people", "grants", "tokens", "appointments", "notices", "sessions", "trial_answers"}),
    "service": frozenset(),
    "promoter": frozenset({"tokens", "appointments", "notices", "sessions", "trial_answers"}),
    "keeper": frozenset({"people", "grants", "tokens", "appointments", "notices", "sessions", "trial_answers"}),
}
"""Tables that an account can't even read; it can read all others."""

_MOVE = ("state", "reason", "task", "reports", "launched_by", "attempts", "answers", "changed_at")
_END = ("state", "reason", "changed_at")
_AGAIN = (
    "number", "state", "reason", "task", "task_name", "parent", "evidence", "verdict", "attempt", "submitted_by",
    "launched_by", "item", "marks", "changed_at",
)  # fmt: skip
_BEAT = ("owner", "epoch", "heartbeat", "ttl")
_TOLD = ("attempts", "error", "done_at")
_PARKED = (*_TOLD, "packing", "parked_at")
_TWO = """ended_at IS NOT NULL AND (accepted_by IS NULL OR lower(btrim(accepted_by)) <> lower(btrim(proposed_by))
    OR (proposed_by = 'lcia' AND NOT EXISTS (
        SELECT FROM policies AS other WHERE other.assistant = policies.assistant
        AND other.accepted_by IS NOT NULL AND other.id <> policies.id)))"""
"""Nobody accepts a policy of their own; the first one, which a server begins with, is nobody's proposal."""
_TRIED = (
    "state", "tests", "approved_by", "approval", "started_at", "entry", "ended_at", "ended_by", "cause", "why",
    "record", "answers", "answers_until",
)  # fmt: skip
_APPROVED = """state <> 'under_way' OR kind = 'shadow'
    OR (approved_by IS NOT NULL AND lower(btrim(approved_by)) <> lower(btrim(asked_by)))"""
"""Nobody starts a canary alone."""
_ANSWERED = "state IN ('submitted', 'cancelled', 'rejected', 'refused', 'held', 'waiting')"
_REVOKE = Right("UPDATE", "approvals", ("revoked_at",), "revoked_at IS NULL", "revoked_at IS NOT NULL")


def _leases(*names: str) -> tuple[Right, Right]:
    mine = " OR ".join(f"name LIKE '{name}:%'" for name in names)
    return Right("INSERT", "leases", after=mine), Right("UPDATE", "leases", _BEAT, mine, mine)


def _rounds(role: str) -> tuple[Right, Right, Right]:
    mine = f"process LIKE '{role}/%'"
    return (
        Right("INSERT", "rounds", after=mine),
        Right("UPDATE", "rounds", before=mine, after=mine),
        Right("DELETE", "rounds", before=mine),
    )


RIGHTS: Mapping[Account, tuple[Right, ...]] = {
    "worker": (
        Right("INSERT", "queue", after="state = 'submitted'"),
        Right("UPDATE", "queue", _MOVE, after="state NOT IN ('promoted', 'rejected', 'withdrawn')"),
        Right("INSERT", "candidates", after="state = 'pending'"),
        Right("UPDATE", "candidates", _AGAIN, "state IN ('rejected', 'superseded')", "state = 'pending'"),
        _REVOKE,  # approvals of a candidate that is made again on new evidence
        Right("INSERT", "results"),
        *_leases("lineage", "outbox", "ahead"),
        Right("INSERT", "outbox", after="kind = 'candidate'"),
        Right("UPDATE", "outbox", _PARKED, "kind NOT IN ('promote', 'rollback')"),
        *_rounds("worker"),
    ),
    "service": (
        Right("INSERT", "queue", after="state = 'submitted'"),
        Right("UPDATE", "queue", _MOVE, after=_ANSWERED),
        Right("UPDATE", "candidates", _END, "state = 'pending'", "state IN ('rejected', 'superseded')"),
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
        Right("INSERT", "policies", after="accepted_by IS NULL AND ended_at IS NULL"),
        Right("UPDATE", "policies", ("accepted_by", "ended_at"), "ended_at IS NULL", _TWO),
        Right("INSERT", "notices"),
        Right("UPDATE", "notices"),
        *_leases("notices"),
        Right("INSERT", "sessions", after="ended_at IS NULL"),
        Right("UPDATE", "sessions", ("ended_at",), after="ended_at IS NOT NULL"),
        Right("DELETE", "sessions"),
        *_rounds("service"),
        Right("INSERT", "replicas"),
        Right("UPDATE", "replicas"),
        Right("DELETE", "replicas"),
        Right("INSERT", "trials", after="state = 'waiting' OR (state = 'under_way' AND kind = 'shadow')"),
        Right("UPDATE", "trials", _TRIED, "state <> 'ended'", _APPROVED),
        Right("INSERT", "trial_counts"),
        Right("UPDATE", "trial_counts", ("counts", "at")),
        Right("INSERT", "trial_answers"),
        Right("DELETE", "trial_answers"),
        Right("INSERT", "wording_proposals", after="state = 'open'"),
        Right("UPDATE", "wording_proposals"),
        Right("DELETE", "wording_proposals"),
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
        Right("UPDATE", "trials", ("statement", "signed_by"), "state = 'under_way'", "state = 'under_way'"),
        Right("INSERT", "heads"),
        Right("UPDATE", "heads", _TOLD),
        *_leases("outbox", "heads"),
    ),
    "keeper": (
        Right("UPDATE", "queue", _MOVE, after="state IN ('withdrawn', 'submitted')"),
        Right("UPDATE", "candidates", (*_END, "marks")),
        Right("UPDATE", "promotions", ("marks",)),
        Right("DELETE", "results"),
        Right("DELETE", "wording_proposals"),
        Right("INSERT", "outbox", after="kind IN ('forget', 'marks', 'state')"),
        *_leases("lineage"),
    ),
}
"""Account -> its rights to write. Nobody updates or deletes the log, and nobody deletes a decision."""

ENTRIES: Mapping[Account, tuple[str, ...]] = {
    "worker": (
        *(f"task.{state}" for state in (
            "submitted", "assessing", "waiting", "learning", "candidate", "failed", "refused", "cancelled",
            "nothing_to_learn", "held",
        )),
        "candidate.registered", "version.differs", "lease.broken", "registry.repaired", "registry.moved",
    ),
    "service": (
        "task.submitted", "task.cancelled", "task.rejected", "task.refused", "task.superseded", "task.prioritised",
        "task.held", "candidate.approved",
        "candidate.rejected", "approval.revoked", "gate.overridden", "flips.seen", "version.differs", "access.denied",
        "person.*", "role.*", "appointment.*", "token.*", "policy.*", "trial.*",
    ),
    "promoter": (
        "task.promoted", "task.submitted", "champion.promoted", "champion.rolled_back", "key.started", "key.rotated",
        "registry.repaired", "registry.moved",
    ),
    "keeper": ("task.withdrawn", "task.submitted", "candidate.rejected", "retention.swept", "lease.broken"),
}  # fmt: skip
"""Account -> actions that it may enter in the log; `thing.*`: all about a thing. The owner of the tables may enter
every action."""

ACTORS: Mapping[Account, str] = {"worker": "system os-user asserted inbox"}
"""Account -> values of `Actor.how` that it may enter; the other accounts may enter any, as they act for people who
signed in. `os-user` is a user of the worker's machine."""
ENTER = "log_enter"
"""Function of the tables' owner that checks an entry and writes it: the only way into the log."""
OWNERS = frozenset({"log", "log_actions", "log_set_aside"})
"""Tables that no account writes to."""


def script(prefix: str = "lcia", schema: str = "public") -> str:
    """SQL that creates the accounts `<prefix>_worker`, ... and gives each exactly its rights; it may run repeatedly.

    Passwords are set separately (`\\password lcia_worker` in psql), so that the script is no secret.

    Raises:
        NameRefused: a name that would need quotes.
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
        full_name = f"{schema}.{table.name}"
        yield ""
        yield f"ALTER TABLE {full_name} ENABLE ROW LEVEL SECURITY;"
        readers = [account for account in ACCOUNTS if table.name not in HIDDEN[account]]
        yield f"GRANT SELECT ON {full_name} TO {', '.join(names[account] for account in readers)};"
        yield from _policy(f"{prefix}_read", full_name, "SELECT", "PUBLIC", "USING (true)")
        for account in ACCOUNTS:
            for right in RIGHTS[account]:
                if right.table == table.name:
                    yield from _grant(right, full_name, names[account])
                    if right.do == "INSERT" and table.autoincrement_column is not None:
                        column = table.autoincrement_column.name
                        yield f"GRANT USAGE ON SEQUENCE {full_name}_{column}_seq TO {names[account]};"
    yield ""
    yield f"REVOKE ALL ON FUNCTION {schema}.{ENTER}(bytea[]) FROM PUBLIC, {everybody};"
    yield f"GRANT EXECUTE ON FUNCTION {schema}.{ENTER}(bytea[]) TO {everybody};"
    mine = ", ".join(f"'{name}'" for name in names.values())
    yield f"DELETE FROM {schema}.log_actions WHERE account IN ({mine});"  # noqa: S608 - plain names
    for account, actions in ENTRIES.items():
        actors = f"'{ACTORS[account]}'" if account in ACTORS else "NULL"
        rows = ", ".join(f"('{names[account]}', '{action}', {actors})" for action in actions)
        yield f"INSERT INTO {schema}.log_actions (account, action, actors) VALUES {rows};"  # noqa: S608
    yield "COMMIT;"


def _grant(right: Right, full_name: str, name: str) -> Iterator[str]:
    columns = f" ({', '.join(right.columns)})" if right.columns else ""
    yield f"GRANT {right.do}{columns} ON {full_name} TO {name};"
    using, check = f"USING ({right.before})", f"WITH CHECK ({right.after})"
    clause = {"INSERT": check, "UPDATE": f"{using} {check}", "DELETE": using}[right.do]
    yield from _policy(f"{name}_{right.do.lower()}", full_name, right.do, name, clause)


def _policy(policy: str, full_name: str, do: str, name: str, clause: str) -> Iterator[str]:
    yield f"DROP POLICY IF EXISTS {policy} ON {full_name};"
    yield f"CREATE POLICY {policy} ON {full_name} FOR {do} TO {name} {clause};"
