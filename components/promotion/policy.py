"""The policy of a server: in the database, changed by one admin and accepted by another, every change in the log.

An assistant without one, such as an embedded one, follows the `policy` section of its settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, RowMapping, insert, select, update

from components.audit import log
from components.audit.decisions import ADVICE, disownments
from components.audit.log import Actor, Entry, append
from components.errors import LciaError
from components.identity import people
from components.names import same_person
from components.promotion.reasons import need_reason
from components.settings import PolicySettings, differences
from components.storage.database import now
from components.storage.objects import Json
from components.storage.tables import policies


class PolicyRefused(LciaError):
    """An invalid policy, or a change that this person can't make."""


@dataclass(frozen=True)
class Proposal:
    """A proposed policy: open, accepted or refused."""

    id: int
    assistant: str
    content: dict[str, Json]
    """The whole section `policy`."""
    proposed_by: str
    proposed_at: datetime
    reason: str
    accepted_by: str | None
    ended_at: datetime | None
    """Time of its acceptance, or of its refusal if nobody accepted it; None while it is open."""
    entry: int | None = None
    """Index of the log entry that puts it in force, for the policy in force."""

    @property
    def settings(self) -> PolicySettings:
        """The policy as settings."""
        return PolicySettings.model_validate(self.content)

    @property
    def state(self) -> str:
        """open, accepted or refused."""
        return "open" if self.ended_at is None else "accepted" if self.accepted_by else "refused"


def in_force(connection: Connection, assistant: str) -> Proposal | None:
    """The policy accepted last, as the log has it; None if the settings' own holds.

    "Last" goes by the log, not by a clock. A row that no entry explains has no effect, and neither has a change to a
    row.
    """
    disowned_entries, first = disownments(connection), None
    for entry in log.newest(connection, ["policy.accepted"]):
        proposal = None if disowned_entries.get(entry.index) == entry.hash else _policy_of(connection, entry, assistant)
        if proposal is None:
            continue
        if not same_person(proposal.proposed_by, str(proposal.accepted_by)):
            return proposal
        first = proposal  # proposed and accepted by one name: valid only as the first, with which a server begins
    return first


def _policy_of(connection: Connection, entry: Entry, assistant: str) -> Proposal | None:
    """The policy that an entry puts in force; entries of earlier releases name the row alone, which then counts."""
    details, number = entry.details, entry.subject.removeprefix("policy ")
    if details.get("assistant", assistant) != assistant or "policy" not in details:
        return None
    if not number.isdecimal() or len(number) > 9:  # of no row: longer ones overflow PostgreSQL's integer
        return None
    query = select(policies).where(policies.c.assistant == assistant, policies.c.id == int(number))
    row = connection.execute(query).mappings().one_or_none()
    if row is None or ("assistant" not in details and row["accepted_by"] != entry.actor.name):
        return None
    facts = {"content": details["policy"], "proposed_by": details["proposed_by"], "accepted_by": entry.actor.name}
    ended_at = row["ended_at"] or datetime.fromisoformat(entry.at)
    return replace(Proposal(**row), **facts, ended_at=ended_at, entry=entry.index)


def standing(connection: Connection, assistant: str, own: PolicySettings) -> PolicySettings:
    """The policy at this moment: the server's, or `own`, that of the settings, if the server has none.

    Decisions ask for it within their own transaction, so that none rests on an outdated policy.
    """
    proposal = in_force(connection, assistant)
    return own if proposal is None else proposal.settings


def record(policy: PolicySettings) -> dict[str, Json]:
    """The object whose digest names a policy in the log."""
    return {"kind": "policy", "schema": 1, "policy": policy.model_dump(mode="json")}


def proposals(connection: Connection, assistant: str) -> list[Proposal]:
    """Every proposal, newest first."""
    query = select(policies).where(policies.c.assistant == assistant).order_by(policies.c.id.desc())
    return [Proposal(**row) for row in connection.execute(query).mappings()]


def install(connection: Connection, assistant: str, policy: PolicySettings, *, actor: Actor) -> Proposal:
    """Make the settings' policy the server's own if it has none yet; otherwise change nothing."""
    standing = in_force(connection, assistant)
    if standing is not None:
        return standing
    proposal = _insert(connection, assistant, policy, actor, "the policy this server began with")
    return _end(connection, proposal, actor, in_favour=True, reason=proposal.reason, before=None)


def propose(
    connection: Connection, assistant: str, changes: Mapping[str, Any], *, actor: Actor, reason: str
) -> Proposal:
    """Ask for a change of the policy in force; `changes` are the keys to change, nested as in the settings file.

    Raises:
        PolicyRefused: unknown keys, values out of range, nothing changed, or there is no policy to change.
        ReasonMissing.
    """
    need_reason(reason)
    before = _standing(connection, assistant)
    try:
        settings = PolicySettings.model_validate(_merge(before.content, changes))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["policy", *map(str, first["loc"])])
        raise PolicyRefused(f"{where}: {first['msg']} (seen: {first['input']!r}); `lcia settings policy`") from error
    if settings == before.settings:
        raise PolicyRefused("the proposal changes nothing: it is the policy in force; `lcia policy` shows it")
    proposal = _insert(connection, assistant, settings, actor, reason)
    details = {"reason": reason, "proposed_by": actor.name, **_details(proposal, before)}
    append(connection, "policy.proposed", actor, f"policy {proposal.id}", details)
    return proposal


def accept(connection: Connection, assistant: str, identity: int, *, actor: Actor, reason: str) -> Proposal:
    """Put a proposal into force.

    Raises:
        PolicyRefused: it is unknown, ended, the actor's own, or was made before the present policy came into force.
        ReasonMissing.
    """
    need_reason(reason)
    proposal, before = _open(connection, assistant, identity), _standing(connection, assistant)
    if same_person(proposal.proposed_by, actor.name):
        raise PolicyRefused(f"{actor.name} proposed policy {identity} and can't accept it; another admin has to")
    _need_admin_still(connection, proposal)
    entry = _need_entry(connection, proposal)
    if entry is None or entry.index < (before.entry or 0):
        raise PolicyRefused(
            f"policy {identity} was proposed before policy {before.id} came into force, so accepting it would undo "
            "that unseen; propose it again"
        )
    return _end(connection, proposal, actor, in_favour=True, reason=reason, before=before)


def refuse(connection: Connection, assistant: str, identity: int, *, actor: Actor, reason: str) -> Proposal:
    """End a proposal; its author may do so, too.

    Raises:
        PolicyRefused: it is unknown or ended. ReasonMissing.
    """
    need_reason(reason)
    proposal = _open(connection, assistant, identity)
    return _end(connection, proposal, actor, in_favour=False, reason=reason, before=None)


def _need_entry(connection: Connection, proposal: Proposal) -> Entry | None:
    """The log entry of a proposal, which it must not differ from: else somebody changed it in the database."""
    entry = next(log.newest(connection, ["policy.proposed"], f"policy {proposal.id}"), None)
    details = {} if entry is None else {"proposed_by": entry.actor.name, "content": entry.details["policy"]}
    if any(details[name] != getattr(proposal, name) for name in details):
        raise PolicyRefused(f"policy {proposal.id} is not what was proposed: {ADVICE}")
    return entry


def _need_admin_still(connection: Connection, proposal: Proposal) -> None:
    """Refuse a proposal of somebody who is no admin any more: a change takes two admins."""
    if people.anybody(connection) and "admin" not in people.roles(connection, proposal.proposed_by, None):
        raise PolicyRefused(
            f"{proposal.proposed_by}, who proposed policy {proposal.id}, is no admin (any more); propose it again"
        )


def _standing(connection: Connection, assistant: str) -> Proposal:
    proposal = in_force(connection, assistant)
    if proposal is None:
        raise PolicyRefused(
            "there is no server policy to change: the section `policy` of zenml.yaml holds; `lcia serve` installs one"
        )
    return proposal


def _open(connection: Connection, assistant: str, identity: int) -> Proposal:
    query = select(policies).where(policies.c.assistant == assistant, policies.c.id == identity)
    row: RowMapping | None = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise PolicyRefused(f"there is no policy {identity}; `lcia policy` lists them")
    proposal = Proposal(**row)
    if proposal.state != "open":
        raise PolicyRefused(f"policy {identity} is {proposal.state} already; propose a new one")
    return proposal


def _insert(connection: Connection, assistant: str, settings: PolicySettings, actor: Actor, reason: str) -> Proposal:
    values = {
        "assistant": assistant,
        "content": settings.model_dump(mode="json"),
        "proposed_by": actor.name,
        "proposed_at": now(connection),
        "reason": reason,
    }
    identity = connection.execute(insert(policies).values(**values).returning(policies.c.id)).scalar_one()
    return _open(connection, assistant, identity)


def _end(
    connection: Connection, proposal: Proposal, actor: Actor, *, in_favour: bool, reason: str, before: Proposal | None
) -> Proposal:
    mine = (policies.c.id == proposal.id) & policies.c.ended_at.is_(None)
    values = {"accepted_by": actor.name if in_favour else None, "ended_at": now(connection)}
    connection.execute(update(policies).where(mine).values(**values))
    details = {"reason": reason, "proposed_by": proposal.proposed_by, **_details(proposal, before)}
    append(connection, f"policy.{'accepted' if in_favour else 'refused'}", actor, f"policy {proposal.id}", details)
    row = connection.execute(select(policies).where(policies.c.id == proposal.id)).mappings().one()
    return Proposal(**row)


def _details(proposal: Proposal, before: Proposal | None) -> dict[str, Json]:
    """Details of a log entry: the whole policy, and the keys that change."""
    previous = before.settings.model_dump(mode="json") if before else {}  # an earlier release knew fewer keys
    keys = sorted(differences(proposal.content, previous)) if before else []
    return {"assistant": proposal.assistant, "policy": proposal.content, "changed": keys}


def _merge(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(content)
    for key, value in changes.items():
        below = result.get(key)
        result[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result
