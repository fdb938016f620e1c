"""Turns of waiting tasks: their order, how long each may wait, and people's say in it."""

import statistics
from typing import Any

from components.audit.log import Actor
from components.promotion import candidates
from components.storage.objects import Json
from components.tasks import queue, turns
from components.tasks.queue import QueueItem
from lcia.instance import Instance
from lcia.operations.costs import costs_of

PAST = 20
"""Newest measured runs that an estimate of waiting rests on."""


def waiting_order(instance: Instance, only: int | None = None) -> list[QueueItem]:
    """Every task that a worker has something to do for, in the order in which it comes to it; `only` one, if named."""
    with instance.db.read() as connection:
        items = queue.items(connection, instance.assistant, queue.OPEN)
        learnt = turns.learnt_lately(connection, instance.assistant, instance.settings.queue.share_days)
        versions = candidates.versions(connection, instance.assistant)
    newest = {version.item: version for version in sorted(versions, key=lambda one: one.changed_at)}
    going_on = {number for number, version in newest.items() if number is not None and version.state == "superseded"}
    return [one for one in turns.in_turn(items, learnt, going_on) if only in (None, one.id)]


def waits(instance: Instance) -> dict[int, dict[str, Any]]:
    """By item that waits, its `place` in the order, from 1, and the `seconds` until its turn; None before any run."""
    order = waiting_order(instance)
    if not order:
        return {}
    seconds = _seconds_of_a_task(instance)
    return {
        item.id: {"place": place, "seconds": None if seconds is None else round(seconds * (place - 1), 1)}
        for place, item in enumerate(order, 1)
        if item.state in turns.WAITING
    }


def _seconds_of_a_task(instance: Instance) -> float | None:
    with instance.db.read() as connection:
        items = queue.items(connection, instance.assistant)
    past = [item for item in items if "cost" in item.reports][-PAST:]
    actual = [costs["actual"]["seconds"] for item in past if (costs := costs_of(instance, item))]
    return statistics.median(actual) if actual else None


def prioritise(instance: Instance, actor: Actor, item: int, priority: int, reason: str) -> Json:
    """Let a task come before others (a positive number) or after them (a negative one)."""
    with instance.db.begin() as connection:
        return turns.give_priority(connection, item, priority, actor, reason).to_json()


def pause(instance: Instance, actor: Actor, item: int, reason: str) -> Json:
    """Hold a waiting task back until somebody resumes it."""
    with instance.db.begin() as connection:
        return turns.pause(connection, item, actor, reason).to_json()


def resume(instance: Instance, actor: Actor, item: int) -> Json:
    """Let a paused task go on."""
    with instance.db.begin() as connection:
        return turns.resume(connection, item, actor).to_json()
