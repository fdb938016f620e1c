"""Approvals: people's recorded yes and no, bound to the digest of the evidence they saw.

Every decision reads the whole evidence again; one changed or missing byte voids it. A yes counts only while
it is fresh, unrevoked and given by someone who neither submitted nor launched the task; silence is a no.
"""

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, RowMapping, insert, select, update

from components.audit.log import Actor, append
from components.errors import GateRefused, LciaError, WaitingForPeople
from components.identity import people
from components.promotion import candidates
from components.promotion.candidates import Candidate, NotPending
from components.promotion.whole import read_below
from components.settings import ApprovalSettings, GateSettings, PolicySettings, SiteApproval
from components.storage.database import Database, is_ahead, now
from components.storage.objects import FolderRefused, Json, ObjectCorrupt, ObjectMissing, ObjectStore
from components.storage.tables import approvals
from components.tasks import queue
from components.visible import is_blank


class EvidenceVoid(LciaError):
    """Evidence that is incomplete, damaged or about something else; no approval can rest on it."""


class FourEyesRefused(LciaError):
    """The person who brought or launched a task can't be the one who lets it through."""


class ReasonMissing(LciaError):
    """A decision without a reason."""


class ApprovalUnknown(LciaError):
    """No such approval, or one that counts no more."""


class QuorumMissing(WaitingForPeople):
    """Not enough valid approvals yet."""


class OverrideRefused(LciaError):
    """There is nothing to override."""


class NotLowRisk(WaitingForPeople):
    """Policy lets people decide about this one."""


@dataclass(frozen=True)
class Evidence:
    """What was read, and found whole."""

    digest: str
    verdict: str
    """The gate's: pass, fail or inconclusive."""
    objects: int
    """How many objects were read and checked."""


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


def check_evidence(store: ObjectStore, candidate: Candidate) -> Evidence:
    """Read a candidate's evidence and everything it leads to: adapters, predictions, rows, settings, reports.

    Raises:
        EvidenceVoid: something is missing or altered, or speaks of another candidate, task, parent or verdict.
    """
    try:
        value = store.get_json(candidate.evidence)
        if not isinstance(value, dict) or value.get("kind") != "evidence" or value.get("schema") != 1:
            raise EvidenceVoid(f"object {candidate.evidence} is not evidence of schema 1; register the candidate anew")
        told = {name: value.get(name) for name in ("candidate", "task", "parent")}
        expected = {"candidate": candidate.digest, "task": candidate.task, "parent": candidate.parent}
        if told != expected:
            raise EvidenceVoid(f"the evidence of version {candidate.number} speaks of {told}, expected {expected}")
        check_version(store, candidate.digest)
        gate, evaluation = store.get_json(value["gate"]), store.get_json(value["evaluation"])
        named = [value["assessment"], value["tuning"], value["task"], *value["reports"].values()]
        if isinstance(evaluation, dict) and "predictions" in evaluation:
            named += [*evaluation["predictions"].values(), *evaluation["champion"].values()]
        objects = read_below(store, [candidate.evidence, *named])
    except (ObjectMissing, ObjectCorrupt) as error:
        raise EvidenceVoid(f"the evidence of version {candidate.number} is not whole: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise EvidenceVoid(f"the evidence of version {candidate.number} lacks a field: {error!r}") from error
    verdict = gate.get("verdict") if isinstance(gate, dict) else None
    if verdict != candidate.verdict:
        raise EvidenceVoid(
            f"the gate report of version {candidate.number} says {verdict!r}, its record {candidate.verdict!r}; "
            "one of them was altered: `lcia audit verify` checks the record"
        )
    return Evidence(candidate.evidence, candidate.verdict, objects)


def check_version(store: ObjectStore, digest: str) -> int:
    """Read a version's manifest and its adapters; returns the number of objects read.

    Raises:
        ObjectMissing, ObjectCorrupt: one of them is not there as it was made.
    """
    manifest = store.get_json(digest)
    if not isinstance(manifest, dict) or manifest.get("kind") != "pool":
        raise ObjectCorrupt(f"object {digest} was expected to be a pool manifest, it holds something else")
    try:
        adapters = [group["adapter"] for group in manifest["groups"]]
        plain = [group["curvature"] for group in manifest["groups"] if group["curvature"] is not None]
        for adapter in adapters:
            plain += store.folder_files(adapter).values()
    except (KeyError, TypeError, FolderRefused) as error:
        raise ObjectCorrupt(f"object {digest} is a manifest that can't be followed: {error!r}") from error
    for content in plain:
        store.get(content)
    return 1 + len(adapters) + len(plain)


def gate_stands_against(candidate: Candidate, policy: GateSettings) -> bool:
    """Whether only an override can promote the candidate."""
    return policy.enforce and candidate.verdict != "pass"


def check_gate(candidate: Candidate, policy: GateSettings, *, override: bool = False) -> list[str]:
    """Whether the gate lets people decide; returns the marks that the decision must bear.

    Raises:
        GateRefused: the verdict is not `pass`, the policy enforces it, and nobody overrides it.
        OverrideRefused: the gate does not stand against it.
    """
    against = gate_stands_against(candidate, policy)
    if override and not against:
        raise OverrideRefused(
            f"the gate says {candidate.verdict} for version {candidate.number} and does not stand against it; "
            "approve it without --override"
        )
    if override:
        return [f"gate {candidate.verdict} overridden"]
    if against:
        raise GateRefused(
            f"the gate says {candidate.verdict} for version {candidate.number}, expected pass; its report names the "
            "rows. Better data or settings and `lcia run` make a new candidate. `lcia approve "
            f"{candidate.number} --override` is a yes in spite of it: several people have to give one, and it is "
            "recorded as that"
        )
    return [] if candidate.verdict == "pass" else [f"gate {candidate.verdict}, not enforced"]


def check_low_risk(store: ObjectStore, candidate: Candidate, policy: ApprovalSettings) -> None:
    """Whether policy calls what the gate lets by low enough a risk to go without a person.

    Raises:
        NotLowRisk: it changes predictions of prior tasks where policy does not want that.
    """
    rows = store.get_json(store.get_json(candidate.evidence)["gate"]).get("rows", [])
    changed = sorted({row["task"] for row in rows if row["rule"] in ("step", "lifetime") and row["task"]})
    if policy.auto_if == "unchanged" and changed:
        raise NotLowRisk(
            f"version {candidate.number} is not promoted automatically: predictions of {', '.join(changed)} changed, "
            "and policy.approval.auto_if is unchanged; people decide about it"
        )


def approve(
    db: Database,
    store: ObjectStore,
    *,
    assistant: str,
    version: str | int,
    actor: Actor,
    reason: str,
    policy: PolicySettings,
    evidence: str | None = None,
    override: bool = False,
) -> Approval:
    """Record a yes to a pending candidate; a second one of the same person, while the first counts, is it.

    `evidence` is the digest the person looked at, if known: it must be the candidate's. `override` is a yes in spite
    of the gate, and counts for nothing else.

    Raises:
        NotPending, EvidenceVoid, GateRefused, OverrideRefused, FourEyesRefused, ReasonMissing, CandidateUnknown.
    """
    need_reason(reason)
    with db.read() as connection:
        seen = candidates.get(connection, assistant, version)
    found = check_evidence(store, seen)
    with db.begin() as connection:
        candidate = _pending(connection, assistant, seen.digest)
        if found.digest != candidate.evidence or evidence not in {None, candidate.evidence}:
            raise EvidenceVoid(
                f"version {candidate.number} rests on evidence {candidate.evidence}, the approval was meant for "
                f"{evidence or found.digest}; look at `lcia show {candidate.number}` again"
            )
        marks = check_gate(candidate, policy.gate, override=override)
        _need_other_eyes(candidate, actor.name, policy.approval)
        for given in valid(connection, candidate, policy.approval, override=override):
            if same_person(given.person, actor.name):
                return given
        hours = timedelta(hours=policy.approval.expires_hours)
        approval = _record(connection, candidate, "approve", actor, reason, hours, override=override)
        details: dict[str, Json] = {"evidence": candidate.evidence, "reason": reason, "marks": marks}
        details |= {"expires_at": approval.expires_at.isoformat(), "approval": approval.id}
        append(connection, "gate.overridden" if override else "candidate.approved", actor, candidate.digest, details)
        return approval


def reject(db: Database, *, assistant: str, version: str | int, actor: Actor, reason: str) -> Approval:
    """Record a no, which ends the candidate and its queue item. Anyone may say no, whole evidence or not.

    Raises:
        NotPending, ReasonMissing, CandidateUnknown.
    """
    need_reason(reason)
    with db.begin() as connection:
        candidate = _pending(connection, assistant, version)
        approval = _record(connection, candidate, "reject", actor, reason, timedelta(0))
        candidates.move(connection, candidate, "rejected", reason)
        details: dict[str, Json] = {"evidence": candidate.evidence, "reason": reason, "approval": approval.id}
        append(connection, "candidate.rejected", actor, candidate.digest, details)
        if candidate.item is not None:
            why = f"version {candidate.number} was rejected by {actor.name}: {reason}"
            queue.move(connection, None, candidate.item, "rejected", why, actor=actor)
        return approval


def revoke(db: Database, *, assistant: str, version: str | int, actor: Actor, reason: str) -> Approval:
    """Take one's own yes back while the candidate is still pending.

    Raises:
        NotPending, ReasonMissing, CandidateUnknown; ApprovalUnknown when the person has no yes that counts.
    """
    need_reason(reason)
    with db.begin() as connection:
        candidate = _pending(connection, assistant, version)
        for one in given(connection, candidate):
            if one.verdict == "approve" and one.revoked_at is None and same_person(one.person, actor.name):
                moment = now(connection)
                connection.execute(update(approvals).where(approvals.c.id == one.id).values(revoked_at=moment))
                append(connection, "approval.revoked", actor, candidate.digest, {"reason": reason, "approval": one.id})
                return Approval(**{**vars(one), "revoked_at": moment})
        raise ApprovalUnknown(
            f"{actor.name} has no approval of version {candidate.number} to take back; "
            "`lcia candidates` says who approved what"
        )


def valid(
    connection: Connection, candidate: Candidate, policy: ApprovalSettings, *, override: bool = False
) -> list[Approval]:
    """Approvals that count now, one per person: fresh, unrevoked, for this evidence, by other eyes.

    With `override` those that were given in spite of the gate, which count for nothing else.
    """
    moment = now(connection)
    counted: list[Approval] = []
    for one in given(connection, candidate):
        fresh = one.revoked_at is None and moment < one.expires_at and not is_ahead(one.at, moment)
        fits = one.verdict == "approve" and one.evidence == candidate.evidence and one.override == override
        own = barred(candidate, one.person, policy)
        if fresh and fits and not own and not any(same_person(one.person, other.person) for other in counted):
            counted.append(one)
    return counted


def site_of(connection: Connection, candidate: Candidate) -> str | None:
    """The site whose task a candidate learnt; None where the queue does not know it."""
    return None if candidate.item is None else queue.item(connection, candidate.item).owner


def need_quorum(
    connection: Connection, candidate: Candidate, policy: ApprovalSettings, *, override: bool = False
) -> list[Approval]:
    """The approvals a promotion rests on; with `override` those in spite of the gate.

    Raises:
        QuorumMissing: there are fewer than policy asks for at the task's site, or a required role is not among them.
    """
    counted = valid(connection, candidate, policy, override=override)
    site = site_of(connection, candidate)
    own = policy.sites.get(site or "", SiteApproval())
    quorum = policy.quorum if own.quorum is None else own.quorum
    needed = max(quorum, policy.override_quorum) if override else quorum
    names = ", ".join(given.person for given in counted) or "nobody"
    option = " --override" if override else ""
    if len(counted) < needed:
        raise QuorumMissing(
            f"version {candidate.number} has {len(counted)} of {needed} approvals that count ({names}); "
            f"`lcia approve {candidate.number}{option} --reason ...` by somebody else than {candidate.submitted_by} "
            f"and {candidate.launched_by} gives one"
        )
    roles = policy.required_roles if own.required_roles is None else own.required_roles
    held = {role for given in counted for role in people.roles(connection, given.person, site)}
    missing = [role for role in roles if role not in held]
    if missing:
        raise QuorumMissing(
            f"version {candidate.number} has {len(counted)} approvals ({names}), and policy wants the role "
            f"{missing[0]} among them{f' at {site}' if site else ''}; a person who has it must approve too"
        )
    return counted


def same_person(left: str, right: str) -> bool:
    """Whether two names mean one person: letter case, width and outer blanks don't make another."""
    return _folded(left) == _folded(right)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def barred(candidate: Candidate, person: str, policy: ApprovalSettings) -> bool:
    """Whether four eyes keep a person from a candidate: they submitted or launched its task."""
    return policy.four_eyes and _brought(candidate, person)


def _brought(candidate: Candidate, person: str) -> bool:
    return same_person(person, candidate.submitted_by) or same_person(person, candidate.launched_by)


def _need_other_eyes(candidate: Candidate, person: str, policy: ApprovalSettings) -> None:
    if barred(candidate, person, policy):
        did = "submitted" if same_person(person, candidate.submitted_by) else "launched"
        raise FourEyesRefused(
            f"{person} {did} the task of version {candidate.number} and can't approve it; ask somebody else, or set "
            "policy.approval.four_eyes=false, which marks the version"
        )


def need_reason(reason: str) -> None:
    """Refuse a decision without a reason.

    Raises:
        ReasonMissing: it is blank.
    """
    if is_blank(reason):
        raise ReasonMissing("a decision needs a reason that others can read later; give it with --reason")


def _pending(connection: Connection, assistant: str, version: str | int) -> Candidate:
    candidate = candidates.get(connection, assistant, version)
    if candidate.state != "pending":
        raise NotPending(
            f"version {candidate.number} is {candidate.state} ({candidate.reason}), expected pending; "
            "`lcia status` lists what waits for people"
        )
    return candidate


def _record(
    connection: Connection,
    candidate: Candidate,
    verdict: str,
    actor: Actor,
    reason: str,
    validity: timedelta,
    *,
    override: bool = False,
) -> Approval:
    moment = now(connection)
    identity = connection.execute(
        insert(approvals)
        .values(
            candidate=candidate.digest,
            evidence=candidate.evidence,
            verdict=verdict,
            person=actor.name,
            assured=actor.assured,
            reason=reason,
            at=moment,
            expires_at=moment + validity,
            override=override,
        )
        .returning(approvals.c.id)
    ).scalar_one()
    return _approval(connection.execute(select(approvals).where(approvals.c.id == identity)).mappings().one())


def given(connection: Connection, candidate: Candidate) -> list[Approval]:
    """Every yes and no to a candidate in order, those that count no more included."""
    query = select(approvals).where(approvals.c.candidate == candidate.digest).order_by(approvals.c.id)
    return [_approval(row) for row in connection.execute(query).mappings()]


def _approval(row: RowMapping) -> Approval:
    return Approval(**row)
