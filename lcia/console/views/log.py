"""The log: who did what to what, one entry with its proof, and files for an auditor to take along."""

from collections.abc import Iterator
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from lcia.console.base import Console, Reader
from lcia.console.labels import NAMES
from lcia.instance import Instance
from lcia.operations import audit, versions

KINDS = tuple(name for name in NAMES if "." in name)
"""Actions that have words of their own."""
FILTERS = ("kind", "person", "subject", "since", "until")
LINES = 1_000
"""Lines of an export that are read at once."""


def routes(console: Console) -> APIRouter:
    """/log and the pages below it."""
    router, instance = APIRouter(include_in_schema=False), console.instance

    @router.get("/log")
    def log(request: Request) -> Response:
        reader, params = _auditor(console, request), request.query_params
        filters = {name: params.get(name, "").strip() for name in FILTERS}
        before = params.get("before", "")
        page = audit.page(instance, **filters, before=int(before) if before.isdecimal() and len(before) < 10 else None)
        query = {name: value for name, value in filters.items() if value}
        return console.page(
            reader,
            "log.html",
            log=page,
            filters=filters,
            is_filtered=bool(query),
            newest="?" + urlencode(query),
            older="?" + urlencode({**query, "before": page["before"]}) if page["before"] else None,
            is_older=bool(before),
            versions=_numbers(instance),
            kinds=KINDS,
        )

    @router.get("/log/verify")
    def verify(request: Request) -> Response:
        reader = console.reader(request)
        result = console.ask(reader, "verify")
        if request.headers.get("hx-request"):
            return console.fragment(reader, "log_verified.html", result=result)
        return console.page(reader, "log_verify.html", result=result)

    @router.get("/log/head")
    def head(request: Request) -> Response:
        answer = console.ask(console.reader(request), "head")
        return _file(answer["signed"].encode(), f"log-{answer['entries']}.head")

    @router.get("/log/{entries:int}.jsonl")
    def export(request: Request, entries: int) -> Response:
        _auditor(console, request)
        audit.need_size(instance, entries)
        headers = _saved_as(f"log-{entries}.jsonl")
        return StreamingResponse(_lines(instance, entries), media_type="application/jsonl", headers=headers)

    @router.get("/log/{entries:int}.jsonl.head")
    def export_head(request: Request, entries: int) -> Response:
        _auditor(console, request)
        return _file(audit.signed_head_at(instance, entries), f"log-{entries}.jsonl.head")

    @router.get("/log/{index:int}")
    def entry(request: Request, index: int) -> Response:
        reader = _auditor(console, request)
        return console.page(reader, "log_entry.html", **audit.entry(instance, index), versions=_numbers(instance))

    @router.get("/log/{index:int}/proof")
    def proof(request: Request, index: int) -> Response:
        answer = console.ask(console.reader(request), "prove", entry=index)
        return _file(answer["proof"].encode(), f"entry-{index}.proof")

    return router


def _auditor(console: Console, request: Request) -> Reader:
    reader = console.reader(request)
    reader.caller.need("audit", None)
    return reader


def _numbers(instance: Instance) -> dict[str, int]:
    """Number of each version by its digest, which the log names."""
    return {row["digest"]: row["number"] for row in versions.rows(instance)}


def _lines(instance: Instance, size: int) -> Iterator[bytes]:
    """The first `size` lines of an export, read in pieces: the log only grows."""
    for start in range(0, size, LINES):
        for line in audit.lines(instance, start, min(LINES, size - start))["lines"]:
            yield f"{line}\n".encode()


def _file(content: bytes, name: str) -> Response:
    return Response(content, media_type="application/json", headers=_saved_as(name))


def _saved_as(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}
