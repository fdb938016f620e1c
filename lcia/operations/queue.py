"""The queue page by page, and one task in full: what its package says of itself, its checks, and its versions."""

import contextlib
from dataclasses import dataclass
from typing import Any, get_args

from components.promotion import candidates
from components.storage.objects import ObjectMissing
from components.tasks import progress, queue
from components.tasks.queue import QueueItem
from components.tasks.snapshot import load_snapshot
from lcia.instance import Instance
from lcia.operations.costs import costs_of
from lcia.operations.status import BUSY


@dataclass(frozen=True)
class QueuePage:
    """Some tasks, and what may be asked of all."""

    items: list[QueueItem]
    total: int
    """Tasks that fit."""
    states: list[str]
    """Those that some task is in."""
    owners: list[str]


def page(
    instance: Instance,
    *,
    state: str = "",
    owner: str = "",
    text: str = "",
    order: str = "id",
    falling: bool = True,
    start: int = 0,
    limit: int = 25,
) -> QueuePage:
    """Tasks that fit, in order, from position `start` on; a state or an order that does not exist is ignored."""
    by: queue.Order = next((name for name in get_args(queue.Order) if name == order), "id")
    with instance.db.read() as connection:
        items, total = queue.page(
            connection,
            instance.assistant,
            states=(state,) if state in queue.MOVES else (),
            owner=owner or None,
            text=text,
            order=by,
            falling=falling,
            start=start,
            limit=limit,
        )
        counts = queue.counts(connection, instance.assistant)
        names = queue.owners(connection, instance.assistant)
    return QueuePage(items, total, [name for name, count in counts.items() if count], names)


def owners(instance: Instance) -> list[str]:
    """Every owner of a task, by name."""
    with instance.db.read() as connection:
        return queue.owners(connection, instance.assistant)


def task(instance: Instance, number: int) -> dict[str, Any]:
    """One task in full; null for what was erased, or was not made yet.

    Raises:
        QueueError: there is no such task.
    """
    item = _item(instance, number)
    with instance.db.read() as connection:
        versions = [one for one in candidates.versions(connection, instance.assistant) if one.item == item.id]
    step = progress.read(instance.store, item.package) if item.state in BUSY else None
    return {
        "item": item.to_json(),
        "versions": [version.to_json() for version in versions],
        "far": vars(step) if step else None,
        "about": _about(instance, item),
        "assessment": _assessment(instance, item),
        "cost": costs_of(instance, item),
        "groups": _groups(instance) if item.state == "held" else [],
    }


def reports_of(instance: Instance, number: int) -> dict[str, str]:
    """Digests of a task's reports, by name."""
    return _item(instance, number).reports


def _item(instance: Instance, number: int) -> QueueItem:
    with instance.db.read() as connection:
        return queue.item(connection, number)


def _about(instance: Instance, item: QueueItem) -> dict[str, Any] | None:
    """The fields of its task file, and the rows of each split."""
    if item.task is None:
        return None
    with contextlib.suppress(ObjectMissing):
        snapshot = load_snapshot(instance.store, item.task)
        rows = {split: ref.rows for split, ref in snapshot.splits.items()}
        return {**snapshot.task.model_dump(mode="json"), "rows": rows}
    return None


def _assessment(instance: Instance, item: QueueItem) -> dict[str, Any] | None:
    """Verdicts and reasons of the checks before learning, with the checks that did not pass."""
    if "assessment" not in item.reports:
        return None
    with contextlib.suppress(ObjectMissing):
        record = instance.store.get_json(item.reports["assessment"])
        validation, drift = (instance.store.get_json(record[name]) for name in ("validation", "drift"))
        return {
            "verdict": record["verdict"],
            "reasons": record["reasons"],
            "not_checked": record.get("not_checked", ()),
            "grouping": record["grouping"],
            "validation": validation["verdict"],
            "failed": [check for check in validation["checks"] if not check["success"]],
            "checks": len(validation["checks"]),
            "rows": validation["statistics"]["rows"],
            "drift": drift["verdict"],
            "drift_reasons": drift["reasons"],
            "advice": drift.get("advice", ""),
        }
    return None


def _groups(instance: Instance) -> list[dict[str, Any]]:
    """Groups that a held task may be put into, each with the names of its tasks."""
    base = instance.base()
    groups = instance.pool(base.digest).groups if base else ()
    return [{"id": group.id, "tasks": [entry.name for entry in group.tasks]} for group in groups]
