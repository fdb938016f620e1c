"""The first page: the champion, the versions that wait for people, the work under way, and every task."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from components.errors import LciaError
from components.names import same_person
from lcia.console.base import Console, Reader
from lcia.console.tables import PAGE, Column, Table, TableQuery
from lcia.operations import figures, queue, status, versions
from lcia.service.streams import Look, Slots, Stream

COLUMNS: tuple[Column[Any], ...] = (
    Column("id", "No.", lambda item: item.id, number=True),
    Column("name", "Task", lambda item: item.name),
    Column("state", "State", lambda item: item.state, pick=True),
    Column("reason", "Why", None, wide=True),
    Column("owner", "Site", lambda item: item.owner, pick=True, wide=True),
    Column("submitted_at", "Submitted", lambda item: item.submitted_at),
    Column("changed_at", "Last change", lambda item: item.changed_at, wide=True),
)
LATEST = 5
"""Decisions about the champion that the page lists."""
EVERY, LONGEST = 2.0, 600.0
"""Seconds between two looks for changes, and after which the browser has to ask anew."""
STILL, HERE = 10.0, 15.0
"""Seconds between two looks at whether the reader is signed in, and between two signs of life."""


def routes(console: Console) -> APIRouter:
    """/, /tasks, /live and /events."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def overview(request: Request) -> Response:
        reader = console.reader(request)
        values = {**_present(console), **_live(console, reader)}
        return console.page(reader, "overview.html", tasks=_task_table(console, request), **values)

    @router.get("/tasks")
    def tasks(request: Request) -> Response:
        reader = console.reader(request)
        return console.page(reader, "tasks.html", tasks=_task_table(console, request))

    @router.get("/live")
    def live(request: Request) -> Response:
        reader = console.reader(request)
        return console.fragment(reader, "live.html", **_live(console, reader))

    serve = console.instance.settings.serve
    places = Slots("pages that watch for changes", serve.streams_each, serve.streams)
    look = Look(partial(status.fingerprint, console.instance), EVERY)

    @router.get("/events")
    async def events(request: Request) -> Response:
        reader = await run_in_threadpool(console.reader, request)
        places.take(reader.name)
        return Stream(_changes(console, request, look), places, reader.name)

    return router


def _task_table(console: Console, request: Request) -> Table[Any]:
    """A page of all tasks, made by the database."""
    query = TableQuery("tasks", dict(request.query_params), "-id")
    page = queue.page(
        console.instance,
        state=query.get("state"),
        owner=query.get("owner"),
        text=query.text,
        order=query.sort,
        falling=query.falling,
        start=(query.page - 1) * PAGE,
        limit=PAGE,
    )
    return Table(query, COLUMNS, page.items, page.total, {"state": page.states, "owner": page.owners})


def _present(console: Console) -> dict[str, Any]:
    """The champion and the latest decisions about it."""
    now = status.champion_now(console.instance)
    numbers = {row["digest"]: row["number"] for row in versions.rows(console.instance)}
    latest = versions.promotions(console.instance)[-LATEST:][::-1]
    return {
        "champion": now,
        "avg_acc": figures.avg_acc(console.instance, now["digest"]) if now else None,
        "latest": [{**promotion, "number": numbers[promotion["version"]]} for promotion in latest],
    }


def _live(console: Console, reader: Reader) -> dict[str, Any]:
    """Everything that changes while somebody watches, with what the reader can decide."""
    values = status.live(console.instance, proposals=reader.may("administer"))
    waiting = [{**version, "yours": _yours(reader, version["decision"])} for version in values["waiting"]]
    return {**values, "waiting": waiting}


def _yours(reader: Reader, decision: dict[str, Any]) -> bool:
    """True if the reader may approve a version, and has not yet."""
    approvers = [one["person"] for one in decision["given"] if one["counts"]]
    away = any(same_person(name, reader.name) for name in (*decision["barred"], *approvers))
    return reader.may_at("decide", decision["sites"]) and not away


async def _changes(console: Console, request: Request, look: Look) -> AsyncIterator[str]:
    """A `changed` event whenever the state is not what it was; ends when the reader's sign-in does."""
    last, began = "", time.monotonic()
    checked_at = spoke_at = began
    while (moment := time.monotonic()) < began + LONGEST:
        try:
            if moment >= checked_at + STILL:
                await run_in_threadpool(console.still, request)
                checked_at = moment
            now = await look.value()
        except LciaError:  # signed out, shut out, or the database is away: the browser asks again
            return
        if now != last and last:
            yield f"event: changed\ndata: {now}\n\n"
            spoke_at = moment
        elif moment >= spoke_at + HERE or not last:
            yield ": still here\n\n"
            spoke_at = moment
        last = now
        await asyncio.sleep(EVERY)
