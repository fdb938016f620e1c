"""Turns: the order in which waiting tasks are learnt, fair between sites, with priorities that people give.

Of tasks of one priority the next is that of the site which had the fewest learnt in the last days; of one site the
oldest comes first. So a site that hands in fifty tasks at once does not make another one's single task wait for all.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Connection, func, select

from components.audit.log import Actor, append
from components.storage.database import now
from components.storage.objects import Json
from components.storage.tables import queue as queue_table
from components.tasks import queue
from components.tasks.queue import QueueError, QueueItem

PRIORITY, PAUSED = "priority", "paused"
"""Answers of people about an item that are about its turn alone."""
LEARNT = ("learning", "candidate", "promoted", "rejected")
"""States that a task reaches by being learnt, or on the way to it."""
WAITING = ("submitted", "waiting")
"""States in which a task has a turn to wait for."""


def in_turn(items: Sequence[QueueItem], learnt: Mapping[str, int], first: Collection[int] = ()) -> list[QueueItem]:
    """Items in the order in which they are learnt.

    `learnt`: by site, the number of tasks that were learnt lately. `first`: items that only go on from another version;
    they come before all others, in their own order, as those behind them were made on them.
    """
    in_hand = [item for item in items if item.state not in WAITING]
    going_on = [item for item in items if item.state in WAITING and item.id in first]
    rest = [item for item in items if item.state in WAITING and item.id not in first]
    return [*in_hand, *going_on, *_fair(rest, Counter(learnt))]


def _fair(items: Sequence[QueueItem], counts: Counter[str]) -> list[QueueItem]:
    order, remaining = list[QueueItem](), sorted(items, key=lambda item: item.id)
    while remaining:
        most = max(priority_of(item) for item in remaining)
        item = min((one for one in remaining if priority_of(one) == most), key=lambda one: (counts[one.owner], one.id))
        counts[item.owner] += 1
        order.append(item)
        remaining.remove(item)
    return order


def priority_of(item: QueueItem) -> int:
    """An item's priority; 0 if nobody gave it one."""
    value = item.answers.get(PRIORITY, 0)
    return value if isinstance(value, int) else 0


def learnt_lately(connection: Connection, assistant: str, days: float) -> dict[str, int]:
    """By site, the number of tasks that were learnt in the last days."""
    since = now(connection) - timedelta(days=days)
    columns = queue_table.c
    query = select(columns.owner, func.count()).where(
        columns.assistant == assistant, columns.state.in_(LEARNT), columns.changed_at >= since
    )
    return {owner: int(count) for owner, count in connection.execute(query.group_by(columns.owner)).tuples()}


def give_priority(connection: Connection, identity: int, priority: int, actor: Actor, reason: str) -> QueueItem:
    """Let an item come before others, or after them; the log says who wanted that and why.

    Raises:
        QueueError: there is none, or it waits for no turn.
    """
    item = queue.item(connection, identity)
    if item.state not in (*WAITING, "held"):
        raise QueueError(f"item {identity} ({item.label}) is {item.state} and waits for no turn; nothing was changed")
    details: dict[str, Json] = {"item": identity, "priority": priority, "reason": reason}
    append(connection, "task.prioritised", actor, item.label, details)
    return queue.note(connection, identity, {PRIORITY: priority})


def pause(connection: Connection, identity: int, actor: Actor, reason: str) -> QueueItem:
    """Hold an item back until somebody resumes it.

    Raises:
        QueueError: there is none, or a worker has it, or it is over.
    """
    item = queue.item(connection, identity)
    if item.state not in WAITING:
        raise QueueError(f"item {identity} ({item.label}) is {item.state}; only a task that waits can be paused")
    why = f"paused by {actor.name}: {reason}"
    return queue.move(connection, None, identity, "held", why, actor=actor, answers={PAUSED: True})


def need_not_paused(connection: Connection, identity: int) -> None:
    """Refuse to release an item that was only paused: that would answer a question nobody asked.

    Raises:
        QueueError: it is paused.
    """
    item = queue.item(connection, identity)
    if item.state == "held" and item.answers.get(PAUSED):
        raise QueueError(f"item {identity} ({item.label}) is paused; `lcia resume {identity}` lets it go on")


def resume(connection: Connection, identity: int, actor: Actor) -> QueueItem:
    """Let a paused item go on.

    Raises:
        QueueError: it is not paused.
    """
    item = queue.item(connection, identity)
    if item.state != "held" or not item.answers.get(PAUSED):
        raise QueueError(f"item {identity} ({item.label}) is {item.state} and not paused; nothing was changed")
    return queue.move(connection, None, identity, "submitted", "goes on", actor=actor, answers={PAUSED: False})
