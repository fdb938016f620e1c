"""A task: its way through the pipeline, every verdict and report in place, and what a person can do about it."""

import contextlib
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from components.promotion import candidates
from components.storage.objects import ObjectMissing
from components.tasks import progress, queue
from components.tasks.queue import QueueItem
from components.tasks.snapshot import load_snapshot
from lcia.console.base import Console, Reader
from lcia.console.views import reports
from lcia.operations.costs import costs_of

WAY = ("submitted", "assessing", "learning", "candidate", "promoted")
"""States of a task to which nothing happens, in order."""
REACHED: Mapping[str, int] = {"held": 1, "refused": 1, "nothing_to_learn": 1, "waiting": 1, "failed": 2, "rejected": 3}
"""How far along `WAY` a task was when something did."""


def routes(console: Console) -> APIRouter:
    """/tasks/N, its part that changes, and its reports."""
    router = APIRouter(include_in_schema=False)

    @router.get("/tasks/{number}")
    def task(number: int, request: Request) -> Response:
        reader = console.reader(request)
        return console.page(reader, "task.html", **_told(console, reader, number))

    @router.get("/tasks/{number}/live")
    def live(number: int, request: Request) -> Response:
        reader = console.reader(request)
        return console.fragment(reader, "task_live.html", **_told(console, reader, number))

    @router.get("/tasks/{number}/reports/{name}")
    def report(number: int, name: str, request: Request) -> Response:
        console.reader(request)
        with console.instance.db.read() as connection:
            item = queue.item(connection, number)
        return reports.answer(console.instance.store, item.reports, name)

    return router


def _told(console: Console, reader: Reader, number: int) -> dict[str, Any]:
    instance = console.instance
    with instance.db.read() as connection:
        item = queue.item(connection, number)
        made = [one for one in candidates.versions(connection, instance.assistant) if one.item == item.id]
    return {
        "item": item,
        "way": _way(item),
        "versions": made,
        "far": progress.read(instance.store, item.package) if item.state in ("assessing", "learning") else None,
        "about": _about(console, item),
        "assessment": _assessment(console, item),
        "cost": costs_of(instance, item),
        "pages": reports.listed(item.reports),
        "may_operate": reader.may("operate", item.owner),
        "groups": _groups(console) if item.state == "held" else (),
    }


def _way(item: QueueItem) -> list[tuple[str, str]]:
    """Each station with what it is to the task: done, now, stopped or ahead."""
    at = WAY.index(item.state) if item.state in WAY else REACHED.get(item.state, len(WAY))
    if item.state in ("cancelled", "withdrawn"):
        at = 0
    stopped = item.state not in WAY
    told = []
    for position, state in enumerate(WAY):
        here = "stopped" if stopped else "done" if item.state == "promoted" else "now"
        told.append((state, "done" if position < at else here if position == at else "ahead"))
    return told


def _about(console: Console, item: QueueItem) -> dict[str, Any] | None:
    """What the package says of itself; None once it was erased, or before it was read."""
    if item.task is None:
        return None
    with contextlib.suppress(ObjectMissing):
        snapshot = load_snapshot(console.instance.store, item.task)
        rows = {split: ref.rows for split, ref in snapshot.splits.items()}
        return {"task": snapshot.task, "rows": rows}
    return None


def _assessment(console: Console, item: QueueItem) -> dict[str, Any] | None:
    """Verdicts and reasons of the checks before learning, with the checks that did not pass."""
    store = console.instance.store
    if "assessment" not in item.reports:
        return None
    with contextlib.suppress(ObjectMissing):
        record = store.get_json(item.reports["assessment"])
        checked, drift = store.get_json(record["validation"]), store.get_json(record["drift"])
        return {
            "verdict": record["verdict"],
            "reasons": record["reasons"],
            "not_checked": record.get("not_checked", ()),
            "grouping": record["grouping"],
            "validation": checked["verdict"],
            "failed": [check for check in checked["checks"] if not check["success"]],
            "checks": len(checked["checks"]),
            "rows": checked["statistics"]["rows"],
            "drift": drift["verdict"],
            "drift_reasons": drift["reasons"],
            "advice": drift.get("advice", ""),
        }
    return None


def _groups(console: Console) -> list[tuple[str, str]]:
    """Groups that a held task may be put into, each with its tasks; and a new one."""
    champion = console.instance.champion()
    known = console.instance.pool(champion.digest).groups if champion else ()
    return [*((group.id, ", ".join(entry.name for entry in group.tasks)) for group in known), ("new", "")]
