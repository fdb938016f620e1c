"""The queue of submitted tasks: the state of each, and the reason for it.

Every move is one row update and one log entry in the caller's transaction. The table `MOVES` holds the moves there are;
anything else is refused, so no code path can bring a task into a state nobody thought of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, func, insert, or_, select, update

from components.audit.log import SYSTEM, Actor, append
from components.errors import LciaError
from components.storage.database import now
from components.storage.leases import Lease, check
from components.storage.objects import Json
from components.storage.tables import queue

_STEPS: Mapping[str, frozenset[str]] = {
    "submitted": frozenset({"assessing", "held", "cancelled", "refused"}),
    "assessing": frozenset(
        {"submitted", "held", "refused", "nothing_to_learn", "waiting", "learning", "failed", "cancelled"}
    ),
    "held": frozenset({"submitted", "refused", "cancelled"}),
    "waiting": frozenset({"submitted", "learning", "held", "failed", "cancelled"}),
    "learning": frozenset({"submitted", "waiting", "candidate", "failed", "cancelled"}),
    "candidate": frozenset({"submitted", "promoted", "rejected", "cancelled"}),
    "failed": frozenset({"submitted", "cancelled"}),
    "refused": frozenset({"submitted"}),
    "rejected": frozenset({"submitted"}),
    "nothing_to_learn": frozenset({"submitted"}),
    "cancelled": frozenset({"submitted"}),
    "promoted": frozenset(),
}
MOVES: Mapping[str, frozenset[str]] = {
    **{state: after | {"withdrawn"} for state, after in _STEPS.items()},
    "withdrawn": frozenset(),
}
"""State -> states it may change to. `submitted` again is a retry, or a candidate whose parent is no longer champion;
`withdrawn` is the end, reached from anywhere: the rows are erased."""

ENDED = frozenset({"refused", "nothing_to_learn", "rejected", "failed", "cancelled", "withdrawn"})
"""States in which another package may use the task's name and version."""

OPEN = ("submitted", "assessing", "waiting", "learning")
"""States in which the worker has something to do; after a crash a task may still be `assessing` or `learning`."""


HINTS = {
    "promoted": ". It is learnt: `lcia rollback` goes back behind it, `lcia withdraw` erases it",
    "candidate": ". Its version waits: `lcia approve` or `lcia reject` it",
    "learning": ". A worker has it: wait, or stop the worker and `lcia work` again",
}
"""Advice by state: the verbs that people usually look for."""


class QueueError(LciaError):
    """There is no such move, or no such item."""


class TaskVersionTaken(LciaError):
    """Another package is already known under this name and version."""


@dataclass(frozen=True)
class QueueItem:
    """One submitted task package."""

    id: int
    assistant: str
    package: str
    """Folder object of the package as it was submitted, or the object of a change."""
    task: str | None
    """Digest of the task snapshot, once the package is read; None for a change."""
    name: str
    version: str
    owner: str
    submitted_by: str
    launched_by: str | None
    """Person or program that started its (last) learning run."""
    state: str
    reason: str
    """Reason for its state, for people."""
    reports: dict[str, str]
    """Object digests of reports, by name."""
    attempts: int
    """Number of times that learning was started."""
    answers: dict[str, Json]
    """Answers of people about it: `released`, `placed` (a group id or `new`), `forced`; `priority`, `paused`."""
    submitted_at: datetime
    changed_at: datetime
    known: bool = False
    """True if `submit` found the package in the queue already."""
    cut: tuple[str, ...] = ()
    """Splits that the package lacks and that `submit` cut from its training rows."""
    remarks: tuple[str, ...] = ()
    """Sentences about rows that `submit` rewrote or set aside."""

    @property
    def label(self) -> str:
        """`name@version`, the way people refer to it."""
        return f"{self.name}@{self.version}"

    @property
    def decisions(self) -> dict[str, Json]:
        """The answers of people that learning depends on."""
        return {name: value for name, value in self.answers.items() if name in ("released", "placed", "forced")}

    @property
    def is_change(self) -> bool:
        """True for a change without learning, of wordings or a reversal: `package` says which; there are no rows."""
        return "+" in self.version

    def to_json(self) -> dict[str, Json]:
        """For `--json`."""
        values = {name: value for name, value in vars(self).items() if not isinstance(value, datetime)}
        return {**values, "submitted_at": self.submitted_at.isoformat(), "changed_at": self.changed_at.isoformat()}


def submit(
    connection: Connection,
    *,
    assistant: str,
    package: str,
    name: str,
    version: str,
    owner: str,
    submitted_by: Actor,
    task: str | None = None,
    reason: str = "",
) -> QueueItem:
    """Put a task at the end of the queue; the same package or snapshot again returns its present item.

    `reason` is a person's, for the log.

    Raises:
        TaskVersionTaken: other content has the same name and version.
    """
    mine = queue.c.assistant == assistant
    same = queue.c.package == package
    if task is not None:
        same = same | (queue.c.task == task)
    row = connection.execute(select(queue).where(mine, same).order_by(queue.c.id)).mappings().first()
    if row is not None:
        return _item(row, repeat=True)
    other = connection.execute(
        select(queue)
        .where(mine, queue.c.name == name, queue.c.version == version, queue.c.state.not_in(ENDED))
        .order_by(queue.c.id)
    ).first()
    if other is not None:
        raise TaskVersionTaken(
            f"{name}@{version} is already known with other content (item {other.id}, {other.state}); "
            "a changed task needs a new `version` in task.yaml, with `supersedes` naming the old one"
        )
    moment = now(connection)
    identity = connection.execute(
        insert(queue)
        .values(
            assistant=assistant,
            package=package,
            task=task,
            name=name,
            version=version,
            owner=owner,
            submitted_by=submitted_by.name,
            state="submitted",
            reason=reason or "waits for its turn",
            reports={},
            attempts=0,
            submitted_at=moment,
            changed_at=moment,
        )
        .returning(queue.c.id)
    ).scalar_one()
    details: dict[str, Json] = {"item": identity, "package": package, "task": task, "owner": owner}
    details |= {"reason": reason} if reason else {}
    append(connection, "task.submitted", submitted_by, f"{name}@{version}", details)
    return item(connection, identity)


def item(connection: Connection, identity: int) -> QueueItem:
    """One item.

    Raises:
        QueueError: there is none with this number.
    """
    row = connection.execute(select(queue).where(queue.c.id == identity)).mappings().one_or_none()
    if row is None:
        raise QueueError(f"the queue has no item {identity}; `lcia status` lists them")
    return _item(row)


def items(connection: Connection, assistant: str, states: tuple[str, ...] | None = None) -> list[QueueItem]:
    """Items of an assistant in order of submission; only those in `states`, if given."""
    query = select(queue).where(queue.c.assistant == assistant).order_by(queue.c.id)
    if states is not None:
        query = query.where(queue.c.state.in_(states))
    return [_item(row) for row in connection.execute(query).mappings()]


def counts(connection: Connection, assistant: str) -> dict[str, int]:
    """Number of items per state; states without any are there with 0."""
    query = select(queue.c.state, func.count()).where(queue.c.assistant == assistant).group_by(queue.c.state)
    numbers = {state: int(number) for state, number in connection.execute(query).tuples()}
    return {state: numbers.get(state, 0) for state in MOVES}


def move(
    connection: Connection,
    lease: Lease | None,
    identity: int,
    state: str,
    reason: str,
    *,
    actor: Actor = SYSTEM,
    task: str | None = None,
    reports: Mapping[str, str] | None = None,
    launched_by: str | None = None,
    answers: Mapping[str, Json] | None = None,
) -> QueueItem:
    """Change an item's state in the caller's transaction; the present state again only updates the rest.

    `task` and `launched_by` are set if given; `reports` and `answers` are added to those there. Entering `learning`
    counts an attempt. A worker passes its lease; verbs of people pass None.

    Raises:
        QueueError: no such item, no such move, or another task digest than the one on record.
        StaleLease: another worker has taken over the lease.
    """
    if lease is not None:
        check(connection, lease)
    before = item(connection, identity)
    if state not in MOVES or (state != before.state and state not in MOVES[before.state]):
        choices = ", ".join(sorted(MOVES[before.state])) or "nothing: this is the end"
        raise QueueError(
            f"item {identity} ({before.name}@{before.version}) is {before.state}, it can't become {state}; "
            f"from here it may become {choices}{HINTS.get(before.state, '')}"
        )
    if task is not None and before.task not in {None, task}:
        raise QueueError(f"item {identity} was read as task {before.task}, not {task}: the package was altered")
    begins = state == "learning" and before.state != "learning"
    after = {**before.reports, **(reports or {})}
    result = connection.execute(
        update(queue)
        .where(queue.c.id == identity, queue.c.state == before.state)
        .values(
            state=state,
            reason=reason,
            task=task or before.task,
            reports=after,
            launched_by=launched_by or before.launched_by,
            attempts=before.attempts + begins,
            answers={**before.answers, **(answers or {})},
            changed_at=now(connection),
        )
    )
    if result.rowcount != 1:
        raise QueueError(f"item {identity} was moved by somebody else just now; look at `lcia status`")
    if state != before.state:
        details: dict[str, Json] = {
            "item": identity,
            "from": before.state,
            "to": state,
            "reason": reason,
            "task": task or before.task,
            "reports": after,
        }
        if answers:
            details["answers"] = dict(answers)
        append(connection, f"task.{state}", actor, f"{before.name}@{before.version}", details)
    return item(connection, identity)


def answer(
    connection: Connection, identity: int, state: str, answers: Mapping[str, Json], *, actor: Actor, reason: str
) -> QueueItem:
    """Put an item that is in `state` back into the queue with a person's decision about it.

    Raises:
        QueueError: no such item, or it is in another state, in which the decision would mean nothing.
    """
    before = item(connection, identity)
    if before.state != state:
        raise QueueError(
            f"item {identity} ({before.name}@{before.version}) is {before.state}, expected one that is {state}; "
            "`lcia status` says what it waits for"
        )
    return move(connection, None, identity, "submitted", reason, actor=actor, answers=answers)


def note(connection: Connection, identity: int, answers: Mapping[str, Json]) -> QueueItem:
    """Add to people's decisions about an item, which keeps its state; the caller writes the log entry."""
    before = item(connection, identity)
    values = {"answers": {**before.answers, **answers}, "changed_at": now(connection)}
    connection.execute(update(queue).where(queue.c.id == identity).values(**values))
    return item(connection, identity)


def _item(row: RowMapping, *, repeat: bool = False) -> QueueItem:
    return QueueItem(**row, known=repeat)


Order: TypeAlias = Literal["id", "name", "state", "owner", "submitted_by", "submitted_at", "changed_at"]


def page(
    connection: Connection,
    assistant: str,
    *,
    states: Sequence[str] = (),
    owner: str | None = None,
    text: str = "",
    order: Order = "id",
    falling: bool = True,
    start: int = 0,
    limit: int = 25,
) -> tuple[list[QueueItem], int]:
    """Items that fit, from position `start` on, and the number that fit in all.

    `text` is searched for in name, version, owner, submitter and reason, ignoring case.
    """
    fitting = [queue.c.assistant == assistant, *_conditions(states, owner, text)]
    by = queue.c[order]
    query = select(queue).where(*fitting).order_by(by.desc() if falling else by, queue.c.id.desc())
    total = connection.execute(select(func.count()).select_from(queue).where(*fitting)).scalar_one()
    rows = connection.execute(query.offset(start).limit(limit)).mappings()
    return [QueueItem(**row) for row in rows], int(total)


def owners(connection: Connection, assistant: str) -> list[str]:
    """Every owner of a task, by name."""
    query: Select[tuple[str]] = select(queue.c.owner).where(queue.c.assistant == assistant).distinct()
    return sorted(connection.execute(query).scalars())


def _conditions(states: Sequence[str], owner: str | None, text: str) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if states:
        conditions.append(queue.c.state.in_(states))
    if owner:
        conditions.append(queue.c.owner == owner)
    if text:
        columns = (queue.c.name, queue.c.version, queue.c.owner, queue.c.submitted_by, queue.c.reason)
        conditions.append(or_(*(func.lower(column).contains(text.lower(), autoescape=True) for column in columns)))
    return conditions
