"""A version: its changes against the one it was made on, the gate's verdicts, and the decision about it."""

from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from components.names import same_person
from lcia.console.base import Console, Reader
from lcia.console.tables import Column, TableQuery, arrange
from lcia.console.views import reports
from lcia.operations import figures, versions
from lcia.operations.reports import pages
from lcia.operations.versions import COMPARED, SEVERITY

SHOWN = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""Policy of an image from a task: shown, and nothing more; the styles are those of the browser's own viewer."""
FIGURES = (("Avg.ACC", "avg_acc"), ("New.ACC", "new_acc"), ("BWT", "bwt"), ("Forgetting", "forgetting"))

Row = Mapping[str, Any]
EARLIER: tuple[Column[Row], ...] = (
    Column("name", "Task", lambda row: row["task"]),
    Column("group", "Group", lambda row: row["group"], pick=True, wide=True),
    Column("verdict", "Verdict", lambda row: SEVERITY.get(row["verdict"], 9)),
    Column("before", "Before", lambda row: row["before"], number=True),
    Column("after", "After", lambda row: row["after"], number=True),
    Column("lost", "Loss", lambda row: row["step"]["value"] if row["step"] else None, number=True,
           hint="Score before minus score after. The bar is its confidence interval, the dashed line the limit."),
    Column("drawn", "", None, wide=True),
    Column("since", "Since first learnt", lambda row: row["lifetime"]["value"] if row["lifetime"] else None,
           number=True, wide=True,
           hint="Loss against the version that first learnt the task: small losses must not add up."),
    Column("drawn_since", "", None, wide=True),
)  # fmt: skip
RULES: tuple[Column[Row], ...] = (
    Column("rule", "Rule", lambda row: row["rule"]),
    Column("verdict", "Verdict", lambda row: SEVERITY.get(row["verdict"], 9)),
    Column("words", "In words", lambda row: row["words"]),
)
CHANGED: tuple[Column[Row], ...] = (
    Column("task", "Task", lambda row: row["task"]),
    Column("rows", "Test rows", lambda row: row["rows"], number=True),
    Column("lost", "Lost", lambda row: row["lost"], number=True, hint="Right before, wrong now."),
    Column("won", "Won", lambda row: row["won"], number=True, hint="Wrong before, right now."),
    Column("negative", "Share lost, at most", lambda row: row["lost_share_at_most"], number=True, wide=True),
)
ANSWERS: tuple[Column[Row], ...] = (
    Column("id", "Answer", lambda row: row["id"]),
    Column("champion", "Champion", lambda row: row["champion"]),
    Column("candidate", "Candidate", lambda row: row["candidate"]),
)
ROWS: tuple[Column[Row], ...] = (
    Column("task", "Task", lambda row: row["task"], pick=True),
    Column("kind", "Lost or won", lambda row: row["kind"], pick=True),
    Column("prompt", "Question", lambda row: row["prompt"]),
    Column("expected", "Expected", lambda row: row["expected"]),
    Column("before", "Before", lambda row: row["before"]),
    Column("after", "After", lambda row: row["after"]),
)


def routes(console: Console) -> APIRouter:
    """/versions/N, the parts of it that take longer, its changed rows, its reports, and answers of its trials."""
    router, instance = APIRouter(include_in_schema=False), console.instance

    @router.get("/versions/{number}")
    def version(number: str, request: Request) -> Response:
        reader = console.reader(request)
        return console.page(reader, "candidate.html", **_values(console, reader, number))

    @router.get("/versions/{number}/changed")
    def changes(number: str, request: Request) -> Response:
        reader, candidate = console.reader(request), versions.get(instance, number)
        counts = versions.change_counts(instance, candidate)
        query = TableQuery("changed", dict(request.query_params), "-lost")
        table = arrange(query, CHANGED, [row for row in counts["tasks"] if row["lost"] or row["won"]])
        return _part(console, reader, "candidate_changed.html", {"version": candidate, "counts": counts, "rows": table})

    @router.get("/versions/{number}/matrix")
    def matrix(number: str, request: Request) -> Response:
        reader, candidate = console.reader(request), versions.get(instance, number)
        accuracy = figures.Line.of(instance, candidate.digest).matrix()
        values = [(label, getattr(accuracy, name)) for label, name in FIGURES]
        return _part(
            console,
            reader,
            "candidate_matrix.html",
            {"version": candidate, "names": accuracy.tasks, "rows": accuracy.rows, "figures": values},
        )

    @router.get("/versions/{number}/flips")
    def flips(number: str, request: Request) -> Response:
        """Texts of changed test rows; every look is entered in the log."""
        reader = console.reader(request)
        answer = console.ask(reader, "flips", version=number)
        rows = [
            {**row, "kind": "lost" if row["score_after"] < row["score_before"] else "won"} for row in answer["flips"]
        ]
        table = arrange(TableQuery("rows", dict(request.query_params), "kind"), ROWS, rows)
        counts = {name: answer[name] for name in ("held_back", "other_sites")}
        return console.page(reader, "flips.html", number=answer["version"], rows=table, **counts)

    @router.get("/versions/{number}/flips/{task}/{digest}")
    def image(number: str, task: str, digest: str, request: Request) -> Response:
        """An image of a changed test row, for those who may look at the row."""
        reader = console.reader(request, counted=False)
        picture = console.ask(reader, "image", version=number, task=task, image=digest)
        headers = {"content-security-policy": SHOWN, "cache-control": "private"}
        return Response(b64decode(picture["content"]), media_type="image/png", headers=headers)

    @router.get("/trials/{trial}/answers")
    def trial_answers(trial: str, request: Request) -> Response:
        """Texts of changed answers on live requests; every look is entered in the log."""
        reader = console.reader(request)
        answer = console.ask(reader, "trial-answers", trial=trial)
        table = arrange(TableQuery("answers", dict(request.query_params), "id"), ANSWERS, answer["answers"])
        values = {name: answer[name] for name in ("trial", "number", "kept_until")}
        return console.page(reader, "trial_answers.html", rows=table, **values)

    @router.get("/versions/{number}/reports/{name}")
    def report(number: str, name: str, request: Request) -> Response:
        console.reader(request)
        return reports.answer(console, instance.evidence(versions.get(instance, number))["reports"], name)

    return router


def _part(console: Console, reader: Reader, template: str, values: Mapping[str, Any]) -> Response:
    """A part where a script asks for it, else a page of its own."""
    if reader.request.headers.get("hx-request"):
        return console.fragment(reader, template, **values)
    return console.page(reader, "part.html", part=template, **values)


def _values(console: Console, reader: Reader, number: str) -> dict[str, Any]:
    """Values of the page: what `lcia show` answers, arranged in tables, and what the reader may do."""
    instance, params = console.instance, dict(reader.request.query_params)
    candidate = versions.get(instance, number)
    about = versions.about(instance, candidate)
    rows = about["gate"]["rows"]
    return {
        **about,
        "new": next((row for row in rows if row["rule"] == "new task"), None),
        "earlier": arrange(TableQuery("prior", params, "verdict"), EARLIER, about["earlier_tasks"]),
        "rules": arrange(
            TableQuery("rules", params, "verdict"), RULES, [row for row in rows if row["rule"] not in COMPARED]
        ),
        "charts": versions.charts(instance, candidate),
        "pages": pages(about["evidence"]["reports"]),
        "models": instance.registry.models_page(),
        **_offers(reader, about["decision"]),
    }


def _offers(reader: Reader, decision: Mapping[str, Any]) -> dict[str, bool]:
    """Deeds that the page offers to its reader; each is checked again when it is done."""
    sites = decision["sites"]
    own = any(same_person(name, reader.name) for name in decision["barred"])
    approvers = [one["person"] for one in decision["given"] if one["counts"]]
    earlier = decision["was_champion"] and not decision["in_use"] and not decision["rolled_away"]
    return {
        "own": own,
        "mine": any(same_person(name, reader.name) for name in approvers),
        "may_decide": reader.may_at("decide", sites),
        "may_revoke": reader.may_at("revoke", sites),
        "can_roll_back": earlier and reader.may_all("roll_back", sites),
        "may_read_rows": reader.may("read_rows") and not own,
        "may_try": reader.may_at("operate", sites),
        "may_approve_trial": reader.may_all("decide", sites),
        "may_read_answers": reader.may_all("read_rows", sites),
    }
