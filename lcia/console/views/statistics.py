"""Numbers for those who do not read test rows: how much was learnt, how fast, at what cost, what was forgotten."""

import csv
import io
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lcia.console.base import Console
from lcia.console.tables import Column, TableQuery, arrange
from lcia.operations.statistics import COLUMNS as FIELDS
from lcia.operations.statistics import LearntTask, measure

COLUMNS: tuple[Column[LearntTask], ...] = (
    Column("task", "Task", lambda row: row.task),
    Column("site", "Site", lambda row: row.site, pick=True, wide=True),
    Column("version", "Version", lambda row: row.version, number=True),
    Column("promoted_at", "In use since", lambda row: row.promoted_at),
    Column("seconds", "Took", lambda row: row.seconds, number=True,
           hint="From submission until its version was in use."),
    Column("cpu_hours", "CPU hours", lambda row: row.cpu_hours, number=True, wide=True),
    Column("gpu_hours", "GPU hours", lambda row: row.gpu_hours, number=True, wide=True),
    Column("money", "Cost", lambda row: row.money, number=True, wide=True),
    Column("score_then", "Score then", lambda row: row.score_then, number=True, hint="Right after it was learnt."),
    Column("score_now", "Score now", lambda row: row.score_now, number=True, hint="In the version in use."),
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a text that a spreadsheet would work out."""


def routes(console: Console) -> APIRouter:
    """/numbers and /numbers.csv."""
    router = APIRouter(include_in_schema=False)

    @router.get("/numbers")
    def numbers(request: Request) -> Response:
        reader, measures = console.reader(request), measure(console.instance)
        query = TableQuery("learnt", dict(request.query_params), "-promoted_at")
        return console.page(
            reader,
            "numbers.html",
            measures=measures,
            tasks=arrange(query, COLUMNS, measures.tasks),
            means=[(point.version, point.mean) for point in measures.history],
            changes=[(point.version, point.bwt) for point in measures.history if point.bwt is not None],
        )

    @router.get("/numbers.csv")
    def sheet(request: Request) -> Response:
        console.reader(request)
        text = io.StringIO()
        rows = csv.writer(text)
        rows.writerow(FIELDS)
        for row in measure(console.instance).tasks:
            rows.writerow([_cell(getattr(row, name)) for name in FIELDS])
        headers = {"content-disposition": 'attachment; filename="tasks-learnt.csv"'}
        return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)

    return router


def _cell(value: Any) -> Any:  # noqa: ANN401 - what a field of `LearntTask` holds
    """A value as a spreadsheet should take it: texts never as formulas."""
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
