"""The champion: moved only by compare-and-swap, in one transaction with everything that belongs to it.

Approvals, swap, history, queue, log entry and outbox row are committed together or not at all, so a crash at any
instruction leaves either the old champion and no trace, or the new one with all that belongs to it.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, RowMapping, insert, select, update

from components.audit.decisions import need_decision
from components.audit.log import Actor, Entry, append
from components.errors import LciaError, WaitingForPeople
from components.promotion import approvals, candidates, judging, quorum, train, trial_rows
from components.promotion.approvals import EvidenceVoid, NotLowRisk
from components.promotion.candidates import Candidate, NotPending
from components.promotion.judging import Judgement
from components.promotion.policy import record, standing
from components.promotion.reasons import need_reason
from components.registry.outbox import enqueue
from components.settings import PolicySettings
from components.storage.database import Database, now
from components.storage.objects import Json, ObjectCorrupt, ObjectMissing, ObjectStore
from components.storage.tables import candidates as candidates_table
from components.storage.tables import champion, promotions
from components.tasks import queue


class StaleCandidate(LciaError):
    """The champion changed since the candidate was made."""


class NotItsTurn(WaitingForPeople):
    """The version was made on another that people have to decide about first."""


class ChampionUnknown(LciaError):
    """The table of champions names a version that does not exist."""


class RollbackRefused(LciaError):
    """The version was never champion, is the champion now, was rolled away from, or has damaged objects."""


@dataclass(frozen=True)
class Champion:
    """The version in use."""

    name: str
    version: str
    """Digest decided on."""
    epoch: int
    decided_at: datetime
    served: str | None
    """Digest that the registry served when it was last asked."""


@dataclass(frozen=True)
class Promotion:
    """One decision about the champion."""

    name: str
    epoch: int
    version: str
    previous: str | None
    kind: str
    """promotion or rollback."""
    by: str
    assured: bool
    reason: str
    evidence: str
    marks: list[str]
    at: datetime
    known: bool = False
    """True if the version was champion already and nothing was done."""
    entry: int | None = None
    """Index of its log entry; None for an old decision whose log lacks it."""

    def to_json(self) -> dict[str, Json]:
        """For `--json`."""
        return {**{name: value for name, value in vars(self).items() if name != "entry"}, "at": self.at.isoformat()}


def current(connection: Connection, name: str) -> Champion | None:
    """The champion of an assistant; None before its first promotion.

    Raises:
        ChampionUnknown: see the class.
    """
    row = connection.execute(select(champion).where(champion.c.name == name)).mappings().one_or_none()
    if row is None:
        return None
    query = select(candidates_table.c.digest).where(candidates_table.c.digest == str(row["version"]))
    if connection.execute(query).first() is None:
        raise ChampionUnknown(
            f"the database says that the champion of {name} is {row['version']!r}, and has no such version: somebody "
            "changed it by hand. Restore it from a backup; `lcia audit show --kind champion` says what was decided"
        )
    return Champion(**row)


def lineage(connection: Connection, name: str) -> list[Promotion]:
    """Every promotion and rollback of an assistant, in order."""
    query = select(promotions).where(promotions.c.name == name).order_by(promotions.c.epoch)
    return [_promotion(row) for row in connection.execute(query).mappings()]


def promote(
    db: Database,
    store: ObjectStore,
    *,
    assistant: str,
    version: str | int,
    actor: Actor,
    policy: PolicySettings,
    reason: str = "",
    automatic: bool = False,
) -> Promotion:
    """Make a pending candidate the champion, or a version that was rolled away from; repeating it does nothing.

    `policy` is that of the settings, which holds if the server has none. The policy in force at the moment of the move
    decides, also about the gate's verdict. `automatic`: the product promotes by itself, if that policy allows it; this
    takes low risk instead of approvals.

    Raises:
        QuorumMissing: not enough approvals.
        NotLowRisk: it is not for `automatic`.
        GateRefused: the gate does not pass and is enforced.
        StaleCandidate: it was not made on the present champion.
        NotItsTurn: it was made on a version that is undecided.
        EvidenceVoid: an object it rests on is missing or altered.
        NotPending, CandidateUnknown.
    """
    with db.read() as connection:
        first_read = candidates.get(connection, assistant, version)
        repeat = _standing(connection, first_read)
        earlier = standing(connection, assistant, policy)
        trials = trial_rows.records(connection, first_read.digest)
    if repeat is not None:
        return repeat
    reading = approvals.check_evidence(store, first_read, trials)
    judging.present(store, first_read, earlier.gate)  # may take seconds: not while others wait to write
    with db.begin() as connection:
        candidate = candidates.get(connection, assistant, first_read.digest)
        repeat = _standing(connection, candidate)
        if repeat is not None:
            return repeat
        rules = standing(connection, assistant, policy)
        before = current(connection, assistant)
        need_decision(connection, assistant)
        returning = not automatic and candidates.rolled_away(connection, candidate)
        if not returning:
            _need_fresh(connection, candidate, before)
        if candidate.evidence != reading.digest or trial_rows.records(connection, candidate.digest) != trials:
            raise EvidenceVoid(f"the evidence of version {candidate.number} changed meanwhile; look at it again")
        judgement = judging.present(store, candidate, rules.gate)
        basis = _basis(connection, candidate, judgement, rules, automatic=automatic)
        marks = sorted({*candidate.marks, *basis.marks, *(["returned to"] if returning else [])})
        promotion = _swap(connection, before, candidate, "promotion", actor, reason, marks)
        if not returning:
            candidates.move(connection, candidate, "promoted", f"champion since epoch {promotion.epoch}")
            if candidate.item is not None:
                why = f"learnt in version {candidate.number}, champion since epoch {promotion.epoch}"
                queue.move(connection, None, candidate.item, "promoted", why, actor=actor)
        details: dict[str, Json] = {
            **_details(promotion, candidate),
            "verdict": judgement.verdict,
            "task": candidate.task,
            "policy": store.put_json(record(rules)),
            "judged_again": None if judgement.again is None else store.put_json(judgement.again),
            "approvals": basis.people,
            "trials": trials,
            "automatic": automatic,
            "override": basis.override,
            "returned": returning,
        }
        promotion = _write(
            connection, promotion, append(connection, "champion.promoted", actor, candidate.digest, details)
        )
        _supersede(connection, candidate, actor)
        tags = {"epoch": str(promotion.epoch), "state": "promoted", "marks": ", ".join(promotion.marks) or "none"}
        enqueue(
            connection,
            assistant,
            "promote",
            {"digest": candidate.digest, "number": candidate.number, "epoch": promotion.epoch, "tags": tags},
        )
        return promotion


@dataclass(frozen=True)
class _Basis:
    """Basis of a promotion besides its evidence."""

    people: list[Json]
    marks: list[str]
    override: bool


def _basis(
    connection: Connection, candidate: Candidate, judgement: Judgement, rules: PolicySettings, *, automatic: bool
) -> _Basis:
    """The approvals, or the low risk, with the marks of a decision that is out of the ordinary.

    Raises:
        QuorumMissing, NotLowRisk, GateRefused: see `promote`.
    """
    override = judging.gate_stands_against(judgement.verdict, rules.gate) and bool(
        quorum.valid(connection, candidate, rules.approval, override=True)
    )
    marks = approvals.check_gate(candidate, judgement, rules.gate, override=override)
    marks += [] if judgement.again is None else ["gate judged again"]
    if automatic:
        approvals.check_low_risk(candidate, judgement, rules.approval)
        _need_no_trial(connection, candidate)
        return _Basis([], [*marks, "automatic approval"], override)
    people: list[Json] = []
    for approval in quorum.need_quorum(connection, candidate, rules.approval, override=override):
        identity: dict[str, Json] = {"person": approval.person, "assured": approval.assured, "reason": approval.reason}
        people.append({**identity, "how": approval.how})
        marks += [] if approval.assured else ["asserted identity"]
    return _Basis(people, marks + ([] if rules.approval.four_eyes else ["four eyes off"]), override)


def _need_no_trial(connection: Connection, candidate: Candidate) -> None:
    """Refuse automatic promotion of a version that people try, or whose trial a rule stopped.

    Raises:
        NotLowRisk: see above.
    """
    for trial in trial_rows.every(connection, candidate.assistant, candidate.digest):
        if trial.state != trial_rows.ENDED or trial.stopped_by_rule:
            state = f"was stopped by the rule {trial.cause}" if trial.stopped_by_rule else f"is {trial.state}"
            raise NotLowRisk(
                f"version {candidate.number} is not promoted automatically: its trial {trial.id} {state}; people decide"
            )


def rollback(
    db: Database, store: ObjectStore, *, assistant: str, version: str | int, actor: Actor, reason: str
) -> Promotion:
    """Go back: make any version that the champion was made on the champion again. One person can do it, at once.

    Raises:
        RollbackRefused: see the class.
        ReasonMissing, CandidateUnknown.
    """
    need_reason(reason)
    with db.read() as connection:
        target = candidates.get(connection, assistant, version)
    try:
        approvals.check_version(store, target.digest)
    except (ObjectMissing, ObjectCorrupt) as error:
        raise RollbackRefused(f"version {target.number} can't be used again: {error}") from error
    with db.begin() as connection:
        before = current(connection, assistant)
        need_decision(connection, assistant)
        earlier = {promotion.version: promotion for promotion in lineage(connection, assistant)}
        if before is None or target.digest not in earlier:
            raise RollbackRefused(
                f"version {target.number} was never champion ({target.state}); roll back to one of "
                f"{', '.join(_numbers(connection, assistant, earlier)) or 'none'}, or promote it"
            )
        if before.version == target.digest:
            raise RollbackRefused(f"version {target.number} is the champion already; nothing was changed")
        if candidates.rolled_away(connection, target):
            raise RollbackRefused(_forward(connection, target, before))
        promotion = _swap(connection, before, target, "rollback", actor, reason, earlier[target.digest].marks)
        promotion = _write(
            connection,
            promotion,
            append(connection, "champion.rolled_back", actor, target.digest, _details(promotion, target)),
        )
        _supersede(connection, target, actor)
        enqueue(
            connection,
            assistant,
            "rollback",
            {"digest": target.digest, "number": target.number, "epoch": promotion.epoch},
        )
        return promotion


def _forward(connection: Connection, target: Candidate, before: Champion) -> str:
    """Message: why a move to `target` is no rollback, and what to do instead."""
    departure = next((one for one in reversed(lineage(connection, target.assistant)) if one.kind == "rollback"), None)
    who = f" (epoch {departure.epoch}, by {departure.by}: {departure.reason})" if departure else ""
    return (
        f"version {target.number} was rolled away from{who}: {_name(connection, target.assistant, before.version)} was "
        "not made on it, so going there is no going back but a promotion. "
        f"`lcia approve {target.number} --reason ...` by as many people as policy asks for, none of whom brought its "
        "task in, makes it the champion on its evidence"
    )


def _standing(connection: Connection, candidate: Candidate) -> Promotion | None:
    """The decision that made `candidate` the present champion, if it is."""
    now_in_use = current(connection, candidate.assistant)
    if now_in_use is None or now_in_use.version != candidate.digest:
        return None
    query = select(promotions).where(promotions.c.name == candidate.assistant, promotions.c.epoch == now_in_use.epoch)
    return _promotion(connection.execute(query).mappings().one(), repeat=True)


def _need_fresh(connection: Connection, candidate: Candidate, before: Champion | None) -> None:
    if candidate.state in {"promoted", "rejected"}:
        way = "`lcia run` makes a new one"
        if candidate.state == "promoted":
            way = "people bring it back: `lcia rollback`, or `lcia approve` where it was rolled away from"
        raise NotPending(f"version {candidate.number} is {candidate.state}, expected pending; {way}")
    parent = None if before is None else before.version
    base = train.undecided_base(connection, candidate)
    if base is not None:
        raise NotItsTurn(
            f"version {candidate.number} was made on version {base.number}, which waits for people; it becomes the "
            f"champion after that one: `lcia approve {base.number}`"
        )
    if candidate.state == "superseded" or candidate.parent != parent:
        made_on = _name(connection, candidate.assistant, candidate.parent)
        raise StaleCandidate(
            f"version {candidate.number} was made on {made_on}, the champion is "
            f"{_name(connection, candidate.assistant, parent)}: promoting it would undo what was learnt between. Its "
            "task is queued again; `lcia run` learns it on the present champion, with a new gate and approval"
        )


def _swap(
    connection: Connection,
    before: Champion | None,
    candidate: Candidate,
    kind: str,
    actor: Actor,
    reason: str,
    marks: list[str],
) -> Promotion:
    """Compare-and-swap on the epoch; `_write` adds the row of history.

    Raises:
        StaleCandidate: somebody else moved the champion between reading and writing.
    """
    moment = now(connection)
    epoch = 1 if before is None else before.epoch + 1
    if before is None:
        values = {"version": candidate.digest, "epoch": 1, "decided_at": moment}
        connection.execute(insert(champion).values(name=candidate.assistant, **values))
    else:
        result = connection.execute(
            update(champion)
            .where(champion.c.name == candidate.assistant, champion.c.epoch == before.epoch)
            .values(version=candidate.digest, epoch=epoch, decided_at=moment)
        )
        if result.rowcount != 1:
            raise StaleCandidate(
                f"the champion of {candidate.assistant} moved on from epoch {before.epoch} just now; "
                "nothing was changed, look at `lcia status` and decide again"
            )
    return Promotion(
        name=candidate.assistant,
        epoch=epoch,
        version=candidate.digest,
        previous=None if before is None else before.version,
        kind=kind,
        by=actor.name,
        assured=actor.assured,
        reason=reason,
        evidence=candidate.evidence,
        marks=marks,
        at=moment,
    )


def _write(connection: Connection, promotion: Promotion, entry: Entry) -> Promotion:
    """Write the row of history with its log entry: statements are about that entry alone."""
    promotion = replace(promotion, entry=entry.index)
    row = {name: value for name, value in vars(promotion).items() if name != "known"}
    connection.execute(insert(promotions).values(**row))
    return promotion


def _supersede(connection: Connection, winner: Candidate, actor: Actor) -> None:
    """Candidates that do not lead back to the new champion can't be promoted any more; their tasks go on."""
    train.set_aside(connection, winner.assistant, f"it does not stand on the champion, version {winner.number}", actor)


def _details(promotion: Promotion, candidate: Candidate) -> dict[str, Json]:
    return {
        "assistant": promotion.name,
        "number": candidate.number,
        "epoch": promotion.epoch,
        "previous": promotion.previous,
        "evidence": promotion.evidence,
        "reason": promotion.reason,
        "marks": promotion.marks,
    }


def _numbers(connection: Connection, assistant: str, digests: dict[str, Promotion]) -> list[str]:
    return [str(version.number) for version in candidates.versions(connection, assistant) if version.digest in digests]


def _name(connection: Connection, assistant: str, digest: str | None) -> str:
    if digest is None:
        return "no version (the first one)"
    for version in candidates.versions(connection, assistant):
        if version.digest == digest:
            return f"version {version.number} ({digest[:12]})"
    return f"version {digest[:12]}"


def _promotion(row: RowMapping, *, repeat: bool = False) -> Promotion:
    return Promotion(**row, known=repeat)
