"""The approvals that count: who may decide where, and whether there are enough of them at every site.

A yes counts while it is fresh, unrevoked, about this evidence and given by somebody who neither submitted nor launched
the task. Where people are known, on a server, it counts at the sites where its giver may still decide, and nowhere once
they may not. A decision's sites are all those whose tasks change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, select

from components.audit.log import Actor
from components.errors import LciaError, WaitingForPeople
from components.identity import people
from components.identity.access import EVERYWHERE, allowed
from components.identity.people import Person
from components.names import folded, same_person
from components.promotion import candidates
from components.promotion.candidates import Candidate
from components.settings import ApprovalSettings, SiteApproval
from components.storage.database import is_ahead, now
from components.storage.tables import approvals, champion

ASSERTED = "asserted"
"""How a name is known that somebody only claimed; see `Actor.how`."""


class QuorumMissing(WaitingForPeople):
    """Not enough valid approvals yet."""


class NotEntitled(LciaError):
    """Somebody who may not decide: unknown here, shut out, or without the role at any site whose tasks change."""


@dataclass(frozen=True)
class Approval:
    """One person's yes or no."""

    id: int
    candidate: str
    evidence: str
    verdict: str
    """approve or reject."""
    person: str
    assured: bool
    """Whether the person's identity is known, not only asserted."""
    reason: str
    at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    override: bool = False
    """A yes in spite of the gate's verdict."""
    how: str | None = None
    """Where the person's name comes from, as `Actor.how`; None where an earlier release did not say."""
    epoch: int | None = None
    """The champion's when it was given; None as above."""


@dataclass(frozen=True)
class Weighed:
    """A yes, and why it does not count."""

    approval: Approval
    why_not: str
    """Empty: it counts."""
    sites: frozenset[str] | None
    """Those of the decision's sites where the person may decide; None where nobody has roles: on a machine of one's
    own."""


@dataclass(frozen=True)
class Quorum:
    """Approvals that count at one site, and those that are missing there."""

    site: str
    people: tuple[str, ...]
    """Givers of the approvals that count, in order."""
    needed: int
    """Approvals that policy asks for."""
    roles_missing: tuple[str, ...]
    """Roles that policy wants among them and that none of the people has."""


def weighed(
    connection: Connection, candidate: Candidate, policy: ApprovalSettings, *, override: bool = False
) -> list[Weighed]:
    """Every yes to a candidate in order, each with the reason why it does not count now, if there is one.

    With `override` those that were given in spite of the gate, which count for nothing else.
    """
    moment = now(connection)
    epoch = epoch_of(connection, candidate.assistant) if candidates.rolled_away(connection, candidate) else None
    yes = [one for one in given(connection, candidate) if one.verdict == "approve"]
    of_server = _entitlements(connection, candidate, yes) if yes else None
    found: list[Weighed] = []
    for one in yes:
        why = _void(one, candidate, policy, moment, epoch, override=override)
        sites = None
        if not why and of_server is not None:
            sites, why = of_server[one.id]
        counted = (other.approval.person for other in found if not other.why_not)
        if not why and any(same_person(one.person, name) for name in counted):
            why = "given twice"
        found.append(Weighed(one, why, sites))
    return found


def valid(
    connection: Connection, candidate: Candidate, policy: ApprovalSettings, *, override: bool = False
) -> list[Approval]:
    """Approvals that count now, one per person; see `weighed`."""
    return [one.approval for one in weighed(connection, candidate, policy, override=override) if not one.why_not]


def _void(
    one: Approval,
    candidate: Candidate,
    policy: ApprovalSettings,
    moment: datetime,
    epoch: int | None,
    *,
    override: bool,
) -> str:
    """Why a yes does not count, whoever gave it; `epoch` is the champion's, for a version that was rolled away from."""
    reasons = {
        "taken back": one.revoked_at is not None,
        "given to other evidence": one.evidence != candidate.evidence,
        "expired": moment >= one.expires_at,
        "given at a time that is still to come": is_ahead(one.at, moment),
        "given before the champion was moved": epoch is not None and one.epoch != epoch,
        "given in spite of the gate": one.override and not override,
        "not given in spite of the gate": override and not one.override,
        "brought the task in": barred(candidate, one.person, policy),
    }
    return next((why for why, so in reasons.items() if so), "")


def _entitlements(
    connection: Connection, candidate: Candidate, yes: Sequence[Approval]
) -> dict[int, tuple[frozenset[str], str]] | None:
    """By approval: at which of the sites the person may decide, and why at none; None where nobody has roles."""
    if not people.readable(connection) or not people.anybody(connection):
        return None
    sites = candidates.sites(connection, candidate)
    known = people.among(connection, [one.person for one in yes])
    return {one.id: _entitlement(known.get(folded(one.person)), one.how, sites) for one in yes}


def _entitlement(person: Person | None, how: str | None, sites: frozenset[str]) -> tuple[frozenset[str], str]:
    if how == ASSERTED:
        return frozenset(), "the name was only asserted"
    if person is None:
        return frozenset(), "nobody of this name is known"
    if person.disabled_at is not None:
        return frozenset(), "shut out"
    may = frozenset(site for site in sites if allowed(person.grants, "decide", site))
    return may, "" if may else f"may not decide at {', '.join(sorted(sites))}"


def need_entitled(connection: Connection, candidate: Candidate, actor: Actor) -> None:
    """Refuse a yes that would not count, where people are known.

    Raises:
        NotEntitled: says why it would not.
    """
    if people.anybody(connection):
        known = people.among(connection, [actor.name])
        _, why = _entitlement(known.get(folded(actor.name)), actor.how, candidates.sites(connection, candidate))
        if why:
            raise NotEntitled(
                f"the yes of {actor.name} would not count: {why}. People here sign in and have roles: `lcia people` "
                "lists them, an admin grants the role approver"
            )


def need_quorum(
    connection: Connection, candidate: Candidate, policy: ApprovalSettings, *, override: bool = False
) -> list[Approval]:
    """The approvals a promotion rests on; with `override` those in spite of the gate.

    Each site whose tasks change has its own quorum and roles, filled by people who may decide there.

    Raises:
        QuorumMissing: there are fewer than policy asks for at a site, or a required role is not among them.
    """
    found = weighed(connection, candidate, policy, override=override)
    void = "".join(
        f"; that of {one.approval.person} does not count: {one.why_not}"
        for one in found
        if one.why_not and one.approval.revoked_at is None and one.approval.override == override
    )
    sites = quorums(connection, candidate, policy, found, override=override)
    for site in sites:
        _need_quorum_at(candidate, site, void, override=override, several=len(sites) > 1)
    return [one.approval for one in found if not one.why_not]


def quorums(
    connection: Connection,
    candidate: Candidate,
    policy: ApprovalSettings,
    approvals: Sequence[Weighed],
    *,
    override: bool = False,
) -> list[Quorum]:
    """The quorum of each site whose tasks change, by name; `approvals` as `weighed` gives them for `override`."""
    return [
        _quorum(connection, candidate, policy, approvals, site, override=override)
        for site in sorted(candidates.sites(connection, candidate))
    ]


def _quorum(
    connection: Connection,
    candidate: Candidate,
    policy: ApprovalSettings,
    approvals: Sequence[Weighed],
    site: str,
    *,
    override: bool,
) -> Quorum:
    people_here = tuple(
        one.approval.person for one in approvals if not one.why_not and (one.sites is None or site in one.sites)
    )
    own = policy.sites.get(site, SiteApproval())
    roles = policy.required_roles if own.required_roles is None else own.required_roles
    present = {role for person in people_here for role in people.roles(connection, person, site)} if roles else set()
    needed = quorum_at(candidate, policy, site, override=override)
    return Quorum(site, people_here, needed, tuple(role for role in roles if role not in present))


def _need_quorum_at(candidate: Candidate, quorum: Quorum, void: str, *, override: bool, several: bool) -> None:
    site, count = quorum.site, len(quorum.people)
    names = ", ".join(quorum.people) or "nobody"
    option = " --override" if override else ""
    at = f" at {site}" if several else ""
    if count < quorum.needed:
        raise QuorumMissing(
            f"version {candidate.number} has {count} of {quorum.needed} approvals that count{at} ({names}){void}; "
            f"`lcia approve {candidate.number}{option} --reason ...` by somebody else than {candidate.submitted_by} "
            f"and {candidate.launched_by} gives one"
        )
    if quorum.roles_missing:
        raise QuorumMissing(
            f"version {candidate.number} has {count} approvals ({names}), and policy wants the role "
            f"{quorum.roles_missing[0]} among them{f' at {site}' if site != EVERYWHERE else ''}; a person who has it "
            "must approve too"
        )


def quorum_at(candidate: Candidate, policy: ApprovalSettings, site: str, *, override: bool = False) -> int:
    """Approvals that policy asks for at a site, with those for a sender that nobody knows."""
    own = policy.sites.get(site, SiteApproval()).quorum
    quorum = policy.quorum if own is None else own
    further = policy.unknown_sender if candidates.SENDER_UNKNOWN in candidate.marks else 0
    return (max(quorum, policy.override_quorum) if override else quorum) + further


def barred(candidate: Candidate, person: str, policy: ApprovalSettings) -> bool:
    """Whether four eyes keep a person from a candidate: they submitted or launched its task."""
    return policy.four_eyes and _brought(candidate, person)


def _brought(candidate: Candidate, person: str) -> bool:
    return same_person(person, candidate.submitted_by) or same_person(person, candidate.launched_by)


def epoch_of(connection: Connection, assistant: str) -> int:
    """Of the champion; 0 before there is one."""
    query = select(champion.c.epoch).where(champion.c.name == assistant)
    return connection.execute(query).scalar_one_or_none() or 0


def given(connection: Connection, candidate: Candidate) -> list[Approval]:
    """Every yes and no to a candidate in order, those that count no more included."""
    query = select(approvals).where(approvals.c.candidate == candidate.digest).order_by(approvals.c.id)
    return [approval_of(row) for row in connection.execute(query).mappings()]


def approval_of(row: RowMapping) -> Approval:
    """Off a row of the table."""
    return Approval(**row)
