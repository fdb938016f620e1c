"""Rows of trials: their states, and the records that approvals are bound to.

A trial asks the traffic of gateways about a candidate: a shadow answers copies of requests and nobody sees it, a canary
answers some callers. It ends once, and its record then belongs to the candidate's evidence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from components.errors import LciaError
from components.storage.objects import Json, canonical, digest_of
from components.storage.tables import trials

WAITING, UNDER_WAY, ENDED = "waiting", "under_way", "ended"
"""States of a trial, in order; a shadow begins under way."""
OPEN = (WAITING, UNDER_WAY)
SHADOW, CANARY = "shadow", "canary"
RULES: Mapping[str, tuple[str, ...]] = {
    SHADOW: ("errors", "slow", "none_routed"),
    CANARY: ("errors", "slow", "none_routed", "complaints"),
}
"""Kind of trial -> its rules; nobody sees a shadow's answers, so nobody complains about them."""


class TrialUnknown(LciaError):
    """No trial has this number."""


@dataclass(frozen=True)
class Trial:
    """One trial of a candidate."""

    id: int
    assistant: str
    candidate: str
    """Digest of the version that is tried."""
    evidence: str
    """Digest of the candidate's evidence; a candidate that is made again has other evidence, which ends the trial."""
    champion: str
    """Digest of the version that it is compared with."""
    epoch: int
    """Of that champion; another decision ends the trial."""
    kind: str
    """shadow or canary."""
    share: float
    """Of requests (shadow) or of callers (canary), above 0."""
    state: str
    rules: dict[str, Any]
    """Settings of the rules (`TrialSettings`) as they were when it was asked for."""
    tests: dict[str, Any]
    """Rule -> state of its sequential test."""
    asked_by: str
    asked_at: datetime
    reason: str
    approved_by: str | None
    """Approver of a canary."""
    approval: str | None
    """Reason of the approval."""
    started_at: datetime | None
    entry: int | None
    """Index of the log entry that started it."""
    ended_at: datetime | None
    ended_by: str | None
    cause: str | None
    """Rule that ended it, or person, time, candidate, champion."""
    why: str | None
    record: str | None
    """Digest of its record; None before its end, and if it never was under way."""
    answers: str | None
    """Digest of the object with changed answers, if any were sent."""
    answers_until: datetime | None
    """Time from which retention erases them."""
    statement: str | None
    signed_by: str | None
    """Id of the key that signed the statement."""

    @property
    def stopped_by_rule(self) -> bool:
        """True if one of its rules ended it."""
        return self.cause in RULES[self.kind]

    def to_json(self) -> dict[str, Json]:
        """For `--json`; without the state of the tests and the object of the answers."""
        hidden = {"tests", "answers", "statement", "signed_by"}
        values = {name: value for name, value in vars(self).items() if name not in hidden}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def get(connection: Connection, assistant: str, number: int) -> Trial:
    """A trial by its number.

    Raises:
        TrialUnknown: this assistant has none of that number.
    """
    query = select(trials).where(trials.c.assistant == assistant, trials.c.id == number)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise TrialUnknown(f"no trial of {assistant} has the number {number}; `lcia trial` lists them")
    return Trial(**row)


def every(
    connection: Connection, assistant: str, candidate: str | None = None, states: Sequence[str] = ()
) -> list[Trial]:
    """Trials of an assistant, of one candidate and in some states if given, oldest first."""
    query = select(trials).where(trials.c.assistant == assistant).order_by(trials.c.id)
    if candidate is not None:
        query = query.where(trials.c.candidate == candidate)
    if states:
        query = query.where(trials.c.state.in_(states))
    return [Trial(**row) for row in connection.execute(query).mappings()]


def records(connection: Connection, candidate: str) -> list[str]:
    """Digests of the records of a candidate's ended trials, oldest first: part of its evidence."""
    mine = (trials.c.candidate == candidate) & trials.c.record.is_not(None)
    return list(connection.execute(select(trials.c.record).where(mine).order_by(trials.c.id)).scalars())


def bound(connection: Connection, candidate: str) -> str | None:
    """Digest that approvals carry for a candidate's ended trials; None if there are none."""
    digests = records(connection, candidate)
    return digest_of(canonical(digests)) if digests else None
