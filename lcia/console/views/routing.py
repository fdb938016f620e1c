"""The page that says which task would answer a request; nobody answers it."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from components.errors import LciaError
from lcia.console.base import Console, Reader, form_of
from lcia.console.views.ask import LONGEST, OFFERED


def routes(console: Console) -> APIRouter:
    """/route."""
    router = APIRouter(include_in_schema=False)

    @router.get("/route")
    def empty(request: Request) -> Response:
        reader = console.reader(request)
        return console.page(reader, "routing.html", **_values(console, reader, dict(request.query_params)))

    @router.post("/route")
    async def answer(request: Request) -> Response:
        reader = await run_in_threadpool(console.reader, request)
        fields = await form_of(request)
        return await run_in_threadpool(_answer, console, reader, fields)

    return router


def _answer(console: Console, reader: Reader, fields: dict[str, str]) -> Response:
    values = _values(console, reader, fields)
    request_fields = {
        "instruction": fields.get("instruction", "").strip(),
        "input": fields.get("input", "").strip() or None,
    }
    try:
        answer = console.ask(reader, "route", requests=[request_fields], version=fields.get("version") or None)
    except LciaError as error:
        return console.page(reader, "routing.html", 400, **{**values, "why": str(error)})
    return console.page(
        reader, "routing.html", **{**values, "version": answer["version"], "route": answer["routes"][0]}
    )


def _values(console: Console, reader: Reader, fields: dict[str, str]) -> dict[str, Any]:
    """The form as it was sent, and what may be chosen."""
    entries = console.ask(reader, "candidates")["candidates"]
    values = {"fields": fields, "versions": entries[: -OFFERED - 1 : -1], "longest": LONGEST}
    return {**values, "why": "", "version": None, "route": None}
