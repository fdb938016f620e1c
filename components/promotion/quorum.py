"""The approvals that count: who may decide where, and whether there are enough of them at every site.

An approval counts while it is fresh, unrevoked, about this evidence and given by somebody who neither submitted nor
launched the task. On a server, where people have roles, it counts only at sites where its giver may still decide. The
sites of a decision are all those whose tasks change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, select

from components.audit.log import Actor
from components.errors import LciaError, WaitingForPeople
from components.identity import people
from components.identity.access import EVERYWHERE, permits
from components.identity.people import Person
from components.names import fold, same_person
from components.promotion import candidates, trial_rows
from components.promotion.candidates import Candidate
from components.settings import ApprovalSettings, SiteApproval
from components.storage.database import is_ahead, now
from components.storage.tables import approvals, champion

ASSERTED = "asserted"
"""Value of `Actor.how` for a name that somebody only claimed."""


class QuorumMissing(WaitingForPeople):
    """Not enough valid approvals yet."""


class NotEntitled(LciaError):
    """The person may not decide: unknown here, shut out, or without the role at any site whose tasks change."""


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
    """True if the person's identity is known, not only asserted."""
    reason: str
    at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    override: bool = False
    """A yes in spite of the gate's verdict."""
    how: str | None = None
    """Source of the person's name, as `Actor.how`; None if an earlier release did not record it."""
    epoch: int | None = None
    """The champion's epoch when it was given; None as above."""
    trials: str | None = None
    """Digest of the list of records of the candidate's ended trials when it was given; None: there was none."""


@dataclass(frozen=True)
class Weighed:
    """An approval, and the reason why it does not count, if there is one."""

    approval: Approval
    why_not: str
    """Empty: it counts."""
    sites: frozenset[str] | None
    """Those of the decision's sites where the person may decide; None if nobody has roles, as on one's own machine."""


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


def weigh(
    connection: Connection,
    candidate: Candidate,
    policy: ApprovalSettings,
    *,
    override: bool = False,
    sites: frozenset[str] | None = None,
) -> list[Weighed]:
    """Every approval of a candidate in order, each with the reason why it does not count now, if there is one.

    With `override` those given in spite of the gate, which count for nothing else. `sites`: those of the decision
    (`candidates.sites`), from a caller that has them already.
    """
    moment = now(connection)
    epoch = epoch_of(connection, candidate.assistant) if candidates.rolled_away(connection, candidate) else None
    yes = [one for one in answers(connection, candidate) if one.verdict == "approve"]
    trials = trial_rows.bound(connection, candidate.digest)
    of_server = _entitlements(connection, candidate, yes, sites) if yes else None
    results: list[Weighed] = []
    for one in yes:
        why = _void(one, candidate, policy, moment, epoch, override=override)
        why = why or ("given before a trial of it ended" if one.trials != trials else "")
        entitled_at = None
        if not why and of_server is not None:
            entitled_at, why = of_server[one.id]
        names = (other.approval.person for other in results if not other.why_not)
        if not why and any(same_person(one.person, name) for name in names):
            why = "given twice"
        results.append(Weighed(one, why, entitled_at))
    return results


def valid(
    connection: Connection, candidate: Candidate, policy: ApprovalSettings, *, override: bool = False
) -> list[Approval]:
    """Approvals that count now, one per person; see `weigh`."""
    return [one.approval for one in weigh(connection, candidate, policy, override=override) if not one.why_not]


def _void(
    one: Approval,
    candidate: Candidate,
    policy: ApprovalSettings,
    moment: datetime,
    epoch: int | None,
    *,
    override: bool,
) -> str:
    """Reason why an approval does not count, apart from roles. `epoch`: see `Approval`; None if it does not matter."""
    reasons = {
        "taken back": one.revoked_at is not None,
        "given to other evidence": one.evidence != candidate.evidence,
        "expired": moment >= one.expires_at,
        "given at a time that is still to come": is_ahead(one.at, moment),
        "given before the champion was moved": epoch is not None and one.epoch != epoch,
        "given in spite of the gate": one.override and not override,
        "not given in spite of the gate": override and not one.override,
        "brought the task in": bars(candidate, one.person, policy),
    }
    return next((why for why, so in reasons.items() if so), "")


def _entitlements(
    connection: Connection, candidate: Candidate, yes: Sequence[Approval], sites: frozenset[str] | None
) -> dict[int, tuple[frozenset[str], str]] | None:
    """Approval -> sites where the person may decide, and the reason if there are none; None if nobody has roles."""
    if not people.readable(connection) or not people.anybody(connection):
        return None
    sites = sites or candidates.sites(connection, candidate)
    persons = people.among(connection, [one.person for one in yes])
    return {one.id: _entitlement(persons.get(fold(one.person)), one.how, sites) for one in yes}


def _entitlement(person: Person | None, how: str | None, sites: frozenset[str]) -> tuple[frozenset[str], str]:
    if how == ASSERTED:
        return frozenset(), "the name was only asserted"
    if person is None:
        return frozenset(), "nobody of this name is known"
    if person.disabled_at is not None:
        return frozenset(), "shut out"
    may = frozenset(site for site in sites if permits(person.grants, "decide", site))
    return may, "" if may else f"may not decide at {', '.join(sorted(sites))}"


def need_entitled(connection: Connection, candidate: Candidate, actor: Actor, *, everywhere: bool = False) -> None:
    """Refuse an approval that would not count, if people have roles here.

    The right to decide at one of the sites whose tasks change is enough, unless `everywhere` asks for all.

    Raises:
        NotEntitled: with the reason why it would not count.
    """
    if people.anybody(connection):
        persons, sites = people.among(connection, [actor.name]), candidates.sites(connection, candidate)
        may, why = _entitlement(persons.get(fold(actor.name)), actor.how, sites)
        if not why and everywhere and may != sites:
            why = f"may not decide at {', '.join(sorted(sites - may))}"
        if why:
            raise NotEntitled(
                f"the yes of {actor.name} would not count: {why}. People here sign in and have roles: `lcia people` "
                "lists them, an admin grants the role approver"
            )


def need_quorum(
    connection: Connection, candidate: Candidate, policy: ApprovalSettings, *, override: bool = False
) -> list[Approval]:
    """The approvals that a promotion rests on; with `override` those given in spite of the gate.

    Each site whose tasks change has its own quorum and roles, filled by people who may decide there.

    Raises:
        QuorumMissing: a site has fewer approvals than policy requires, or a required role is missing.
    """
    sites = candidates.sites(connection, candidate)
    results = weigh(connection, candidate, policy, override=override, sites=sites)
    void = "".join(
        f"; that of {one.approval.person} does not count: {one.why_not}"
        for one in results
        if one.why_not and one.approval.revoked_at is None and one.approval.override == override
    )
    for quorum in quorums(connection, candidate, policy, results, override=override, sites=sites):
        _need_quorum_at(candidate, quorum, void, override=override, several=len(sites) > 1)
    return [one.approval for one in results if not one.why_not]


def quorums(
    connection: Connection,
    candidate: Candidate,
    policy: ApprovalSettings,
    approvals: Sequence[Weighed],
    *,
    override: bool = False,
    sites: frozenset[str] | None = None,
) -> list[Quorum]:
    """The quorum of each site whose tasks change, by name; `approvals` as `weigh` gives them for `override`.

    `sites`: those of the decision (`candidates.sites`), from a caller that has them already.
    """
    return [
        _quorum(connection, candidate, policy, approvals, site, override=override)
        for site in sorted(sites or candidates.sites(connection, candidate))
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
    quota = quorum_at(candidate, policy, site, override=override)
    return Quorum(site, people_here, quota, tuple(role for role in roles if role not in present))


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
    """Number of approvals that policy requires at a site, including those for an unknown sender."""
    own = policy.sites.get(site, SiteApproval()).quorum
    quorum = policy.quorum if own is None else own
    further = policy.unknown_sender if candidates.SENDER_UNKNOWN in candidate.marks else 0
    return (max(quorum, policy.override_quorum) if override else quorum) + further


def bars(candidate: Candidate, person: str, policy: ApprovalSettings) -> bool:
    """True if the four-eyes rule bars a person from a candidate: they submitted or launched its task."""
    return policy.four_eyes and _is_sender(candidate, person)


def _is_sender(candidate: Candidate, person: str) -> bool:
    return same_person(person, candidate.submitted_by) or same_person(person, candidate.launched_by)


def epoch_of(connection: Connection, assistant: str) -> int:
    """Epoch of the champion; 0 before there is one."""
    query = select(champion.c.epoch).where(champion.c.name == assistant)
    return connection.execute(query).scalar_one_or_none() or 0


def answers(connection: Connection, candidate: Candidate) -> list[Approval]:
    """Every approval and rejection of a candidate in order, including those that no longer count."""
    query = select(approvals).where(approvals.c.candidate == candidate.digest).order_by(approvals.c.id)
    return [approval_of(row) for row in connection.execute(query).mappings()]


def approval_of(row: RowMapping) -> Approval:
    """The approval that a row of the table holds."""
    return Approval(**row)
