"""Every version ever proposed: the graph of what was made on what, who decided, and the way back."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup

from components.promotion import candidates, champion, quorum
from components.promotion.candidates import Candidate
from components.promotion.champion import Promotion
from lcia.console import svg
from lcia.console.base import Console
from lcia.console.tables import Asked, Column, Table, arranged


@dataclass(frozen=True)
class Row:
    """A version with what stands beside it."""

    version: Candidate
    made_on: int | None
    """Number of the version that it was made on."""
    state: str
    """Its state; `champion` for the one in use, `earlier` for those that were."""
    decided: Promotion | None
    """The newest decision that made it the champion."""
    graph: Markup

    @property
    def at(self) -> datetime:
        """When its state was reached."""
        return self.decided.at if self.decided else self.version.changed_at


COLUMNS: tuple[Column[Row], ...] = (
    Column("pick", ""),
    Column("number", "Version", lambda row: row.version.number),
    Column("state", "State", lambda row: row.state, pick=True),
    Column("task", "Learnt", lambda row: row.version.task_name),
    Column("verdict", "Gate", lambda row: row.version.verdict, pick=True),
    Column("by", "Decided by", None, wide=True),
    Column("at", "When", lambda row: row.at),
    Column("made_on", "Made on", lambda row: row.made_on, number=True, wide=True),
    Column("marks", "Marks", lambda row: ", ".join(row.version.marks), wide=True,
           hint="What makes a version less than ordinary, such as a decision in spite of the gate."),
)  # fmt: skip


def routes(console: Console) -> APIRouter:
    """/versions."""
    router = APIRouter(include_in_schema=False)

    @router.get("/versions")
    def versions(request: Request) -> Response:
        reader, name = console.reader(request), console.instance.assistant
        asked = Asked("versions", dict(request.query_params), "-number")
        with console.instance.db.read() as connection:
            known = candidates.versions(connection, name)
            decisions = champion.lineage(connection, name)
            now = champion.current(connection, name)
            rows = _rows(known, decisions, now.version if now else None)
            table = arranged(asked, COLUMNS, rows)
            people = {row.version.digest: _people(row, quorum.answers(connection, row.version)) for row in table.rows}
            below = {one.digest for one in candidates.ancestors(connection, now.version)} if now else set()
        return console.page(
            reader,
            "versions.html",
            versions=table,
            people=people,
            lined_up=_lined_up(table),
            now=next((one for one in known if now is not None and one.digest == now.version), None),
            counts=Counter(row.state for row in rows),
            earlier=[one for one in reversed(known) if one.digest in below and one.digest != (now and now.version)],
            chosen=request.query_params.get("back", ""),
        )

    return router


def _rows(known: Sequence[Candidate], decisions: Sequence[Promotion], now: str | None) -> list[Row]:
    """All versions, newest first, each with its piece of the graph."""
    newest = sorted(known, key=lambda one: -one.number)
    by_digest = {one.digest: one for one in known}
    latest = {one.version: one for one in decisions}
    line, at = [], now
    while at is not None and at in by_digest:
        line.append(at)
        at = by_digest[at].parent
    graph = svg.lanes([(one.digest, one.parent) for one in newest], line)
    return [
        Row(
            one,
            by_digest[one.parent].number if one.parent in by_digest else None,
            "champion" if one.digest == now else "earlier" if one.digest in latest else one.state,
            latest.get(one.digest),
            piece,
        )
        for one, piece in zip(newest, graph, strict=True)
    ]


def _people(row: Row, given: Sequence[quorum.Approval]) -> Mapping[str, str]:
    """Who said yes or no, once each, to their newest word; whoever promoted where nobody had to."""
    if row.version.state == "superseded":
        return {}
    spoken = {one.person: one.verdict for one in given if one.revoked_at is None}
    return spoken or ({row.decided.by: "approve"} if row.decided else {})


def _lined_up(table: Table[Row]) -> bool:
    """Whether the rows stand as the graph was drawn: all of them, newest first."""
    return table.asked.sort == "number" and table.asked.falling and not table.filtered
