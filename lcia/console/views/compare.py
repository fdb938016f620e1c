"""Two versions side by side: what one has that the other has not, and how each common task fares."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from components.errors import LciaError
from lcia.console.base import Console
from lcia.console.tables import Column, TableQuery, arrange
from lcia.operations import versions

MOST = 100
"""Versions that MLflow's page is asked to compare at once."""
COLUMNS: tuple[Column[Mapping[str, Any]], ...] = (
    Column("task", "Task", lambda row: row["task"]),
    Column("before", "Before", lambda row: row["before"], number=True),
    Column("after", "After", lambda row: row["after"], number=True),
    Column("gain", "Change", lambda row: row["gain"], number=True),
    Column("interval", "", None, hint="The change with its 95%% interval; the dashed line is the limit of one step."),
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
    router, instance = APIRouter(include_in_schema=False), console.instance

    @router.get("/compare")
    def compare(request: Request) -> Response:
        reader, params = console.reader(request), request.query_params
        picks = sorted(int(number) for number in set(params.getlist("v")) if number.isdecimal() and len(number) < 10)
        before, after = params.get("before") or None, params.get("after") or None
        if len(picks) >= 2:
            before, after = str(picks[0]), str(picks[-1])
        elif picks:
            before = str(picks[0])
        diff = console.ask(reader, "diff", before=before, after=after) if before else None
        table = arrange(TableQuery("scores", dict(params), "gain"), COLUMNS, diff["scores"]) if diff else None
        return console.page(
            reader,
            "compare.html",
            versions=versions.rows(instance)[::-1],
            diff=diff,
            scores=table,
            picks=picks,
            champion=versions.champion_number(instance),
            margin=instance.current().settings.policy.gate.step_margin,
            mlflow=instance.registry.models_page() is not None,
        )

    @router.get("/compare/mlflow")
    def mlflow(request: Request) -> Response:
        console.reader(request)
        numbers = request.query_params.getlist("v")[:MOST]
        page = instance.registry.compare_page([versions.get(instance, number).digest for number in numbers if number])
        if page is None or not numbers:
            raise NoMlflowPages("MLflow is a database here, not a server with pages; `mlflow ui` shows it")
        return RedirectResponse(page, 303)

    return router
