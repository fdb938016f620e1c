"""The state compared with the log: the first row of a table that no entry explains, or that is missing.

Somebody who can write to a table past lcia can give himself a role, an approval or a policy, and no entry says so. So
the log is replayed into a ledger, and the ledger compared with the champion, promotions, candidates, approvals, the
queue, trials, policies, people, grants, tokens and keys.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Connection, RowMapping, Table, inspect, select, text

from components.audit.ledger import REGISTERED, Facts, Ledger
from components.storage import tables
from components.storage.objects import Json, digest_of

Finding: TypeAlias = Iterator[str]


@dataclass(frozen=True)
class StateComparison:
    """Result of comparing the tables with the log."""

    first: str | None
    """Sentence about the first row that the log does not explain, or that is missing; None if there is none."""
    older: int
    """Number of tokens from before the log recorded a check of their secret."""
    unread: tuple[str, ...]
    """Tables that this account may not read."""

    @property
    def words(self) -> str:
        """One clause."""
        if self.first is not None:
            return f"the log does not explain the state: {self.first}"
        text = "the log explains the state"
        text += f" but {', '.join(self.unread)}, which this account can't read" if self.unread else ""
        text += f"; {self.older} tokens are older than the check of their secrets" if self.older else ""
        return text


def compare(ledger: Ledger, connection: Connection) -> StateComparison:
    """Compare the tables with the ledger up to the first row that differs."""
    readable = _readable(connection)
    unread = tuple(name for name, _ in _CHECKS if name not in readable)
    first = ledger.first_bad
    for name, check in _CHECKS:
        if first is None and name in readable:
            first = next(check(ledger, connection), None)
    older = sum("check" not in token for token in ledger.tokens.values()) if "tokens" in readable else 0
    return StateComparison(first, older, unread)


def _champions(ledger: Ledger, connection: Connection) -> Finding:
    rows = {row["name"]: row for row in _rows(connection, tables.champion)}
    yield from _both("champion of", rows, ledger.champions, ("version", "epoch"))


def _promotions(ledger: Ledger, connection: Connection) -> Finding:
    rows = {(row["name"], row["epoch"]): row for row in _rows(connection, tables.promotions)}
    names = ("version", "previous", "kind", "by", "assured", "reason", "evidence", "entry")
    yield from _both("promotion", rows, ledger.promotions, names)


def _candidates(ledger: Ledger, connection: Connection) -> Finding:
    rows = {row["digest"]: row for row in _rows(connection, tables.candidates)}
    yield from _both("candidate", rows, ledger.candidates, ("assistant", *REGISTERED, "state"))


def _approvals(ledger: Ledger, connection: Connection) -> Finding:
    """Compare approvals. Each row uses up an entry: two equal rows need two entries."""
    rest = list(ledger.approvals)
    names = ("candidate", "verdict", "person", "assured", "how", "evidence", "trials", "reason", "override",
             "expires_at", "id")  # fmt: skip
    for row in _rows(connection, tables.approvals):
        facts = {**row, "expires_at": row["expires_at"].isoformat()}
        mine = next((one for one in rest if all(one[n] == facts[n] for n in names if n in one)), None)
        who = f"approval {row['id']} ({row['verdict']} by {row['person']} of {row['candidate'][:12]})"
        if mine is None:
            yield f"{who} is in the database, and no entry says so"
            continue
        rest.remove(mine)
        if mine["revoked"] != (row["revoked_at"] is not None):
            state = "counts" if mine["revoked"] else "was taken back"
            yield f"{who} {state} in the database, and the log says otherwise"
    for one in rest:
        if one["verdict"] == "approve":  # a withdrawal rejects without a row here
            yield f"the approval of {one['candidate'][:12]} by {one['person']} is in the log and not in the database"


def _queue(ledger: Ledger, connection: Connection) -> Finding:
    rows = {row["id"]: row for row in _rows(connection, tables.queue)}
    yield from _both("task", rows, ledger.queue, ("package", "owner", "submitted_by", "state"))


def _policies(ledger: Ledger, connection: Connection) -> Finding:
    rows = {row["id"]: {**row, "ended": row["ended_at"] is not None} for row in _rows(connection, tables.policies)}
    names = ("assistant", "content", "proposed_by", "accepted_by", "ended")
    yield from _both("policy", rows, ledger.policies, names)


def _people(ledger: Ledger, connection: Connection) -> Finding:
    rows = {
        row["name"]: {**row, "disabled": row["disabled_at"] is not None} for row in _rows(connection, tables.people)
    }
    yield from _both("person", rows, ledger.people, ("subject", "disabled"))


def _grants(ledger: Ledger, connection: Connection) -> Finding:
    rows = {(row["person"], row["role"], row["site"]) for row in _rows(connection, tables.grants)}
    for person, role, site in sorted(rows ^ ledger.grants):
        there = "in the database, and no entry says so" if (person, role, site) in rows else "missing in the database"
        yield f"the role {role} of {person} at {site} is {there}"


def _appointments(ledger: Ledger, connection: Connection) -> Finding:
    rows = {row["id"]: {**row, "ended": row["ended_at"] is not None} for row in _rows(connection, tables.appointments)}
    names = ("person", "role", "site", "subject", "alone", "proposed_by", "accepted_by", "ended")
    yield from _both("proposal", rows, ledger.appointments, names)


def _tokens(ledger: Ledger, connection: Connection) -> Finding:
    rows = {
        row["id"]: {
            **row,
            "check": token_check(row["secret"]),
            "expires_at": row["expires_at"].isoformat(),
            "revoked": row["revoked_at"] is not None,
        }
        for row in _rows(connection, tables.tokens)
    }
    names = ("person", "permissions", "expires_at", "check", "revoked", "made_by", "how", "assured")
    yield from _both("token", rows, ledger.tokens, names)


def _keys(ledger: Ledger, connection: Connection) -> Finding:
    rows = {row["id"]: row for row in _rows(connection, tables.signing_keys)}
    yield from _both("key", rows, ledger.keys, ("record", "entry"))


def _trials(ledger: Ledger, connection: Connection) -> Finding:
    rows = {row["id"]: row for row in _rows(connection, tables.trials)}
    names = ("assistant", "candidate", "evidence", "champion", "epoch", "kind", "share", "rules", "asked_by",
             "approved_by", "entry", "state", "ended_by", "cause", "record")  # fmt: skip
    yield from _both("trial", rows, ledger.trials, names)


_CHECKS = (
    ("champion", _champions),
    ("promotions", _promotions),
    ("policies", _policies),
    ("people", _people),
    ("grants", _grants),
    ("appointments", _appointments),
    ("tokens", _tokens),
    ("approvals", _approvals),
    ("trials", _trials),
    ("candidates", _candidates),
    ("queue", _queue),
    ("signing_keys", _keys),
)


def token_check(secret: str) -> str:
    """Digest by which the log identifies a token's stored hash; nobody can sign in with it."""
    return digest_of(f"token {secret}".encode())


def _both(
    what: str,
    rows: Mapping[Any, Mapping[str, Any] | RowMapping],
    facts: Mapping[Any, Facts],
    names: tuple[str, ...],
) -> Finding:
    """Rows without an entry, rows that differ from theirs, and rows that are missing."""
    for key, row in rows.items():
        if key not in facts:
            yield f"{what} {_name(key)} is in the database, and no entry says so"
            continue
        for name in names:
            if name in facts[key] and row[name] != facts[key][name]:
                actual, by_log = _short(row[name]), _short(facts[key][name])
                yield f"{what} {_name(key)} has {name} {actual} in the database, {by_log} by the log"
    for key in facts.keys() - rows.keys():
        yield f"{what} {_name(key)} is in the log and not in the database"


def _rows(connection: Connection, table: Table) -> list[RowMapping]:
    return list(connection.execute(select(table).order_by(*table.primary_key.columns)).mappings())


def _readable(connection: Connection) -> AbstractSet[str]:
    if connection.dialect.name != "postgresql":
        return set(inspect(connection).get_table_names())
    query = text(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = CAST(current_schema() AS regnamespace) "
        "AND has_table_privilege(oid, 'SELECT')"
    )
    return {str(name) for name in connection.execute(query).scalars()}


def _name(key: object) -> str:
    return " ".join(
        str(part)[:12] if len(str(part)) == 64 else str(part) for part in (key if isinstance(key, tuple) else (key,))
    )


def _short(value: Json) -> str:
    text = repr(value)
    return f"{text[:60]}..." if len(text) > 64 else text
