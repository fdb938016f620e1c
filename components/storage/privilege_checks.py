"""Rights of a process's account in the database, proven by trying: every attempt is undone."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from sqlalchemy import Connection, Executable, delete, false, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from components.storage.database import NO_RIGHT, Database, now
from components.storage.objects import Json, canonical
from components.storage.privileges import ACCOUNTS, ENTER, ENTRIES, Account
from components.storage.tables import (
    approvals,
    candidates,
    champion,
    grants,
    leases,
    log,
    log_actions,
    moment_text,
    outbox,
    policies,
    promotions,
    replicas,
    results,
    signing_keys,
    tokens,
    trials,
    wording_proposals,
)

Accounts: TypeAlias = frozenset[str | None]
"""Accounts that may do something; None stands for an account with a name unlike ours."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at an action."""

    action: str
    """Words that follow "this account can"."""
    can: bool
    """True if the database allowed it."""
    may: bool
    """True if it should be allowed."""
    answer: str
    """Message of the database; empty if it allowed it."""

    @property
    def ok(self) -> bool:
        """True if the account can do it exactly if it may."""
        return self.can == self.may


@dataclass(frozen=True)
class Privileges:
    """Rights of this process's account."""

    user: str
    """Its name in the database; empty on SQLite."""
    account: Account | None
    """Our account of that name; None for the owner of the tables, on SQLite, or for a name unlike ours."""
    attempts: list[Attempt]

    @property
    def ok(self) -> bool:
        """True if it can do its own work and nothing else."""
        return all(attempt.ok for attempt in self.attempts)

    def words(self) -> str:
        """One line for people: surprises, or that there are none."""
        wrong = [attempt for attempt in self.attempts if not attempt.ok]
        if wrong:
            return f"{self.user or 'this process'} {'; '.join(_sentence(attempt) for attempt in wrong)}"
        if self.account is None:
            who = f"{self.user} owns the tables" if self.user else "SQLite knows no accounts"
            return f"the log refuses changes; {who}: whoever opens the database can write every other table"
        refusals = sum(not attempt.can for attempt in self.attempts)
        return (
            f"{self.user} can do the {self.account}'s work; {refusals} actions of other accounts were tried and refused"
        )


def check_privileges(db: Database) -> Privileges:
    """Try every action with the account of `db`.

    On SQLite and for the owner of the tables only the guard of the log is tried: the rest is always allowed.

    Raises:
        DatabaseUnavailable: it can't be reached.
    """
    with db.begin() as connection:
        if connection.dialect.name == "sqlite":
            return Privileges("", None, list(_guard(connection)))
        user = str(connection.execute(text("SELECT current_user")).scalar_one())
        owner = text("SELECT bool_or(pg_has_role(tableowner, 'USAGE')) FROM pg_tables WHERE tablename = 'log'")
        if connection.execute(owner).scalar_one():
            return Privileges(user, None, list(_guard(connection)))
        account = next((name for name in ACCOUNTS if user.endswith(f"_{name}")), None)
        trials = [*_entries(connection, account), *_TRIALS]
        return Privileges(user, account, [_try(connection, *trial, account) for trial in trials])


def _guard(connection: Connection) -> Iterator[Attempt]:
    """Attempts at the guard of the log, on an entry that is gone afterwards."""
    with connection.begin_nested() as entry:
        attempt = _try(connection, "add to the log", _enter(connection, _body(connection, "log.tried")), _ANYBODY, None)
        yield attempt
        if attempt.can:
            connection.execute(_enter(connection, _body(connection, "log.tried")))
        yield from [_try(connection, *trial, None) for trial in (*_LOG_TRIALS, *_bad_entries(connection))]
        entry.rollback()


def _entries(connection: Connection, account: Account | None) -> Iterator["Trial"]:
    """Trials of entries in the log."""
    own = ENTRIES[account][0] if account else "task.submitted"
    yield "add to the log", _enter(connection, _body(connection, own)), _ANYBODY - {None}
    for action, words in _OF_ONE.items():
        by = frozenset(name for name, actions in ENTRIES.items() if action in actions)
        yield words, _enter(connection, _body(connection, action)), by
    other = _body(connection, "task.submitted", how="console")
    yield "enter what somebody who signed in did", _enter(connection, other), _ANYBODY - {None, "worker"}
    yield from _bad_entries(connection)
    past = {"position": 0, "body": b"{}", "hash": "", "root": "", "peaks": ""}
    yield "write to the log past its writer", insert(log).values(**past), _NOBODY
    may = {"account": _ME, "action": "champion.promoted"}
    yield "say who may enter what", insert(log_actions).values(**may), _NOBODY


def _bad_entries(connection: Connection) -> Iterator["Trial"]:
    """Trials of entries that nobody may add to the log, not even the owner of the tables."""
    yield "add what is no entry to the log", _enter(connection, b"lcia-doctor"), _NOBODY
    late = _body(connection, "log.tried", gap=1)
    yield "leave a gap in the log", _enter(connection, late, gap=1), _NOBODY
    loose = _body(connection, "log.tried", previous="f" * 64)
    yield "add an entry that follows none to the log", _enter(connection, loose), _NOBODY


def _body(
    connection: Connection, action: str, *, how: str = "system", gap: int = 0, previous: str | None = None
) -> bytes:
    """An entry that would be the log's next."""
    last = _last(connection)
    value: Json = {
        "index": last[0] + 1 + gap,
        "at": moment_text(now(connection)),
        "actor": {"name": "lcia", "assured": True, "how": how},
        "action": action,
        "subject": _ME,
        "details": {},
        "previous": last[1] if previous is None else previous,
    }
    return canonical(value)


def _last(connection: Connection) -> tuple[int, str]:
    row = connection.execute(select(log.c.position, log.c.hash).order_by(log.c.position.desc()).limit(1)).first()
    return (-1, "") if row is None else (row.position, row.hash)


def _enter(connection: Connection, body: bytes, gap: int = 0) -> Executable:
    """The statement that adds an entry."""
    if connection.dialect.name == "postgresql":
        return text(f"SELECT {ENTER}(ARRAY[:body])").bindparams(body=body)
    beside = {"hash": "0" * 64, "root": "0" * 64, "peaks": "", "action": "log.tried", "subject": _ME}
    return insert(log).values(position=_last(connection)[0] + 1 + gap, body=body, **beside)


def _try(connection: Connection, words: str, statement: Executable, by: Accounts, account: str | None) -> Attempt:
    """Try one action and undo it. Only rights, row security or the log's guard refuse it; a missing row does not."""
    savepoint = connection.begin_nested()
    answer = ""
    try:
        connection.execute(statement)
    except DBAPIError as error:
        message = str(error.orig).partition("\n")[0]
        from_guard = message.startswith(("the log takes only", "the log is insert-only", "null value in column"))
        answer = message if getattr(error.orig, "sqlstate", None) == NO_RIGHT or from_guard else ""
    finally:
        savepoint.rollback()
    return Attempt(words, not answer, account in by, answer)


def _sentence(attempt: Attempt) -> str:
    return f"can {attempt.action}" if attempt.can else f"can't {attempt.action} ({attempt.answer})"


_ME = "lcia-doctor"
_THEN = datetime(2000, 1, 1, tzinfo=UTC)
_NOBODY: Accounts = frozenset()
_ANYBODY: Accounts = frozenset({*ACCOUNTS, None})
_WORKER: Accounts = frozenset({"worker"})
_SERVICE: Accounts = frozenset({"service"})
_PROMOTER: Accounts = frozenset({"promoter"})

Trial: TypeAlias = tuple[str, Executable, Accounts]
"""Words that follow "this account can", the statement to try, and the accounts that may do it."""
_OF_ONE = {
    "champion.promoted": "enter a promotion in the log",
    "candidate.approved": "enter an approval in the log",
    "candidate.registered": "enter a candidate in the log",
    "retention.swept": "enter a sweep in the log",
    "key.rotated": "enter a key in the log",
}
"""Actions that only one account may enter -> words."""
_LOG_TRIALS: tuple[Trial, ...] = (
    ("change an entry of the log", update(log).values(hash=log.c.hash), _NOBODY),
    ("delete an entry of the log", delete(log), _NOBODY),
)
_CANDIDATE = {
    **dict.fromkeys(("digest", "assistant", "task", "task_name", "evidence", "submitted_by", "launched_by"), _ME),
    "number": 1,
    "state": "pending",
    "reason": "",
    "verdict": "",
    "attempt": 1,
    "marks": [],
    "created_at": _THEN,
    "changed_at": _THEN,
}
_YES = {
    "id": -1,
    "candidate": _ME,
    "evidence": "",
    "verdict": "approve",
    "person": _ME,
    "assured": True,
    "reason": "",
    "at": _THEN,
    "expires_at": _THEN,
}
_SERVE = {"id": -1, "assistant": _ME, "kind": "promote", "payload": {}, "at": _THEN, "attempts": 0}
_POLICY = {"id": -1, "assistant": _ME, "content": {}, "proposed_by": _ME, "proposed_at": _THEN, "reason": ""}
_LEASE = {"name": f"lineage:{_ME}", "owner": None, "epoch": 1, "heartbeat": _THEN, "ttl": 1.0}
_KEY = {"number": -1, "id": _ME, "record": {}, "entry": 0, "at": _THEN}
_RESULT = {"key": _ME, "step": "", "output": "", "lease_epoch": 0, "created_at": _THEN}
_REPORT = {
    **dict.fromkeys(("assistant", "replica", "engine", "problem", "reported_by"), _ME),
    **dict.fromkeys(("traffic", "latency", "trial"), None),
    **dict.fromkeys(("started_at", "reported_at"), _THEN),
    "ready": False,
}
_ALONE = {**_POLICY, "accepted_by": "another", "ended_at": _THEN}
_TRY_OUT = {
    **dict.fromkeys(("assistant", "candidate", "evidence", "champion", "asked_by", "reason"), _ME),
    "id": -1,
    "epoch": 1,
    "kind": "canary",
    "share": 0.1,
    "rules": {},
    "tests": {},
    "asked_at": _THEN,
}
_PROPOSAL = {
    **dict.fromkeys(("assistant", "task", "label", "text", "made_by"), _ME),
    "source": "model",
    "times": 1,
    "state": "open",
    "at": _THEN,
}
_TRIALS: tuple[Trial, ...] = (
    *_LOG_TRIALS,
    ("empty the log", text("TRUNCATE log"), _NOBODY),
    ("switch the triggers of the log off", text("ALTER TABLE log DISABLE TRIGGER USER"), _NOBODY),
    ("create tables", text("CREATE TABLE lcia_doctor (a INTEGER)"), _NOBODY),
    ("create temporary tables", text("CREATE TEMPORARY TABLE lcia_doctor (a INTEGER)"), _NOBODY),
    ("claim a lineage", insert(leases).values(**_LEASE), frozenset({"worker", "keeper"})),
    ("register a candidate", insert(candidates).values(**_CANDIDATE), _WORKER),
    ("record a result", insert(results).values(**_RESULT), _WORKER),
    ("forget a result", delete(results).where(false()), frozenset({"keeper"})),
    ("approve", insert(approvals).values(**_YES), _SERVICE),
    ("prolong an approval", update(approvals).values(expires_at=_THEN), _NOBODY),
    ("delete an approval", delete(approvals).where(false()), _NOBODY),
    ("move the champion", update(champion).values(epoch=champion.c.epoch + 1), _PROMOTER),
    ("rewrite what was promoted", update(promotions).values(version=promotions.c.version), _NOBODY),
    ("have MLflow serve a version", insert(outbox).values(**_SERVE), _PROMOTER),
    ("name a key that signs the log", insert(signing_keys).values(**_KEY), _PROMOTER),
    ("read what tokens are checked with", select(tokens.c.secret).limit(0), _SERVICE),
    ("grant roles to people", insert(grants).values(person=_ME, role="admin", site="*"), _SERVICE),
    ("report as a gateway", insert(replicas).values(**_REPORT), _SERVICE),
    ("change policy", insert(policies).values(**_POLICY), _SERVICE),
    ("propose a wording", insert(wording_proposals).values(**_PROPOSAL), _SERVICE),
    ("forget proposed wordings", delete(wording_proposals).where(false()), frozenset({"service", "keeper"})),
    ("ask for a trial", insert(trials).values(**_TRY_OUT, state="waiting"), _SERVICE),
    ("begin a canary that nobody approved", insert(trials).values(**_TRY_OUT, state="under_way"), _NOBODY),
    ("put a policy in force that nobody proposed", insert(policies).values(**_ALONE), _NOBODY),
)
"""All other trials."""
