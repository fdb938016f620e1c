"""The champion: moved only by compare-and-swap, in one transaction with everything that belongs to it.

Approvals, swap, history, queue, log entry and outbox row are committed together or not at all, so a crash at
any instruction leaves either the old champion with nothing said, or the new one with everything said.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, RowMapping, insert, select, update

from components.audit.decisions import need_decision
from components.audit.log import Actor, Entry, append
from components.errors import LciaError
from components.promotion import approvals, candidates
from components.promotion.approvals import EvidenceVoid
from components.promotion.candidates import Candidate, NotPending
from components.promotion.outbox import enqueue
from components.settings import PolicySettings
from components.storage.database import Database, now
from components.storage.objects import Json, ObjectCorrupt, ObjectMissing, ObjectStore
from components.storage.tables import champion, promotions
from components.tasks import queue


class StaleCandidate(LciaError):
    """The champion moved on since the candidate was made."""


class RollbackRefused(LciaError):
    """The version was never champion, or is it now, or its objects are not whole."""


@dataclass(frozen=True)
class Champion:
    """The version in use."""

    name: str
    version: str
    """Digest decided on."""
    epoch: int
    decided_at: datetime
    served: str | None
    """Digest the registry was last seen to serve."""


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
    """True when the version was champion already and nothing was done."""
    entry: int | None = None
    """Of the log, which it was written with; None of an old one whose log does not have it."""

    def to_json(self) -> dict[str, Json]:
        """For `--json`."""
        return {**{name: value for name, value in vars(self).items() if name != "entry"}, "at": self.at.isoformat()}


def current(connection: Connection, name: str) -> Champion | None:
    """The champion of an assistant; None before its first promotion."""
    row = connection.execute(select(champion).where(champion.c.name == name)).mappings().one_or_none()
    return None if row is None else Champion(**row)


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
    """Make a pending candidate the champion; repeating a promotion that stands does nothing.

    `automatic` is the worker's own, where policy allows it: it needs no approval, and low risk.

    Raises:
        QuorumMissing: not enough approvals.
        NotLowRisk: it is not for `automatic`.
        GateRefused: the gate did not pass and is enforced.
        StaleCandidate: it was not made on the present champion.
        EvidenceVoid: an object it rests on is missing or altered.
        NotPending, CandidateUnknown.
    """
    with db.read() as connection:
        seen = candidates.get(connection, assistant, version)
        standing = _standing(connection, seen)
    if standing is not None:
        return standing
    found = approvals.check_evidence(store, seen)
    rules = store.put_json({"kind": "policy", "schema": 1, "policy": policy.model_dump(mode="json")})
    with db.begin() as connection:
        candidate = candidates.get(connection, assistant, seen.digest)
        standing = _standing(connection, candidate)
        if standing is not None:
            return standing
        before = current(connection, assistant)
        need_decision(connection, assistant)
        _need_fresh(connection, candidate, before)
        if candidate.evidence != found.digest:
            raise EvidenceVoid(f"the evidence of version {candidate.number} changed meanwhile; look at it again")
        override = approvals.gate_stands_against(candidate, policy.gate) and bool(
            approvals.valid(connection, candidate, policy.approval, override=True)
        )
        marks = [*candidate.marks, *approvals.check_gate(candidate, policy.gate, override=override)]
        people: list[dict[str, Json]] = []
        if automatic:
            approvals.check_low_risk(store, candidate, policy.approval)
            marks.append("automatic approval")
        else:
            for given in approvals.need_quorum(connection, candidate, policy.approval, override=override):
                people.append({"person": given.person, "assured": given.assured, "reason": given.reason})
                marks += [] if given.assured else ["asserted identity"]
            if not policy.approval.four_eyes:
                marks.append("four eyes off")
        made = _swap(connection, before, candidate, "promotion", actor, reason, sorted(set(marks)))
        candidates.move(connection, candidate, "promoted", f"champion since epoch {made.epoch}")
        if candidate.item is not None:
            why = f"learnt in version {candidate.number}, champion since epoch {made.epoch}"
            queue.move(connection, None, candidate.item, "promoted", why, actor=actor)
        details: dict[str, Json] = {
            **_told(made, candidate),
            "verdict": candidate.verdict,
            "task": candidate.task,
            "policy": rules,
            "approvals": people,
            "automatic": automatic,
            "override": override,
        }
        made = _write(connection, made, append(connection, "champion.promoted", actor, candidate.digest, details))
        _supersede(connection, candidate)
        tags = {"epoch": str(made.epoch), "state": "promoted", "marks": ", ".join(made.marks) or "none"}
        enqueue(
            connection,
            assistant,
            "promote",
            {"digest": candidate.digest, "number": candidate.number, "epoch": made.epoch, "tags": tags},
        )
        return made


def rollback(
    db: Database, store: ObjectStore, *, assistant: str, version: str | int, actor: Actor, reason: str
) -> Promotion:
    """Make an earlier champion the champion again.

    Raises:
        RollbackRefused: see the class.
        ReasonMissing, CandidateUnknown.
    """
    approvals.need_reason(reason)
    with db.read() as connection:
        target = candidates.get(connection, assistant, version)
    try:
        approvals.check_version(store, target.digest)
    except (ObjectMissing, ObjectCorrupt) as error:
        raise RollbackRefused(f"version {target.number} can't be used again: {error}") from error
    with db.begin() as connection:
        before = current(connection, assistant)
        need_decision(connection, assistant)
        earlier = {made.version: made for made in lineage(connection, assistant)}
        if before is None or target.digest not in earlier:
            raise RollbackRefused(
                f"version {target.number} was never champion ({target.state}); roll back to one of "
                f"{', '.join(_numbers(connection, assistant, earlier)) or 'none'}, or promote it"
            )
        if before.version == target.digest:
            raise RollbackRefused(f"version {target.number} is the champion already; nothing was changed")
        made = _swap(connection, before, target, "rollback", actor, reason, earlier[target.digest].marks)
        made = _write(
            connection, made, append(connection, "champion.rolled_back", actor, target.digest, _told(made, target))
        )
        _supersede(connection, target)
        enqueue(
            connection, assistant, "rollback", {"digest": target.digest, "number": target.number, "epoch": made.epoch}
        )
        return made


def _standing(connection: Connection, candidate: Candidate) -> Promotion | None:
    """The decision that made `candidate` the present champion, if it is."""
    now_in_use = current(connection, candidate.assistant)
    if now_in_use is None or now_in_use.version != candidate.digest:
        return None
    query = select(promotions).where(promotions.c.name == candidate.assistant, promotions.c.epoch == now_in_use.epoch)
    return _promotion(connection.execute(query).mappings().one(), known=True)


def _need_fresh(connection: Connection, candidate: Candidate, before: Champion | None) -> None:
    if candidate.state in {"promoted", "rejected"}:
        way = "`lcia rollback` brings it back" if candidate.state == "promoted" else "`lcia run` makes a new one"
        raise NotPending(f"version {candidate.number} is {candidate.state}, expected pending; {way}")
    parent = None if before is None else before.version
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
        changed = connection.execute(
            update(champion)
            .where(champion.c.name == candidate.assistant, champion.c.epoch == before.epoch)
            .values(version=candidate.digest, epoch=epoch, decided_at=moment)
        )
        if changed.rowcount != 1:
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


def _write(connection: Connection, made: Promotion, entry: Entry) -> Promotion:
    """The row of history, with the log entry that it was written with: statements speak of that one alone."""
    made = replace(made, entry=entry.index)
    row = {name: value for name, value in vars(made).items() if name != "known"}
    connection.execute(insert(promotions).values(**row))
    return made


def _supersede(connection: Connection, winner: Candidate) -> None:
    """Candidates made on another version than the new champion can't be promoted any more; their tasks wait again."""
    for other in candidates.listed(connection, winner.assistant, "pending"):
        if other.parent == winner.digest:
            continue
        why = f"made on another version than the new champion, version {winner.number}"
        candidates.move(connection, other, "superseded", why)
        if other.item is not None:
            again = f"learns again on version {winner.number}: candidate {other.number} was overtaken"
            queue.move(connection, None, other.item, "submitted", again)


def _told(made: Promotion, candidate: Candidate) -> dict[str, Json]:
    return {
        "assistant": made.name,
        "number": candidate.number,
        "epoch": made.epoch,
        "previous": made.previous,
        "evidence": made.evidence,
        "reason": made.reason,
        "marks": made.marks,
    }


def _numbers(connection: Connection, assistant: str, digests: dict[str, Promotion]) -> list[str]:
    return [str(made.number) for made in candidates.listed(connection, assistant) if made.digest in digests]


def _name(connection: Connection, assistant: str, digest: str | None) -> str:
    if digest is None:
        return "no version (the first one)"
    for known in candidates.listed(connection, assistant):
        if known.digest == digest:
            return f"version {known.number} ({digest[:12]})"
    return f"version {digest[:12]}"


def _promotion(row: RowMapping, *, known: bool = False) -> Promotion:
    return Promotion(**row, known=known)
