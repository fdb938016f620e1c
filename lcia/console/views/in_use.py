"""Gateways: which version each answers with, whether it follows the decision, and its traffic and latency."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lcia.console.base import Console


def routes(console: Console) -> APIRouter:
    """/in-use, and /in-use/live: the part of it that changes."""
    router = APIRouter(include_in_schema=False)

    @router.get("/in-use")
    def in_use(request: Request) -> Response:
        reader = console.reader(request)
        return console.page(reader, "in_use.html", gateways=console.ask(reader, "replicas"))

    @router.get("/in-use/live")
    def live(request: Request) -> Response:
        reader = console.reader(request, counted=False)
        return console.fragment(reader, "in_use_live.html", gateways=console.ask(reader, "replicas"))

    return router
