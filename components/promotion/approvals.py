"""Approvals: people's recorded yes and no, bound to the digest of the evidence they saw.

Every decision reads the whole evidence again; one changed or missing byte voids it. An approval counts only while it is
fresh and unrevoked, and only from somebody who neither submitted nor launched the task; on a server also only from
somebody who may still decide at a site whose tasks change. Silence is a no.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, insert, select, update

from components.audit.log import Actor, append
from components.errors import GateRefused, LciaError, WaitingForPeople
from components.identity import tokens
from components.names import same_person
from components.promotion import candidates, judging, train, trial_rows
from components.promotion.candidates import Candidate, NotPending
from components.promotion.integrity import read_below
from components.promotion.judging import Judgement
from components.promotion.policy import standing
from components.promotion.quorum import Approval, answers, approval_of, bars, epoch_of, need_entitled, valid
from components.promotion.reasons import need_reason
from components.settings import ApprovalSettings, GateSettings, PolicySettings
from components.storage.database import Database, now
from components.storage.objects import FolderRefused, Json, ObjectCorrupt, ObjectMissing, ObjectStore
from components.storage.tables import approvals
from components.tasks import queue


class EvidenceVoid(LciaError):
    """Evidence that is incomplete, damaged or about something else; no approval can rest on it."""


class FourEyesRefused(LciaError):
    """A person who submitted or launched a task can't approve its version."""


class ApprovalUnknown(LciaError):
    """There is no such approval, or it no longer counts."""


class OverrideRefused(LciaError):
    """There is nothing to override."""


class NotLowRisk(WaitingForPeople):
    """Policy leaves the decision about this version to people."""


@dataclass(frozen=True)
class Evidence:
    """Evidence that was read and found whole."""

    digest: str
    verdict: str
    """The gate's: pass, fail or inconclusive."""
    objects: int
    """Number of objects read and checked."""


def check_evidence(store: ObjectStore, candidate: Candidate, trials: Sequence[str] = ()) -> Evidence:
    """Read a candidate's evidence and everything it leads to: adapters, predictions, rows, settings, reports.

    `trials`: records of its ended trials, which belong to it.

    Raises:
        EvidenceVoid: an object is missing or altered, or is about another candidate, task, parent or verdict.
    """
    try:
        value = store.get_json(candidate.evidence)
        if not isinstance(value, dict) or value.get("kind") != "evidence" or value.get("schema") != 1:
            raise EvidenceVoid(f"object {candidate.evidence} is not evidence of schema 1; register the candidate anew")
        subject = {name: value.get(name) for name in ("candidate", "task", "parent")}
        record = {"candidate": candidate.digest, "task": candidate.task, "parent": candidate.parent}
        if subject != record:
            raise EvidenceVoid(f"the evidence of version {candidate.number} speaks of {subject}, expected {record}")
        check_version(store, candidate.digest)
        gate, evaluation = store.get_json(value["gate"]), store.get_json(value["evaluation"])
        links = (value["assessment"], value["tuning"], value.get("wordings"), value.get("reversal"), value["task"])
        parts = [*filter(None, links), *value["reports"].values()]
        if isinstance(evaluation, dict) and "predictions" in evaluation:
            parts += [*evaluation["predictions"].values(), *evaluation["champion"].values()]
        _need_trials_of(store, candidate, trials)
        objects = read_below(store, [candidate.evidence, *parts, *trials])
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


def _need_trials_of(store: ObjectStore, candidate: Candidate, trials: Sequence[str]) -> None:
    """Check that records of trials are about the candidate.

    Raises:
        EvidenceVoid: one is about something else.
    """
    for digest in trials:
        value = store.get_json(digest)
        if not isinstance(value, dict) or (value.get("kind"), value.get("candidate")) != ("trial", candidate.digest):
            raise EvidenceVoid(
                f"object {digest} stands as the record of a trial of version {candidate.number} and is none; "
                "`lcia audit verify` checks the record"
            )


def check_version(store: ObjectStore, digest: str) -> int:
    """Read a version's manifest and its adapters; returns the number of objects read.

    Raises:
        ObjectMissing, ObjectCorrupt: one of them is missing or was altered.
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


OVERRIDDEN = {verdict: f"gate {verdict} overridden" for verdict in ("fail", "inconclusive")}
"""Verdict of the gate -> mark of a version that people promote in spite of it."""


def check_gate(
    candidate: Candidate, judgement: Judgement, policy: GateSettings, *, override: bool = False
) -> list[str]:
    """Check that the gate lets people decide; returns the marks that the decision must bear.

    Raises:
        GateRefused: the verdict is not `pass`, the policy enforces it, and nobody overrides it.
        OverrideRefused: the gate does not stand against it, so there is nothing to override.
    """
    verdict, against = judgement.verdict, judging.gate_stands_against(judgement.verdict, policy)
    if override and not against:
        raise OverrideRefused(
            f"the gate says {verdict} for version {candidate.number} and does not stand against it; "
            "approve it without --override"
        )
    if override:
        return [OVERRIDDEN[verdict]]
    if against:
        now = f" under the present policy, {candidate.verdict} under that it was made with ({judgement.words})"
        raise GateRefused(
            f"the gate says {verdict} for version {candidate.number}{now if judgement.again else ''}, expected pass; "
            "its report names the rows. Better data or settings and `lcia run` make a new candidate. `lcia approve "
            f"{candidate.number} --override` is a yes in spite of it: several people have to give one, and it is "
            "recorded as that"
        )
    return [] if verdict == "pass" else [f"gate {verdict}, not enforced"]


NOT_UNCHANGED = ("step", "lifetime", "superseded", "not measurable", "not taught")
"""Rules of the gate whose row says that predictions of a task changed, or that this can't be known."""


def check_low_risk(candidate: Candidate, judgement: Judgement, policy: ApprovalSettings) -> None:
    """Check that policy counts a version the gate lets pass as low risk, to be promoted without a person.

    Raises:
        NotLowRisk: automatic approval is off, the task came from an unknown sender, or predictions of prior tasks
            changed and policy does not allow that.
    """
    if not policy.auto:
        raise NotLowRisk(
            f"version {candidate.number} is not promoted automatically: policy.approval.auto is false; people decide"
        )
    if policy.unknown_sender and candidates.SENDER_UNKNOWN in candidate.marks:
        raise NotLowRisk(
            f"version {candidate.number} is not promoted automatically: its task came through an inbox, and "
            f"policy.approval.unknown_sender asks for {policy.unknown_sender} further approvals; people decide about it"
        )
    tasks = sorted({row["task"] for row in judgement.rows if row["rule"] in NOT_UNCHANGED and row["task"]})
    if policy.auto_if == "unchanged" and tasks:
        raise NotLowRisk(
            f"version {candidate.number} is not promoted automatically: predictions of {', '.join(tasks)} changed or "
            "are not measurable, and policy.approval.auto_if is unchanged; people decide about it"
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
    trials: str | None = None,
    override: bool = False,
) -> Approval:
    """Record an approval of a pending candidate, or of a version that was rolled away from.

    If the person's earlier approval still counts, that one is returned. `policy` is that of the settings, which holds
    if the server has none. `evidence` is the digest the person looked at, if known: it must be the candidate's.
    `trials` likewise: that of the records of its ended trials (`trial_rows.bound`), to which the approval is bound.
    `override` approves in spite of the gate, and counts for nothing else.

    Raises:
        NotPending, EvidenceVoid, GateRefused, OverrideRefused, FourEyesRefused, ReasonMissing, CandidateUnknown.
        NotEntitled: the person may not decide about it.
    """
    need_reason(reason)
    with db.read() as connection:
        first_read = candidates.get(connection, assistant, version)
        earlier = standing(connection, assistant, policy)
        records = trial_rows.records(connection, first_read.digest)
    reading = check_evidence(store, first_read, records)
    judging.present(store, first_read, earlier.gate)  # may take seconds: not while others wait to write
    with db.begin() as connection:
        candidate = _open_candidate(connection, assistant, first_read.digest)
        rules = standing(connection, assistant, policy)
        if reading.digest != candidate.evidence or evidence not in {None, candidate.evidence}:
            raise EvidenceVoid(
                f"version {candidate.number} rests on evidence {candidate.evidence}, the approval was meant for "
                f"{evidence or reading.digest}; look at `lcia show {candidate.number}` again"
            )
        bound = _need_trials_read(connection, candidate, records, trials)
        judgement = judging.present(store, candidate, rules.gate)
        marks = check_gate(candidate, judgement, rules.gate, override=override)
        need_other_eyes(connection, candidate, actor.name, rules.approval)
        need_entitled(connection, candidate, actor)
        for earlier_yes in valid(connection, candidate, rules.approval, override=override):
            if same_person(earlier_yes.person, actor.name):
                return earlier_yes
        hours = timedelta(hours=rules.approval.expires_hours)
        approval = _record(connection, candidate, "approve", actor, reason, hours, override=override)
        details: dict[str, Json] = {"evidence": candidate.evidence, "reason": reason, "marks": marks, "trials": bound}
        details |= {"expires_at": approval.expires_at.isoformat(), "approval": approval.id}
        append(connection, "gate.overridden" if override else "candidate.approved", actor, candidate.digest, details)
        return approval


def _need_trials_read(
    connection: Connection, candidate: Candidate, records: Sequence[str], trials: str | None
) -> str | None:
    """Digest of the records of its ended trials, which the approval is bound to.

    Raises:
        EvidenceVoid: a trial ended since the approver, or this process, read them.
    """
    bound = trial_rows.bound(connection, candidate.digest)
    if trials not in {None, bound} or trial_rows.records(connection, candidate.digest) != list(records):
        raise EvidenceVoid(
            f"a trial of version {candidate.number} ended meanwhile and its record belongs to the evidence; look at "
            f"`lcia show {candidate.number}` again"
        )
    return bound


def reject(db: Database, *, assistant: str, version: str | int, actor: Actor, reason: str) -> Approval:
    """Record a rejection, which ends the candidate and its queue item. Anyone may reject, on damaged evidence too.

    Versions that were made on it are set aside, to be carried over to what stands without it.

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
        train.set_aside(connection, assistant, f"version {candidate.number}, which it stood on, was rejected", actor)
        return approval


def revoke(
    db: Database, *, assistant: str, version: str | int, actor: Actor, reason: str, person: str | None = None
) -> Approval:
    """Take back every approval of a person while nothing rests on it yet: the actor's own, or those of `person`.

    The log names both. Returns the newest one.

    Raises:
        NotPending, ReasonMissing, CandidateUnknown; ApprovalUnknown: the person has no approval to take back.
    """
    need_reason(reason)
    whose = actor.name if person is None else person
    with db.begin() as connection:
        candidate = _open_candidate(connection, assistant, version)
        yes = [one for one in answers(connection, candidate) if one.verdict == "approve" and one.revoked_at is None]
        mine = [one for one in yes if same_person(one.person, whose)]
        if not mine:
            raise ApprovalUnknown(
                f"{whose} has no approval of version {candidate.number} to take back; "
                "`lcia candidates` says who approved what"
            )
        moment = now(connection)
        ids = [one.id for one in mine]  # an earlier one may have expired
        connection.execute(update(approvals).where(approvals.c.id.in_(ids)).values(revoked_at=moment))
        details: dict[str, Json] = {"reason": reason, "approvals": list(ids), "person": mine[-1].person}
        append(connection, "approval.revoked", actor, candidate.digest, details)
        return Approval(**{**vars(mine[-1]), "revoked_at": moment})


def need_other_eyes(connection: Connection, candidate: Candidate, person: str, policy: ApprovalSettings) -> None:
    """Refuse the approval of somebody who brought in the candidate's task, or may have done it, if policy says so.

    Raises:
        FourEyesRefused: they submitted or launched it, or made a token of somebody who did.
    """
    if bars(candidate, person, policy):
        did = "submitted" if same_person(person, candidate.submitted_by) else "launched"
        raise FourEyesRefused(
            f"{person} {did} the task of version {candidate.number} and can't approve it; ask somebody else, or set "
            "policy.approval.four_eyes=false, which marks the version"
        )
    senders = {candidate.submitted_by, candidate.launched_by}
    if policy.four_eyes and any(same_person(person, maker) for maker in tokens.makers(connection, senders)):
        raise FourEyesRefused(
            f"{person} made a token of {' or '.join(sorted(senders))}, who brought in the task of version "
            f"{candidate.number}, and so may have done it; ask somebody else to approve it"
        )


def _pending(connection: Connection, assistant: str, version: str | int) -> Candidate:
    candidate = candidates.get(connection, assistant, version)
    if candidate.state != "pending":
        raise NotPending(
            f"version {candidate.number} is {candidate.state} ({candidate.reason}), expected pending; "
            "`lcia status` lists what waits for people"
        )
    return candidate


def _open_candidate(connection: Connection, assistant: str, version: str | int) -> Candidate:
    """A pending candidate, or a version that was rolled away from: approvals can bring it back."""
    candidate = candidates.get(connection, assistant, version)
    return candidate if candidates.rolled_away(connection, candidate) else _pending(connection, assistant, version)


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
            how=actor.how,
            epoch=epoch_of(connection, candidate.assistant),
            trials=trial_rows.bound(connection, candidate.digest),
        )
        .returning(approvals.c.id)
    ).scalar_one()
    return approval_of(connection.execute(select(approvals).where(approvals.c.id == identity)).mappings().one())
