"""Gateways: which version each answers with, whether it follows the decision, traffic and latency, a trial on it."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lcia.console.base import Console, Reader


def routes(console: Console) -> APIRouter:
    """/in-use, and /in-use/live: the part of it that changes."""
    router = APIRouter(include_in_schema=False)

    @router.get("/in-use")
    def in_use(request: Request) -> Response:
        reader = console.reader(request)
        return console.page(reader, "in_use.html", **_values(console, reader))

    @router.get("/in-use/live")
    def live(request: Request) -> Response:
        reader = console.reader(request, counted=False)
        return console.fragment(reader, "in_use_live.html", **_values(console, reader))

    return router


def _values(console: Console, reader: Reader) -> dict[str, Any]:
    """Gateways, and the trial under way on their traffic."""
    trials = console.ask(reader, "trials")["trials"]
    running = [one for one in trials if one["state"] == "under_way" and not one["over"]]
    return {"gateways": console.ask(reader, "replicas"), "trials": running}
