"""A task: its way through the pipeline, every verdict and report in place, and what a person can do about it."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lcia.console.base import Console, Reader
from lcia.console.views import reports
from lcia.operations import queue
from lcia.operations.reports import pages

WAY = ("submitted", "assessing", "learning", "candidate", "promoted")
"""States of a task that meets no obstacle, in order."""
REACHED: Mapping[str, int] = {"held": 1, "refused": 1, "nothing_to_learn": 1, "waiting": 1, "failed": 2, "rejected": 3}
"""Position on `WAY` of a task that met one, by its state."""


def routes(console: Console) -> APIRouter:
    """/tasks/N, its part that changes, and its reports."""
    router = APIRouter(include_in_schema=False)

    @router.get("/tasks/{number}")
    def task(number: int, request: Request) -> Response:
        reader = console.reader(request)
        return console.page(reader, "task.html", **_values(console, reader, number))

    @router.get("/tasks/{number}/live")
    def live(number: int, request: Request) -> Response:
        reader = console.reader(request)
        return console.fragment(reader, "task_live.html", **_values(console, reader, number))

    @router.get("/tasks/{number}/reports/{name}")
    def report(number: int, name: str, request: Request) -> Response:
        console.reader(request)
        return reports.answer(console, queue.reports_of(console.instance, number), name)

    return router


def _values(console: Console, reader: Reader, number: int) -> dict[str, Any]:
    task = queue.task(console.instance, number)
    item = task["item"]
    return {
        **task,
        "way": _way(item["state"]),
        "pages": pages(item["reports"]),
        "may_operate": reader.may("operate", item["owner"]),
    }


def _way(state: str) -> list[tuple[str, str]]:
    """Each station with what it is to a task in `state`: done, now, stopped or ahead."""
    here = WAY.index(state) if state in WAY else REACHED.get(state, len(WAY))
    if state in ("cancelled", "withdrawn"):
        here = 0
    kind = "stopped" if state not in WAY else "done" if state == "promoted" else "now"
    return [
        (station, "done" if position < here else kind if position == here else "ahead")
        for position, station in enumerate(WAY)
    ]
