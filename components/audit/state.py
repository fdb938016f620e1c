"""The state compared with the log: what each table should hold, and the first row that no entry explains.

Whoever can write to a table past lcia can give himself a role, an approval or a policy, and no entry says so. So the
log is replayed against the champion, promotions, candidates, approvals, the queue, policies, people, grants, tokens and
keys. Entries of earlier releases say less; what they don't say is not asked of them.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import Connection, RowMapping, Table, inspect, select, text

from components.audit.decisions import DECISIONS
from components.names import same_person
from components.storage import tables
from components.storage.objects import Json, digest_of

Body: TypeAlias = Mapping[str, Any]
Facts: TypeAlias = dict[str, Any]
_REGISTERED = ("number", "task", "task_name", "parent", "evidence", "verdict", "attempt", "submitted_by", "launched_by",
               "item")  # fmt: skip


@dataclass(frozen=True)
class StateComparison:
    """The tables against the log."""

    first: str | None
    """The first row that the log does not explain, or that is missing, in words; None where there is none."""
    older: int
    """Tokens made before the log said what they are checked with."""
    unread: tuple[str, ...]
    """Tables that this account may not read."""

    @property
    def words(self) -> str:
        """One clause."""
        if self.first is not None:
            return f"the log does not explain the state: {self.first}"
        told = "the log explains the state"
        told += f" but {', '.join(self.unread)}, which this account can't read" if self.unread else ""
        told += f"; {self.older} tokens are older than the check of their secrets" if self.older else ""
        return told


@dataclass
class Ledger:
    """What the tables should hold, entry by entry."""

    disowned: Mapping[int, str] = field(default_factory=dict)
    """Index and hash of entries that were never decided."""
    champions: dict[str, Facts] = field(default_factory=dict)
    promotions: dict[tuple[str, int], Facts] = field(default_factory=dict)
    candidates: dict[str, Facts] = field(default_factory=dict)
    approvals: list[Facts] = field(default_factory=list)
    queue: dict[int, Facts] = field(default_factory=dict)
    policies: dict[int, Facts] = field(default_factory=dict)
    people: dict[str, Facts] = field(default_factory=dict)
    grants: set[tuple[str, str, str]] = field(default_factory=set)
    appointments: dict[int, Facts] = field(default_factory=dict)
    tokens: dict[str, Facts] = field(default_factory=dict)
    keys: dict[str, Facts] = field(default_factory=dict)
    first_bad: str | None = None
    """An entry that nothing can be made of: no release wrote it."""

    def take(self, body: Body, leaf: str) -> None:
        """Learn from the next entry, whose hash is `leaf`."""
        if self.disowned.get(body["index"]) == leaf:
            return
        thing, _, done = str(body["action"]).partition(".")
        try:
            _READERS.get(thing, _nothing)(self, body, done)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if self.first_bad is None:
                self.first_bad = f"entry {body['index']} ({body['action']}) lacks what every release wrote: {error!r}"

    def compare(self, connection: Connection) -> StateComparison:
        """Look for the first row that is not as it should be."""
        readable = _readable(connection)
        unread = tuple(name for name, _ in _CHECKS if name not in readable)
        first = self.first_bad
        for name, check in _CHECKS:
            if first is None and name in readable:
                first = next(check(self, connection), None)
        older = sum("check" not in token for token in self.tokens.values()) if "tokens" in readable else 0
        return StateComparison(first, older, unread)


# -- entries ----------------------------------------------------------------------------------------


def _nothing(ledger: Ledger, body: Body, done: str) -> None:
    """What changes none of the tables."""


def _task(ledger: Ledger, body: Body, done: str) -> None:
    details = body["details"]
    if "item" not in details:
        return
    if "to" not in details:
        known = {name: details.get(name) for name in ("package", "owner")}
        ledger.queue[details["item"]] = {**known, "submitted_by": body["actor"]["name"], "state": done}
    elif details["item"] in ledger.queue:
        ledger.queue[details["item"]]["state"] = details["to"]


def _candidate(ledger: Ledger, body: Body, done: str) -> None:
    details, digest = body["details"], body["subject"]
    if done == "registered":
        told = {name: details[name] for name in _REGISTERED if name in details}
        ledger.candidates[digest] = {**told, "assistant": details.get("assistant"), "state": "pending"}
        for given in ledger.approvals:
            if given["candidate"] == digest:
                given["revoked"] = True
    elif done == "approved":
        _approve(ledger, body, "approve", override=False)
    elif done == "rejected":
        _approve(ledger, body, "reject", override=False)
        if digest in ledger.candidates:
            ledger.candidates[digest]["state"] = "rejected"


def _gate(ledger: Ledger, body: Body, done: str) -> None:
    if done == "overridden":
        _approve(ledger, body, "approve", override=True)


def _approve(ledger: Ledger, body: Body, verdict: str, *, override: bool) -> None:
    details = body["details"]
    given: Facts = {
        "candidate": body["subject"],
        "verdict": verdict,
        "override": override,
        "person": body["actor"]["name"],
        "assured": body["actor"]["assured"],
        "evidence": details["evidence"],
        "reason": details["reason"],
    }
    given |= {name: details[name] for name in ("expires_at",) if name in details}
    if "approval" in details:
        given |= {"id": details["approval"], "how": body["actor"]["how"]}
    ledger.approvals.append({**given, "revoked": False})


def _approval(ledger: Ledger, body: Body, done: str) -> None:
    if done != "revoked":
        return
    wanted, person = body["details"].get("approvals"), body["actor"]["name"]
    for given in ledger.approvals:
        if given["candidate"] != body["subject"] or given["verdict"] != "approve" or given["revoked"]:
            continue
        if wanted is not None:
            given["revoked"] = given.get("id") in wanted or ("id" not in given and _by(given, body["details"]))
        elif same_person(given["person"], person):  # of a release before, which took one back
            given["revoked"] = True
            return


def _by(given: Facts, details: Mapping[str, Json]) -> bool:
    return same_person(given["person"], str(details.get("person", "")))


def _champion(ledger: Ledger, body: Body, done: str) -> None:
    details, digest = body["details"], body["subject"]
    kind = DECISIONS.get(f"champion.{done}")
    if kind is None:
        return
    name, epoch = details["assistant"], details["epoch"]
    made: Facts = {
        "version": digest,
        "previous": details.get("previous"),
        "kind": kind,
        "by": body["actor"]["name"],
        "assured": body["actor"]["assured"],
        "reason": details.get("reason"),
        "evidence": details.get("evidence"),
        "entry": body["index"],
    }
    if (name, epoch) in ledger.promotions:
        raise ValueError(
            f"epoch {epoch} of {name} was decided before, by entry {ledger.promotions[name, epoch]['entry']}"
        )
    ledger.promotions[name, epoch] = made
    ledger.champions[name] = {"version": digest, "epoch": epoch, "entry": body["index"]}
    for other, known in ledger.candidates.items():
        if known["assistant"] == name and known["state"] == "pending" and known.get("parent") != digest:
            known["state"] = "promoted" if other == digest else "superseded"
    if digest in ledger.candidates:
        ledger.candidates[digest]["state"] = "promoted"


def _policy(ledger: Ledger, body: Body, done: str) -> None:
    details, number = body["details"], int(str(body["subject"]).removeprefix("policy "))
    known = ledger.policies.setdefault(
        number, {"proposed_by": body["actor"]["name"], "accepted_by": None, "ended": False}
    )
    known |= {"content": details["policy"]}
    known |= {name: details[name] for name in ("assistant", "proposed_by") if name in details}
    if done in ("accepted", "refused"):
        known |= {"ended": True, "accepted_by": body["actor"]["name"] if done == "accepted" else None}


def _person(ledger: Ledger, body: Body, done: str) -> None:
    details, name = body["details"], body["subject"]
    if done == "added":
        ledger.people[name] = {"subject": details.get("subject"), "disabled": False}
    elif name in ledger.people:
        known = ledger.people[name]
        known |= {"subject": details["subject"]} if "subject" in details else {}
        known |= {"disabled": done == "disabled"} if done in ("disabled", "enabled") else {}


def _role(ledger: Ledger, body: Body, done: str) -> None:
    if done in ("granted", "withdrawn"):
        grant = (body["subject"], body["details"]["role"], body["details"]["site"])
        (ledger.grants.add if done == "granted" else ledger.grants.discard)(grant)


def _appointment(ledger: Ledger, body: Body, done: str) -> None:
    details, by = body["details"], body["actor"]["name"]
    told = {"person": body["subject"], **{name: details[name] for name in ("role", "site", "subject", "alone")}}
    ended = done in ("accepted", "refused")
    known = ledger.appointments.setdefault(details["appointment"], {"proposed_by": details.get("proposed_by", by)})
    known |= {**told, "ended": ended, "accepted_by": by if done == "accepted" else None}


def _token(ledger: Ledger, body: Body, done: str) -> None:
    details = body["details"]
    if done == "created":
        kept = {name: details[name] for name in ("permissions", "expires_at", "check", "assured") if name in details}
        kept |= {"made_by": body["actor"]["name"], "how": body["actor"]["how"]} if "assured" in details else {}
        ledger.tokens[details["id"]] = {**kept, "person": body["subject"], "revoked": False}
    elif done == "revoked" and details["id"] in ledger.tokens:
        ledger.tokens[details["id"]]["revoked"] = True


def _key(ledger: Ledger, body: Body, done: str) -> None:  # noqa: ARG001
    ledger.keys[body["subject"]] = {"record": body["details"]["record"], "entry": body["index"]}


_READERS = {
    "task": _task,
    "candidate": _candidate,
    "gate": _gate,
    "approval": _approval,
    "champion": _champion,
    "policy": _policy,
    "person": _person,
    "role": _role,
    "appointment": _appointment,
    "token": _token,
    "key": _key,
}

# -- rows -------------------------------------------------------------------------------------------

Finding: TypeAlias = Iterator[str]


def _champions(ledger: Ledger, connection: Connection) -> Finding:
    rows = {row["name"]: row for row in _rows(connection, tables.champion)}
    yield from _both("champion of", rows, ledger.champions, ("version", "epoch"))


def _promotions(ledger: Ledger, connection: Connection) -> Finding:
    rows = {(row["name"], row["epoch"]): row for row in _rows(connection, tables.promotions)}
    names = ("version", "previous", "kind", "by", "assured", "reason", "evidence", "entry")
    yield from _both("promotion", rows, ledger.promotions, names)


def _candidates(ledger: Ledger, connection: Connection) -> Finding:
    rows = {row["digest"]: row for row in _rows(connection, tables.candidates)}
    yield from _both("candidate", rows, ledger.candidates, ("assistant", *_REGISTERED, "state"))


def _approvals(ledger: Ledger, connection: Connection) -> Finding:
    """Each row takes an entry for itself: two equal rows need two entries."""
    left = list(ledger.approvals)
    names = ("candidate", "verdict", "person", "assured", "how", "evidence", "reason", "override", "expires_at", "id")
    for row in _rows(connection, tables.approvals):
        facts = {**row, "expires_at": row["expires_at"].isoformat()}
        mine = next((one for one in left if all(one[n] == facts[n] for n in names if n in one)), None)
        who = f"approval {row['id']} ({row['verdict']} by {row['person']} of {row['candidate'][:12]})"
        if mine is None:
            yield f"{who} is in the database, and no entry says so"
            continue
        left.remove(mine)
        if mine["revoked"] != (row["revoked_at"] is not None):
            seen = "counts" if mine["revoked"] else "was taken back"
            yield f"{who} {seen} in the database, and the log says otherwise"
    for one in left:
        if one["verdict"] == "approve":  # a withdrawal rejects without anybody's no
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


_CHECKS = (
    ("champion", _champions),
    ("promotions", _promotions),
    ("policies", _policies),
    ("people", _people),
    ("grants", _grants),
    ("appointments", _appointments),
    ("tokens", _tokens),
    ("approvals", _approvals),
    ("candidates", _candidates),
    ("queue", _queue),
    ("signing_keys", _keys),
)


def token_check(secret: str) -> str:
    """What the log says of a token's stored hash: nothing can be signed in with it, and no other fits it."""
    return digest_of(f"token {secret}".encode())


def _both(
    what: str, rows: Mapping[Any, Mapping[str, Any] | RowMapping], told: Mapping[Any, Facts], names: tuple[str, ...]
) -> Finding:
    """Rows that no entry tells of, that say otherwise, and those that are missing."""
    for key, row in rows.items():
        if key not in told:
            yield f"{what} {_name(key)} is in the database, and no entry says so"
            continue
        for name in names:
            if name in told[key] and row[name] != told[key][name]:
                seen, expected = _short(row[name]), _short(told[key][name])
                yield f"{what} {_name(key)} has {name} {seen} in the database, {expected} by the log"
    for key in told.keys() - rows.keys():
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
    told = repr(value)
    return f"{told[:60]}..." if len(told) > 64 else told
