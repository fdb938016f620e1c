"""Every version ever proposed: the graph of what was made on what, who decided, and the way back."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup

from lcia.console import svg
from lcia.console.base import Console
from lcia.console.tables import Column, Table, TableQuery, arrange
from lcia.operations import versions as operation


@dataclass(frozen=True)
class Row:
    """A version with what stands beside it."""

    version: Mapping[str, Any]
    """As `lcia candidates` lists it."""
    state: str
    """Its state; `champion` for the one in use, `earlier` for those that were."""
    promotion: Mapping[str, Any] | None
    """The newest decision that made it the champion."""
    graph: Markup

    @property
    def at(self) -> str:
        """Time at which its state was reached."""
        return str(self.promotion["at"] if self.promotion else self.version["changed_at"])


COLUMNS: tuple[Column[Row], ...] = (
    Column("pick", ""),
    Column("number", "Version", lambda row: row.version["number"]),
    Column("state", "State", lambda row: row.state, pick=True),
    Column("task", "Learnt", lambda row: row.version["task_name"]),
    Column("verdict", "Gate", lambda row: row.version["verdict"], pick=True),
    Column("by", "Decided by", None, wide=True),
    Column("at", "When", lambda row: row.at),
    Column("made_on", "Made on", lambda row: row.version["made_on"], number=True, wide=True),
    Column("marks", "Marks", lambda row: ", ".join(row.version["marks"]), wide=True,
           hint="Remarks on what is unusual about a version, such as an approval against the gate."),
)  # fmt: skip


def routes(console: Console) -> APIRouter:
    """/versions."""
    router = APIRouter(include_in_schema=False)

    @router.get("/versions")
    def versions(request: Request) -> Response:
        reader, instance = console.reader(request), console.instance
        entries, now = operation.rows(instance), operation.champion_number(instance)
        champion = next((entry for entry in entries if entry["number"] == now), None)
        line = operation.ancestors(instance, champion["digest"])[::-1] if champion else []
        rows = _rows(entries, operation.promotions(instance), line)
        table = arrange(TableQuery("versions", dict(request.query_params), "-number"), COLUMNS, rows)
        votes = operation.approvals_of(instance, {row.version["digest"] for row in table.rows})
        return console.page(
            reader,
            "versions.html",
            versions=table,
            people={row.version["digest"]: _people(row, votes[row.version["digest"]]) for row in table.rows},
            lined_up=_lined_up(table),
            now=champion,
            counts=Counter(row.state for row in rows),
            earlier=[row.version for row in rows if row.version["digest"] in line[1:]],
            chosen=request.query_params.get("back", ""),
        )

    return router


def _rows(
    entries: Sequence[Mapping[str, Any]], promotions: Sequence[Mapping[str, Any]], line: Sequence[str]
) -> list[Row]:
    """All versions, newest first, each with its piece of the graph; `line` is the champion and its ancestors."""
    newest = sorted(entries, key=lambda entry: -entry["number"])
    latest = {promotion["version"]: promotion for promotion in promotions}
    graph = svg.lanes([(entry["digest"], entry["parent"]) for entry in newest], line)
    champion = line[0] if line else None
    return [
        Row(
            entry,
            "champion" if entry["digest"] == champion else "earlier" if entry["digest"] in latest else entry["state"],
            latest.get(entry["digest"]),
            piece,
        )
        for entry, piece in zip(newest, graph, strict=True)
    ]


def _people(row: Row, votes: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Everybody whose yes or no stands, once each; the promoter where nobody had to approve."""
    if row.version["state"] == "superseded":
        return []
    newest = {one["person"]: one for one in votes if not one["revoked"]}
    promoter = [{"person": row.promotion["by"], "verdict": "approve", "why_not": ""}] if row.promotion else []
    return [*newest.values()] or promoter


def _lined_up(table: Table[Row]) -> bool:
    """True if the rows stand as the graph was drawn: all of them, newest first."""
    return table.query.sort == "number" and table.query.falling and not table.is_filtered
