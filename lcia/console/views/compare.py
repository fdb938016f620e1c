"""Two versions side by side: what one has that the other has not, and how each common task fares."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from components.errors import LciaError
from components.promotion import candidates
from lcia.console.base import Console
from lcia.console.tables import Asked, Column, arranged

MOST = 100
"""Versions that MLflow's page is asked to compare at once."""
COLUMNS: tuple[Column[Mapping[str, Any]], ...] = (
    Column("task", "Task", lambda row: row["task"]),
    Column("before", "Before", lambda row: row["before"], number=True),
    Column("after", "After", lambda row: row["after"], number=True),
    Column("gain", "Change", lambda row: row["gain"], number=True),
    Column("interval", "", None, hint="The change with its 95%% interval; the dashed line is what one step may lose."),
    Column("lost", "Lost", lambda row: row["lost"], number=True, hint="Test rows that were right before."),
    Column("won", "Won", lambda row: row["won"], number=True, hint="Test rows that were wrong before."),
    Column("reworded", "Reworded", lambda row: row["reworded"], number=True, wide=True,
           hint="Test rows answered in other words, for the same score."),
    Column("rows", "Rows", lambda row: row["rows"], number=True, wide=True),
)  # fmt: skip


class NoMlflowPages(LciaError):
    """MLflow has no pages to lead to."""


def routes(console: Console) -> APIRouter:
    """/compare and /compare/mlflow."""
    router = APIRouter(include_in_schema=False)

    @router.get("/compare")
    def compare(request: Request) -> Response:
        reader, asked = console.reader(request), request.query_params
        with console.instance.db.read() as connection:
            known = candidates.versions(connection, console.instance.assistant)
        picked = sorted(int(number) for number in set(asked.getlist("v")) if number.isdecimal() and len(number) < 10)
        before, after = asked.get("before") or None, asked.get("after") or None
        if len(picked) >= 2:
            before, after = str(picked[0]), str(picked[-1])
        elif picked:
            before = str(picked[0])
        found = console.ask(reader, "diff", before=before, after=after) if before else None
        table = arranged(Asked("scores", dict(asked), "gain"), COLUMNS, found["scores"]) if found else None
        return console.page(
            reader,
            "compare.html",
            known=known[::-1],
            found=found,
            scores=table,
            picked=picked,
            champion=now.number if (now := console.instance.champion()) else None,
            margin=console.instance.current().settings.policy.gate.step_margin,
            mlflow=console.instance.registry.models_page() is not None,
        )

    @router.get("/compare/mlflow")
    def mlflow(request: Request) -> Response:
        console.reader(request)
        instance = console.instance
        chosen = [
            version for number in request.query_params.getlist("v")[:MOST] if (version := instance.version(number))
        ]
        page = instance.registry.compare_page([version.digest for version in chosen])
        if page is None or not chosen:
            raise NoMlflowPages("MLflow is a database here, not a server with pages; `mlflow ui` shows it")
        return RedirectResponse(page, 303)

    return router
