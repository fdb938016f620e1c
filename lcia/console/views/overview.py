"""The first page: what is in use, what waits for people, what is being learnt, and every task."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, get_args

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from sqlalchemy import Connection

from components.audit import log
from components.errors import LciaError
from components.identity import appointments
from components.names import same_person
from components.promotion import candidates, champion, policy, quorum
from components.promotion.candidates import Candidate
from components.registry import outbox
from components.storage import leases, rounds
from components.tasks import progress, queue
from components.tasks.queue import QueueItem
from lcia.console.base import Console, Reader
from lcia.console.tables import PAGE, Asked, Column, Table
from lcia.instance import Instance
from lcia.operations import delivery, relocation
from lcia.service.streams import Look, Slots, Stream

COLUMNS: tuple[Column[QueueItem], ...] = (
    Column("id", "No.", lambda item: item.id, number=True),
    Column("name", "Task", lambda item: item.name),
    Column("state", "State", lambda item: item.state, pick=True),
    Column("reason", "Why", None, wide=True),
    Column("owner", "Site", lambda item: item.owner, pick=True, wide=True),
    Column("submitted_at", "Handed in", lambda item: item.submitted_at),
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
        asked = Asked("tasks", dict(request.query_params), "-id")
        with console.instance.db.read() as connection:
            values = {**_present(console, connection), **_live(console, reader, connection)}
            tasks = task_table(console, connection, asked)
        return console.page(reader, "overview.html", tasks=tasks, **values)

    @router.get("/tasks")
    def tasks(request: Request) -> Response:
        reader = console.reader(request)
        asked = Asked("tasks", dict(request.query_params), "-id")
        with console.instance.db.read() as connection:
            table = task_table(console, connection, asked)
        return console.page(reader, "tasks.html", tasks=table)

    @router.get("/live")
    def live(request: Request) -> Response:
        reader = console.reader(request)
        with console.instance.db.read() as connection:
            values = _live(console, reader, connection)
        return console.fragment(reader, "live.html", **values)

    serve = console.instance.settings.serve
    places = Slots("pages that watch for changes", serve.streams_each, serve.streams)
    look = Look(partial(_fingerprint, console.instance), EVERY)

    @router.get("/events")
    async def events(request: Request) -> Response:
        reader = await run_in_threadpool(console.reader, request)
        places.take(reader.name)
        return Stream(_changes(console, request, look), places, reader.name)

    return router


def task_table(console: Console, connection: Connection, asked: Asked) -> Table[QueueItem]:
    """A page of all tasks, made by the database."""
    state = asked.get("state")
    items, total = queue.page(
        connection,
        console.instance.assistant,
        states=(state,) if state in queue.MOVES else (),
        owner=asked.get("owner") or None,
        text=asked.text,
        order=asked.sort if asked.sort in get_args(queue.Order) else "id",
        falling=asked.falling,
        start=(asked.page - 1) * PAGE,
    )
    counts = queue.counts(connection, console.instance.assistant)
    choices = {
        "state": [name for name, count in counts.items() if count],
        "owner": queue.owners(connection, console.instance.assistant),
    }
    return Table(asked, COLUMNS, items, total, choices)


def _present(console: Console, connection: Connection) -> dict[str, Any]:
    """The champion and the latest decisions about it."""
    name = console.instance.assistant
    now = champion.current(connection, name)
    decided = champion.lineage(connection, name)[-LATEST:][::-1]
    numbers = {one.version: candidates.get(connection, name, one.version) for one in decided}
    values: dict[str, Any] = {
        "now": now,
        "served": delivery.served(console.instance, now),
        "version": None,
        "groups": (),
        "scores": {},
    }
    if now is not None:
        version = numbers.get(now.version) or candidates.get(connection, name, now.version)
        evaluation = console.instance.store.get_json(str(console.instance.evidence(version)["evaluation"]))
        values |= {
            "version": version,
            "groups": console.instance.pool(now.version).groups,
            "scores": evaluation["scores"],
        }
    return {**values, "decided": [(one, numbers[one.version]) for one in decided]}


def _live(console: Console, reader: Reader, connection: Connection) -> dict[str, Any]:
    """What changes while somebody watches: the work under way, and what waits for people."""
    instance, name = console.instance, console.instance.assistant
    busy = queue.items(connection, name, ("assessing", "learning"))
    held = queue.items(connection, name, ("held",))
    undecided = candidates.versions(connection, name, "pending")
    worker = next((one for one in leases.standing(connection) if one.name == f"lineage:{name}"), None)
    undelivered = outbox.backlog(connection, name)
    proposed = [one for one in policy.proposals(connection, name) if one.state == "open"]
    return {
        "busy": [(item, progress.read(instance.store, item.package)) for item in busy],
        "waiting": [(version, _approvals(console, reader, connection, version)) for version in undecided],
        "held": held,
        "proposed": proposed if reader.may("administer") else [],
        "appointments": appointments.waiting(connection) if reader.may("administer") else [],
        "counts": {state: count for state, count in queue.counts(connection, name).items() if count},
        "worker": worker,
        "untold": len(undelivered),
        "parked": [row for row in undelivered if row.parked_at is not None],
        "moved": relocation.moved(instance),
        "failing": rounds.failing(connection),
    }


def _approvals(console: Console, reader: Reader, connection: Connection, version: Candidate) -> dict[str, Any]:
    """How far a version is decided about, and what the reader can do about it."""
    rules = policy.standing(connection, console.instance.assistant, console.instance.settings.policy).approval
    given = quorum.valid(connection, version, rules)
    own = quorum.bars(version, reader.name, rules)
    sites = candidates.sites(connection, version)
    done = any(same_person(one.person, reader.name) for one in given)
    needed = max(quorum.quorum_at(version, rules, site) for site in sites)
    return {"given": given, "quorum": needed, "yours": reader.may_at("decide", sites) and not own and not done}


async def _changes(console: Console, request: Request, look: Look) -> AsyncIterator[str]:
    """A `changed` event whenever the state is not what it was; ends when the reader's sign-in does."""
    seen, began = "", time.monotonic()
    checked = told = began
    while (moment := time.monotonic()) < began + LONGEST:
        try:
            if moment >= checked + STILL:
                await run_in_threadpool(console.still, request)
                checked = moment
            now = await look.value()
        except LciaError:  # signed out, shut out, or the database is away: the browser asks again
            return
        if now != seen and seen:
            yield f"event: changed\ndata: {now}\n\n"
            told = moment
        elif moment >= told + HERE or not seen:
            yield ": still here\n\n"
            told = moment
        seen = now
        await asyncio.sleep(EVERY)


def _fingerprint(instance: Instance) -> str:
    """Changes when anything that `live` shows does."""
    with instance.db.read() as connection:
        busy = queue.items(connection, instance.assistant, ("assessing", "learning"))
        size = log.count(connection)
    steps = [progress.read(instance.store, item.package) for item in busy]
    return "-".join([str(size), *(f"{one.what}{one.done}" if one else "" for one in steps)]).replace(" ", "")
