"""Candidates: proposed versions, from registration to their end."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, func, insert, literal, select, update

from components.audit.decisions import need_decision
from components.audit.log import SYSTEM, Actor, append
from components.errors import LciaError
from components.identity.access import EVERYWHERE
from components.registry.outbox import enqueue
from components.storage.database import now
from components.storage.leases import Lease, check
from components.storage.objects import Json
from components.storage.tables import approvals, candidates, champion, queue

MOVES = {
    "pending": frozenset({"promoted", "rejected", "superseded"}),
    "promoted": frozenset[str](),
    "rejected": frozenset[str](),
    "superseded": frozenset[str](),
}
"""State -> states it may change to; `superseded`: what it was made on was passed over before people
decided about it; its task goes on.

Only `register` leads back to `pending`: the same content, made again on purpose, with new evidence."""


SENDER_UNKNOWN = "sender unknown"
"""Mark of a version whose task came through an inbox: anybody may have put it there, even an approver."""

AGAIN = frozenset({"rejected", "superseded"})
"""States in which the same content may be registered again."""


class CandidateUnknown(LciaError):
    """No version has this number or digest."""


class ParentOvertaken(LciaError):
    """People passed over the version that a candidate was made on while it was being learnt."""


class NotPending(LciaError):
    """The candidate was decided already."""


@dataclass(frozen=True)
class Candidate:
    """A proposed version of an assistant."""

    digest: str
    """Digest of the pool manifest."""
    assistant: str
    number: int
    """The version number for people: 1, 2, ..."""
    state: str
    reason: str
    task: str
    """Task snapshot it learnt."""
    task_name: str
    """`name@version`."""
    parent: str | None
    """Version it was made on; None for an assistant's first."""
    evidence: str
    verdict: str
    """The gate's verdict: pass, fail or inconclusive."""
    attempt: int
    """Number of the attempt at tasks of this name and owner, from 1; see `attempts`."""
    submitted_by: str
    launched_by: str
    item: int | None
    """Queue item."""
    marks: list[str]
    """Reasons why it is out of the ordinary, such as changed policy keys."""
    created_at: datetime
    changed_at: datetime
    known: bool = False
    """True if `register` found it already recorded."""

    def to_json(self) -> dict[str, Json]:
        """For `--json`."""
        values = {name: value for name, value in vars(self).items() if not isinstance(value, datetime)}
        return {**values, "created_at": self.created_at.isoformat(), "changed_at": self.changed_at.isoformat()}


def register(
    connection: Connection,
    lease: Lease | None,
    *,
    assistant: str,
    digest: str,
    task: str,
    task_name: str,
    parent: str | None,
    evidence: str,
    verdict: str,
    submitted_by: str,
    launched_by: str,
    attempt: int = 1,
    item: int | None = None,
    marks: list[str] | None = None,
    publication: dict[str, Json] | None = None,
    origin: str | None = None,
    actor: Actor = SYSTEM,
) -> Candidate:
    """Record a candidate, its log entry and its publication; a pending or promoted one stays as it is.

    A rejected or superseded candidate that was made again is pending again under its old number: as a further attempt,
    on the new evidence, with its earlier approvals void. `attempt` is the number the gate judged it by.

    `publication` is what the registry shows (see `Registry.publish_candidate`), with artifacts by digest; this adds
    digest, number and the tags that say where it comes from. `origin` is the evidence of the version that it carries
    over, if it does.

    Raises:
        StaleLease: the worker's lease was taken over.
        ParentOvertaken: `parent` is neither the champion nor undecided.
        ChampionUnexplained: the log does not explain the champion.
    """
    if lease is not None:
        check(connection, lease)
    row = connection.execute(select(candidates).where(candidates.c.digest == digest)).mappings().one_or_none()
    if row is not None and row["state"] not in AGAIN:
        return _candidate(row, repeat=True)
    _need_standing_parent(connection, assistant, parent)
    highest = select(func.coalesce(func.max(candidates.c.number), 0)).where(candidates.c.assistant == assistant)
    number = int(connection.execute(highest).scalar_one()) + 1 if row is None else int(row["number"])
    moment = now(connection)
    values = {
        "number": number,
        "state": "pending",
        "reason": "waits for people",
        "task": task,
        "task_name": task_name,
        "parent": parent,
        "evidence": evidence,
        "verdict": verdict,
        "attempt": attempt,
        "submitted_by": submitted_by,
        "launched_by": launched_by,
        "item": item,
        "marks": sorted(set(marks or [])),
    }
    if row is None:
        identity = {"digest": digest, "assistant": assistant, "created_at": moment}
        connection.execute(insert(candidates).values(**identity, **values, changed_at=moment))
    else:
        mine = candidates.c.digest == digest
        connection.execute(update(candidates).where(mine).values(**values, changed_at=moment))
        valid_approvals = (approvals.c.candidate == digest) & approvals.c.revoked_at.is_(None)
        connection.execute(update(approvals).where(valid_approvals).values(revoked_at=moment))
    details = {name: value for name, value in values.items() if name not in {"state", "reason"}}
    details |= {"assistant": assistant, **({"origin": origin} if origin else {})}
    append(connection, "candidate.registered", actor, digest, details)
    if publication is not None:
        tags = {
            **publication.get("tags", {}),
            "number": str(number),
            "task": task_name,
            "verdict": verdict,
            "state": "pending",
            "evidence": evidence,
            "made_on": _made_on(connection, parent),
            "marks": ", ".join(sorted(set(marks or []))) or "none",
        }
        enqueue(connection, assistant, "candidate", {**publication, "digest": digest, "number": number, "tags": tags})
    return get(connection, assistant, digest)


def _made_on(connection: Connection, parent: str | None) -> str:
    if parent is None:
        return "nothing"
    query = select(candidates.c.number).where(candidates.c.digest == parent)
    return f"v{connection.execute(query).scalar_one()}"


def get(connection: Connection, assistant: str, reference: str | int) -> Candidate:
    """A candidate by number (`3`, `"3"`, `"v3"`), digest, or the digest's first 6 or more digits.

    Raises:
        CandidateUnknown: no version fits `reference`, or several do.
    """
    name = str(reference).strip().lower()
    query = select(candidates).where(candidates.c.assistant == assistant)
    digits = name.removeprefix("v")
    if digits.isascii() and digits.isdigit() and len(digits) < 10:  # longer ones overflow PostgreSQL's integer
        query = query.where(candidates.c.number == int(digits))
    elif 6 <= len(name) <= 64 and set(name) <= set("0123456789abcdef"):
        query = query.where(candidates.c.digest.startswith(name))
    else:
        raise CandidateUnknown(f"{reference!r} is no version; give its number or 6 or more digits of its digest")
    rows = connection.execute(query).mappings().all()
    if len(rows) != 1:
        count = "no version goes" if not rows else f"{len(rows)} versions go"
        raise CandidateUnknown(f"{count} by {reference!r}; {_highest(connection, assistant)}")
    return _candidate(rows[0])


def _highest(connection: Connection, assistant: str) -> str:
    highest = connection.execute(select(func.max(candidates.c.number)).where(candidates.c.assistant == assistant))
    number = highest.scalar_one_or_none()
    if number is None:
        return "there is no version yet: `lcia run PACKAGE` makes the first"
    return f"the highest number is {number}, `lcia candidates` lists them with their digests"


def versions(connection: Connection, assistant: str, state: str | None = None) -> list[Candidate]:
    """Candidates by number, in one state if given."""
    query = select(candidates).where(candidates.c.assistant == assistant).order_by(candidates.c.number)
    if state is not None:
        query = query.where(candidates.c.state == state)
    return [_candidate(row) for row in connection.execute(query).mappings()]


def in_use(connection: Connection, assistant: str) -> str | None:
    """Digest of the champion, as its table says; None before the first promotion."""
    query = select(champion.c.version).where(champion.c.name == assistant)
    version: str | None = connection.execute(query).scalar_one_or_none()
    return version


def ancestors(connection: Connection, digest: str) -> list[Candidate]:
    """A version and all it was made on, the oldest first: the rows of the accuracy matrix."""
    line = select(candidates, literal(0).label("depth")).where(candidates.c.digest == digest).cte(recursive=True)
    above = select(candidates, line.c.depth + 1).where(candidates.c.digest == line.c.parent)
    closure = line.union_all(above)
    columns = [closure.c[column.name] for column in candidates.c]
    rows = connection.execute(select(*columns).order_by(closure.c.depth.desc())).mappings()
    return [_candidate(row) for row in rows]


def rolled_away(connection: Connection, candidate: Candidate) -> bool:
    """True if it was champion and the champion was since moved to a version that was not made on it.

    Returning to it is a promotion. Returning to any version that the champion was made on is a rollback.
    """
    if candidate.state != "promoted":
        return False
    present = in_use(connection, candidate.assistant)
    return present is not None and candidate.digest not in _owners(connection, present)


def sites(connection: Connection, candidate: Candidate) -> frozenset[str]:
    """Owners of all tasks that the champion would gain, lose or relearn if it became this version.

    An undecided version becomes the champion after the one that it was made on, so that one counts as the champion.

    A version on another base model learns everything again, so every task counts. `*` stands for a task whose owner is
    unknown, and for a version that changes no task.
    """
    present = candidate.parent if candidate.state == "pending" else in_use(connection, candidate.assistant)
    target, now_in_use = _owners(connection, candidate.digest), _owners(connection, present)
    difference = target.keys() ^ now_in_use.keys()
    task_owners = {(target | now_in_use)[digest] for digest in difference}
    if None in task_owners:  # one of them learnt everything again
        task_owners |= {*target.values(), *now_in_use.values()}
    return frozenset(owner for owner in task_owners if owner is not None) or frozenset({EVERYWHERE})


def owners(connection: Connection, assistant: str) -> dict[str, str]:
    """Digest of a task snapshot that a version learnt -> the owner of the task."""
    query = select(candidates.c.task, queue.c.owner).join(queue, queue.c.id == candidates.c.item)
    return {row.task: row.owner for row in connection.execute(query.where(candidates.c.assistant == assistant))}


def _owners(connection: Connection, digest: str | None) -> dict[str, str | None]:
    """A version and all it was made on, each with the owner of the task it learnt; None for one that learnt several."""
    if digest is None:
        return {}
    line = select(candidates.c.digest, candidates.c.parent, candidates.c.item)
    below = line.where(candidates.c.digest == digest).cte(recursive=True)
    closure = below.union(line.where(candidates.c.digest == below.c.parent))
    rows = select(closure.c.digest, queue.c.owner).join(queue, queue.c.id == closure.c.item, isouter=True)
    return {row.digest: row.owner for row in connection.execute(rows)}


def move(connection: Connection, candidate: Candidate, state: str, reason: str) -> None:
    """Change the state of a candidate in the deciding transaction, which writes its own log entry.

    Raises:
        NotPending: `MOVES` does not lead from its state to `state`.
    """
    sources = [before for before, after in MOVES.items() if state in after]
    result = connection.execute(
        update(candidates)
        .where(candidates.c.digest == candidate.digest, candidates.c.state.in_(sources))
        .values(state=state, reason=reason, changed_at=now(connection))
    )
    if result.rowcount != 1:
        raise NotPending(
            f"version {candidate.number} is {get(connection, candidate.assistant, candidate.digest).state}, "
            f"expected pending; it can't become {state} any more"
        )
    payload: dict[str, Json] = {"digest": candidate.digest, "number": candidate.number, "state": state}
    enqueue(connection, candidate.assistant, "state", payload)


def _need_standing_parent(connection: Connection, assistant: str, parent: str | None) -> None:
    need_decision(connection, assistant)
    present = in_use(connection, assistant)
    open_parent = select(candidates.c.digest).where(candidates.c.digest == parent, candidates.c.state == "pending")
    if present != parent and connection.execute(open_parent).first() is None:
        raise ParentOvertaken(
            f"the candidate was made on {(parent or 'no version')[:12]}, which people passed over meanwhile; the "
            f"champion is {(present or 'none')[:12]}: it is not recorded; `lcia work` goes on from what stands now"
        )


def _candidate(row: RowMapping, *, repeat: bool = False) -> Candidate:
    return Candidate(**row, known=repeat)
