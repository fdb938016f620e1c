"""A version: what it changes against the one it was made on, what the gate says, and the decision about it."""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy import Connection

from components.errors import GateRefused
from components.evaluation.history import curve_points, flip_counts
from components.evaluation.reports import FlipCount
from components.evaluation.scored import present_scores
from components.gate.report import present_form
from components.names import same_person
from components.promotion import approvals, candidates, champion, judging, policy, quorum
from components.promotion.candidates import Candidate
from components.settings import ApprovalSettings, GateSettings
from components.storage.objects import ObjectMissing, ObjectStore
from components.tasks import queue
from components.tuning.progress_curves import curves
from lcia.console.base import Console, Reader
from lcia.console.tables import Asked, Column, Table, arranged
from lcia.console.views import reports
from lcia.operations.costs import costs_of
from lcia.operations.statistics import line

COMPARED = ("step", "lifetime", "unchanged", "not measurable", "superseded", "not taught")
"""Rules of the gate that are about one prior task; the others are about the version."""
SEVERITY = {"fail": 0, "inconclusive": 1, "info": 2, "pass": 3}
SHOWN = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""Policy of an image from a task: shown, and nothing more; the styles are those of the browser's own viewer."""
REMEMBERED = 64
"""Immutable records that are kept read, by digest."""


@dataclass(frozen=True)
class Prior:
    """One prior task, before and after."""

    name: str
    group: str
    before: float | None
    after: float | None
    step: Mapping[str, Any] | None
    """The gate's row against the champion."""
    lifetime: Mapping[str, Any] | None
    """The gate's row against the version that first learnt it."""
    verdict: str
    words: Mapping[str, Any]
    """The row that says most about it."""


PRIOR: tuple[Column[Prior], ...] = (
    Column("name", "Task", lambda one: one.name),
    Column("group", "Group", lambda one: one.group, pick=True, wide=True),
    Column("verdict", "Verdict", lambda one: SEVERITY.get(one.verdict, 9)),
    Column("before", "Before", lambda one: one.before, number=True),
    Column("after", "After", lambda one: one.after, number=True),
    Column("lost", "Lost", lambda one: one.step["value"] if one.step else None, number=True,
           hint="Score before minus score after; the bar is its interval, the dashed line what is allowed."),
    Column("drawn", "", None, wide=True),
    Column("since", "Since first learnt", lambda one: one.lifetime["value"] if one.lifetime else None, number=True,
           wide=True, hint="Loss against the version that first learnt it: small losses must not add up."),
    Column("drawn_since", "", None, wide=True),
)  # fmt: skip
RULES: tuple[Column[Mapping[str, Any]], ...] = (
    Column("rule", "Rule", lambda row: row["rule"]),
    Column("verdict", "Verdict", lambda row: SEVERITY.get(row["verdict"], 9)),
    Column("words", "In words", lambda row: row["words"]),
)
FLIPPED: tuple[Column[FlipCount], ...] = (
    Column("task", "Task", lambda one: one.task),
    Column("rows", "Test rows", lambda one: one.rows, number=True),
    Column("lost", "Lost", lambda one: one.lost, number=True, hint="Right before, wrong now."),
    Column("won", "Won", lambda one: one.won, number=True, hint="Wrong before, right now."),
    Column("negative", "Share lost, at most", lambda one: one.negative.high, number=True, wide=True),
)
ROWS: tuple[Column[Mapping[str, Any]], ...] = (
    Column("task", "Task", lambda row: row["task"], pick=True),
    Column("kind", "Lost or won", lambda row: row["kind"], pick=True),
    Column("prompt", "Asked", lambda row: row["prompt"]),
    Column("expected", "Expected", lambda row: row["expected"]),
    Column("before", "Before", lambda row: row["before"]),
    Column("after", "After", lambda row: row["after"]),
)


def routes(console: Console) -> APIRouter:
    """/versions/N, the parts of it that take longer, its changed rows and its reports."""
    router = APIRouter(include_in_schema=False)

    @router.get("/versions/{number}")
    def version(number: str, request: Request) -> Response:
        reader = console.reader(request)
        return console.page(reader, "candidate.html", **_told(console, reader, number))

    @router.get("/versions/{number}/changed")
    def changed(number: str, request: Request) -> Response:
        reader = console.reader(request)
        found, evidence = _found(console, number)
        counts = _flip_counts(console.instance.store, str(evidence["evaluation"]))
        asked = Asked("changed", dict(request.query_params), "-lost")
        table = arranged(asked, FLIPPED, [one for one in counts if one.lost or one.won])
        values = {"version": found, "changed": table, "lost": sum(one.lost for one in counts)}
        values |= {"won": sum(one.won for one in counts), "rows": sum(one.rows for one in counts)}
        return _part(console, reader, "candidate_changed.html", values)

    @router.get("/versions/{number}/matrix")
    def matrix(number: str, request: Request) -> Response:
        reader = console.reader(request)
        found, _ = _found(console, number)
        return _part(console, reader, "candidate_matrix.html", {"version": found, **_matrix(console, found)})

    @router.get("/versions/{number}/flips")
    def flips(number: str, request: Request) -> Response:
        """Texts of changed test rows; every look is entered in the log."""
        reader = console.reader(request)
        seen = console.ask(reader, "flips", version=number)
        rows = [{**row, "kind": "lost" if row["score_after"] < row["score_before"] else "won"} for row in seen["flips"]]
        table = arranged(Asked("rows", dict(request.query_params), "kind"), ROWS, rows)
        return console.page(reader, "flips.html", number=seen["version"], rows=table, **_not_shown(seen))

    @router.get("/versions/{number}/flips/{task}/{digest}")
    def image(number: str, task: str, digest: str, request: Request) -> Response:
        """An image of a changed test row, for those who may look at the row."""
        reader = console.reader(request, counted=False)
        found = console.ask(reader, "image", version=number, task=task, image=digest)
        headers = {"content-security-policy": SHOWN, "cache-control": "private"}
        return Response(b64decode(found["content"]), media_type="image/png", headers=headers)

    @router.get("/versions/{number}/reports/{name}")
    def report(number: str, name: str, request: Request) -> Response:
        console.reader(request)
        return reports.answer(console.instance.store, _found(console, number)[1]["reports"], name)

    return router


def _not_shown(seen: Mapping[str, Any]) -> dict[str, int]:
    return {name: seen[name] for name in ("held_back", "other_sites")}


def _part(console: Console, reader: Reader, template: str, values: Mapping[str, Any]) -> Response:
    """A part where a script asks for it, else a page of its own."""
    if reader.request.headers.get("hx-request"):
        return console.fragment(reader, template, **values)
    return console.page(reader, "part.html", part=template, **values)


def _found(console: Console, number: str) -> tuple[Candidate, dict[str, Any]]:
    with console.instance.db.read() as connection:
        found = candidates.get(connection, console.instance.assistant, number)
    return found, console.instance.evidence(found)


def _told(console: Console, reader: Reader, number: str) -> dict[str, Any]:
    instance = console.instance
    found, evidence = _found(console, number)
    evaluation, tuning = _record(instance.store, evidence["evaluation"]), _record(instance.store, evidence["tuning"])
    gate = present_form(_record(instance.store, evidence["gate"]))
    assessment = _unless_erased(instance.store, evidence["assessment"])
    with instance.db.read() as connection:
        item = None if found.item is None else queue.item(connection, found.item)
        parent = candidates.get(connection, instance.assistant, found.parent) if found.parent else None
        decision = _decision(console, reader, connection, found)
    before = (
        present_scores(instance.store, _record(instance.store, instance.evidence(parent)["evaluation"]))
        if parent
        else {}
    )
    params = dict(reader.request.query_params)
    return {
        "version": found,
        "parent": parent,
        "item": item,
        "gate": gate,
        "headline": _headline(gate),
        "new": next((row for row in gate["rows"] if row["rule"] == "new task"), None),
        "new_score": evaluation["scores"].get(found.task_name.partition("@")[0]),
        "prior": _prior(console, found, gate, before, evaluation["scores"], Asked("prior", params, "verdict")),
        "rules": arranged(
            Asked("rules", params, "verdict"), RULES, [row for row in gate["rows"] if row["rule"] not in COMPARED]
        ),
        "evaluation": evaluation,
        "points": curve_points(evaluation),
        "margin": instance.settings.evaluation.choice_margin,
        "tuning": tuning,
        "lines": _lines(tuning),
        "grouping": assessment["grouping"] if assessment else None,
        "drift": _unless_erased(instance.store, assessment["drift"]) if assessment else None,
        "validation": _unless_erased(instance.store, assessment["validation"]) if assessment else None,
        "cost": costs_of(instance, item),
        "evidence": evidence,
        "pages": reports.listed(evidence["reports"]),
        "models": instance.registry.models_page(),
        **decision,
    }


@lru_cache(maxsize=REMEMBERED)
def _record(store: ObjectStore, digest: str) -> Any:  # noqa: ANN401 - JSON
    """An immutable record of numbers, read and checked once."""
    return store.get_json(digest)


def _unless_erased(store: ObjectStore, digest: str) -> Any:  # noqa: ANN401 - JSON
    """A record that may hold texts, read each time; None once a withdrawal or retention erased it."""
    try:
        return store.get_json(digest)
    except ObjectMissing:
        return None


@lru_cache(maxsize=REMEMBERED)
def _flip_counts(store: ObjectStore, evaluation: str) -> tuple[FlipCount, ...]:
    return tuple(flip_counts(store, _record(store, evaluation)))


def _headline(gate: Mapping[str, Any]) -> dict[str, int]:
    """How many prior tasks are what: the answer before the details."""
    verdicts: dict[str, str] = {}
    for row in gate["rows"]:
        if row["rule"] in COMPARED and row["task"]:
            worst = verdicts.get(row["task"], "pass")
            verdicts[row["task"]] = min(worst, row["verdict"], key=lambda verdict: SEVERITY.get(verdict, 9))
    unchanged = sum(row["rule"] == "unchanged" for row in gate["rows"])
    counted = {verdict: sum(one == verdict for one in verdicts.values()) for verdict in SEVERITY}
    return {**counted, "all": len(verdicts), "unchanged": unchanged}


def _prior(
    console: Console,
    version: Candidate,
    gate: Mapping[str, Any],
    before: Mapping[str, float],
    after: Mapping[str, float],
    asked: Asked,
) -> Table[Prior]:
    groups = console.instance.pool(version.digest).groups_by_name()
    rows: dict[str, dict[str, Any]] = {}
    for row in gate["rows"]:
        if row["rule"] in COMPARED and row["task"]:
            rows.setdefault(row["task"], {})[row["rule"]] = row
    found = []
    for name, of_task in rows.items():
        worst = min(of_task.values(), key=lambda row: SEVERITY.get(row["verdict"], 9))
        step, life = of_task.get("step") or of_task.get("unchanged"), of_task.get("lifetime")
        scores = before.get(name), after.get(name)
        found.append(Prior(name, groups.get(name, ""), *scores, step, life, worst["verdict"], worst))
    return arranged(asked, PRIOR, found)


def _decision(console: Console, reader: Reader, connection: Connection, version: Candidate) -> dict[str, Any]:
    """Who decided so far, what is missing, and what the reader can do."""
    instance = console.instance
    rules = policy.standing(connection, instance.assistant, instance.settings.policy)
    judged, why = _judged(instance.store, version, rules.gate)
    override = approvals.gate_stands_against(judged, rules.gate)
    weighed = quorum.weigh(connection, version, rules.approval, override=override)
    counted = [one for one in weighed if not one.why_not]
    now = champion.current(connection, instance.assistant)
    sites = candidates.sites(connection, version)
    was = any(one.version == version.digest for one in champion.lineage(connection, instance.assistant))
    here = now is not None and now.version == version.digest
    away = candidates.rolled_away(connection, version)
    return {
        "given": quorum.answers(connection, version),
        "void": {one.approval.id: one.why_not for one in weighed},
        "counted": [one.approval for one in counted],
        "quorums": _quorums(version, counted, rules.approval, sites, override=override),
        "override": override,
        "judged": judged,
        "judged_why": why,
        "stale": version.state == "pending" and version.parent != (now.version if now else None),
        "open": version.state == "pending" or away,
        "away": away,
        "own": quorum.bars(version, reader.name, rules.approval),
        "may_decide": reader.may_at("decide", sites),
        "may_revoke": reader.may_at("revoke", sites),
        "mine": any(same_person(one.approval.person, reader.name) for one in counted),
        "in_use": here,
        "can_roll_back": was and not here and not away and reader.may_all("roll_back", sites),
        "may_read_rows": reader.may("read_rows") and not quorum.bars(version, reader.name, rules.approval),
    }


def _judged(store: ObjectStore, version: Candidate, rules: GateSettings) -> tuple[str, str]:
    """The gate's verdict under the policy in force, and why where it is not the one that was made."""
    try:
        found = judging.present(store, version, rules)
    except GateRefused as why:
        return "inconclusive", str(why)
    return found.verdict, found.words if found.again is not None else ""


def _quorums(
    version: Candidate,
    counted: Sequence[quorum.Weighed],
    rules: ApprovalSettings,
    sites: frozenset[str],
    *,
    override: bool,
) -> list[tuple[str, int, int]]:
    """Each site whose tasks change with the approvals that count there, and how many it needs."""
    return [
        (
            site,
            sum(one.sites is None or site in one.sites for one in counted),
            quorum.quorum_at(version, rules, site, override=override),
        )
        for site in sorted(sites)
    ]


def _lines(tuning: Mapping[str, Any]) -> dict[str, Any]:
    """Loss and beta over the steps, as points, and the band of beta over the tensors."""
    found, history = curves({"old_losses": (), **tuning}), tuning["history"]
    beta = found.get("beta", [])
    bounds = zip(history["beta_low"], history["beta_high"], strict=True)
    return {
        "loss": found["loss"],
        "old_loss": found.get("loss_earlier_tasks", []),
        "beta": beta,
        "beta_band": [(at, *bound) for (at, _), bound in zip(beta, bounds, strict=False)],
    }


def _matrix(console: Console, version: Candidate) -> dict[str, Any]:
    """Scores of every task after every task learnt, along the ancestors; means over them."""
    instance = console.instance
    with instance.db.read() as connection:
        known = candidates.ancestors(connection, version.digest)
    records = [record for _, record in line(instance.store, known, version.digest)]
    names = [record.name for record in records]
    rows = [[record.scores.get(name) for name in names[: j + 1]] for j, record in enumerate(records)]
    last, firsts = rows[-1] if rows else [], [row[-1] for row in rows]
    pairs = [(now, then) for now, then in zip(last, firsts, strict=True) if now is not None and then is not None]
    return {
        "names": names,
        "rows": rows,
        "figures": [
            ("Avg.ACC", _mean([now for now, _ in pairs])),
            ("New.ACC", _mean([then for _, then in pairs])),
            ("BWT", _mean([now - then for now, then in pairs[:-1]])),
        ],
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
