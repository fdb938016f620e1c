"""The log: who did what to what, one entry with its proof, and what an auditor takes along."""

from collections.abc import Iterator
from datetime import datetime
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from components.audit import browsing
from components.audit import log as entries
from components.audit.browsing import EntryFilter
from components.promotion import candidates
from lcia.console.base import Console, Reader
from lcia.console.labels import NAMES
from lcia.instance import Instance
from lcia.operations import audit
from lcia.operations.params import FilterUnknown

KINDS = tuple(name for name in NAMES if "." in name)
"""Actions that have words of their own."""
FILTERS = ("kind", "person", "subject", "since", "until")
LINES = 1_000
"""Lines of an export that are read at once."""


def routes(console: Console) -> APIRouter:
    """/log and what lies below it."""
    router = APIRouter(include_in_schema=False)

    @router.get("/log")
    def log(request: Request) -> Response:
        reader = _auditor(console, request)
        asked = {name: request.query_params.get(name, "").strip() for name in FILTERS}
        before = request.query_params.get("before", "")
        wanted = _wanted(asked)
        with console.instance.db.read() as connection:
            size = entries.count(connection)
            found = browsing.page(connection, wanted, int(before) if before.isdecimal() and len(before) < 10 else None)
            versions = {one.digest: one.number for one in candidates.versions(connection, console.instance.assistant)}
        kept = {name: value for name, value in asked.items() if value}
        return console.page(
            reader,
            "log.html",
            found=found,
            size=size,
            asked=asked,
            filtered=bool(kept),
            newest="?" + urlencode(kept),
            older="?" + urlencode({**kept, "before": found.before}) if found.before else None,
            paged=bool(before),
            versions=versions,
            kinds=KINDS,
        )

    @router.get("/log/verify")
    def verify(request: Request) -> Response:
        reader = console.reader(request)
        found = console.ask(reader, "verify")
        if request.headers.get("hx-request"):
            return console.fragment(reader, "log_verified.html", verified=found)
        return console.page(reader, "log_verify.html", verified=found)

    @router.get("/log/head")
    def head(request: Request) -> Response:
        found = console.ask(console.reader(request), "head")
        return _file(found["signed"].encode(), f"log-{found['entries']}.head")

    @router.get("/log/{entries:int}.jsonl")
    def export(request: Request, entries: int) -> Response:
        _auditor(console, request)
        with console.instance.db.read() as connection:
            browsing.head_of(connection, entries)
        return StreamingResponse(
            _lines(console.instance, entries), media_type="application/jsonl", headers=_saved_as(f"log-{entries}.jsonl")
        )

    @router.get("/log/{entries:int}.jsonl.head")
    def export_head(request: Request, entries: int) -> Response:
        _auditor(console, request)
        key = console.instance.signing_key()
        with console.instance.db.read() as connection:
            signed = key.sign(browsing.head_of(connection, entries))
        return _file(signed, f"log-{entries}.jsonl.head")

    @router.get("/log/{index:int}")
    def entry(request: Request, index: int) -> Response:
        reader = _auditor(console, request)
        with console.instance.db.read() as connection:
            found, body = browsing.entry(connection, index)
            size = entries.count(connection)
            versions = {one.digest: one.number for one in candidates.versions(connection, console.instance.assistant)}
        return console.page(
            reader, "log_entry.html", entry=found, body=body.decode(errors="replace"), size=size, versions=versions
        )

    @router.get("/log/{index:int}/proof")
    def proof(request: Request, index: int) -> Response:
        found = console.ask(console.reader(request), "prove", entry=index)
        return _file(found["proof"].encode(), f"entry-{index}.proof")

    return router


def _auditor(console: Console, request: Request) -> Reader:
    reader = console.reader(request)
    reader.caller.need("audit", None)
    return reader


def _wanted(asked: dict[str, str]) -> EntryFilter:
    """The filters of an address.

    Raises:
        FilterUnknown: a day that is none.
    """
    days: dict[str, datetime | None] = {}
    for name in ("since", "until"):
        try:
            days[name] = browsing.day(asked[name], end=name == "until") if asked[name] else None
        except ValueError:
            raise FilterUnknown(f"{asked[name]!r} is no day, expected one such as 2026-01-31") from None
    return EntryFilter(asked["kind"], asked["person"], asked["subject"], days["since"], days["until"])


def _lines(instance: Instance, size: int) -> Iterator[bytes]:
    """The first `size` lines of an export, read in pieces: the log only grows."""
    for start in range(0, size, LINES):
        for line in audit.lines(instance, start, min(LINES, size - start))["lines"]:
            yield f"{line}\n".encode()


def _file(content: bytes, name: str) -> Response:
    return Response(content, media_type="application/json", headers=_saved_as(name))


def _saved_as(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}
