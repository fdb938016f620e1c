"""Versions and the evidence about them: lists, ancestors, everything a decision rests on."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from components.evaluation.history import curve_drop, curve_points, flip_counts
from components.gate.report import present_form
from components.grouping.pool import Pool
from components.promotion import candidates, champion, policy
from components.promotion.candidates import Candidate
from components.promotion.carry_over import carry_over
from components.promotion.champion import Promotion
from components.storage.objects import Json, ObjectMissing, ObjectStore
from components.tasks import queue
from components.tuning.progress_curves import curves
from lcia.instance import Instance
from lcia.operations import approvals, figures, trials
from lcia.operations.costs import costs_of
from lcia.operations.figures import NothingToShow
from lcia.operations.params import FilterUnknown

COMPARED = ("step", "lifetime", "unchanged", "not measurable", "superseded", "not taught")
"""Rules of the gate that are about one earlier task; the others are about the version."""
SEVERITY = {"fail": 0, "inconclusive": 1, "info": 2, "pass": 3}
"""Verdicts of the gate's rows, the worst first."""
REMEMBERED = 64
"""Records that never change and are kept read, by digest."""


def versions(instance: Instance, state: str | None = None) -> dict[str, Any]:
    """Every version ever proposed, by number, with who approved or rejected it.

    Raises:
        FilterUnknown: `state` is no state of a version.
    """
    if state is not None and state not in candidates.MOVES:
        raise FilterUnknown(f"{state!r} is no state of a version, expected one of {', '.join(candidates.MOVES)}")
    entries = [row for row in rows(instance) if state in (None, row["state"])]
    approvals_by_digest = approvals_of(instance, {row["digest"] for row in entries})
    return {"candidates": [{**row, "approvals": approvals_by_digest[row["digest"]]} for row in entries]}


def rows(instance: Instance) -> list[dict[str, Any]]:
    """Every version by number, each with the number of the one that it was made on."""
    with instance.db.read() as connection:
        entries = candidates.versions(connection, instance.assistant)
    numbers = {version.digest: version.number for version in entries}
    return [
        {**version.to_json(), "made_on": numbers.get(version.parent) if version.parent else None} for version in entries
    ]


def approvals_of(instance: Instance, digests: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Every yes and no to each of some versions, by digest; see `approvals.votes`."""
    with instance.db.read() as connection:
        rules = policy.standing(connection, instance.assistant, instance.settings.policy)
        entries = [one for one in candidates.versions(connection, instance.assistant) if one.digest in digests]
        return {version.digest: approvals.votes(instance, connection, version, rules) for version in entries}


def get(instance: Instance, reference: str) -> Candidate:
    """The version that goes by a number or a digest.

    Raises:
        CandidateUnknown: there is none.
    """
    with instance.db.read() as connection:
        return candidates.get(connection, instance.assistant, reference)


def number_pending(instance: Instance) -> int:
    """Number of versions that wait for people."""
    with instance.db.read() as connection:
        return len(candidates.versions(connection, instance.assistant, "pending"))


def promotions(instance: Instance) -> list[dict[str, Any]]:
    """Promotions and rollbacks, oldest first, each with the digest of its version."""
    with instance.db.read() as connection:
        return [{**_epoch(one), "version": one.version} for one in champion.lineage(connection, instance.assistant)]


def champion_number(instance: Instance) -> int | None:
    """The version in use; None where there is none."""
    now = instance.champion()
    return now.number if now else None


def ancestors(instance: Instance, digest: str) -> list[str]:
    """Digests of a version and of those that it was made on, oldest first."""
    with instance.db.read() as connection:
        return [one.digest for one in candidates.ancestors(connection, digest)]


def lineage(instance: Instance, version: str | None = None) -> dict[str, Any]:
    """A version's ancestors with promotions and rollbacks, oldest first, and the versions that branch off them.

    Raises:
        NothingToShow: there is no champion yet and no version was named.
    """
    candidate = instance.version(version)
    if candidate is None:
        raise NothingToShow("there is no champion yet; name a candidate: `lcia lineage N`")
    with instance.db.read() as connection:
        line = candidates.ancestors(connection, candidate.digest)
        entries = candidates.versions(connection, instance.assistant)
        decisions = champion.lineage(connection, instance.assistant)
        now = champion.current(connection, instance.assistant)
    inside = {ancestor.digest for ancestor in line}
    line_fields = []
    for ancestor in line:
        beside = [other for other in entries if other.parent == ancestor.digest and other.digest not in inside]
        line_fields.append(
            {
                **_short(ancestor),
                "champion": now is not None and now.version == ancestor.digest,
                "epochs": [_epoch(decision) for decision in decisions if decision.version == ancestor.digest],
                "branches": [_short(other) for other in beside],
            }
        )
    roots = [_short(other) for other in entries if other.parent is None and other.digest not in inside]
    return {"version": candidate.number, "digest": candidate.digest, "line": line_fields, "other_roots": roots}


def _short(version: Candidate) -> dict[str, Any]:
    names = ("number", "digest", "task_name", "state", "verdict", "marks")
    return {name: getattr(version, name) for name in names}


def _epoch(decision: Promotion) -> dict[str, Any]:
    return {
        "epoch": decision.epoch,
        "kind": decision.kind,
        "by": decision.by,
        "reason": decision.reason,
        "at": decision.at.isoformat(),
    }


def show(instance: Instance, version: str | None = None) -> dict[str, Any]:
    """Everything a decision about a version rests on.

    Raises:
        NothingToShow: there is no champion yet and no version was named.
    """
    candidate = instance.version(version)
    if candidate is None:
        raise NothingToShow("there is no champion yet; name a candidate: `lcia show N`")
    return {
        **about(instance, candidate),
        "matrix": figures.accuracy_matrix(instance, candidate.digest).to_json(),
        "changed": change_counts(instance, candidate),
    }


def about(instance: Instance, version: Candidate) -> dict[str, Any]:
    """The part of `show` that reads no predictions row by row; null for what was erased since."""
    store = instance.store
    evidence = instance.evidence(version)
    evaluation = _record(store, evidence["evaluation"])
    tuning = _record(store, evidence["tuning"]) if evidence["tuning"] else None
    gate = present_form(_record(store, evidence["gate"]))
    assessment = _unless_erased(store, evidence["assessment"]) or {}
    drift, validation = (_unless_erased(store, assessment.get(name)) for name in ("drift", "validation"))
    state = approvals.decision(instance, version)
    with instance.db.read() as connection:
        item = None if version.item is None else queue.item(connection, version.item)
        parent = candidates.get(connection, instance.assistant, version.parent) if version.parent else None
    scores = figures.scores(instance, version.digest)
    earlier = _earlier(instance, version, gate["rows"], figures.scores(instance, version.parent), scores)
    return {
        "version": version.to_json(),
        "made_on": parent.number if parent else None,
        "groups": [{"id": g.id, "tasks": [t.name for t in g.tasks]} for g in instance.pool(version.digest).groups],
        "grouping": assessment.get("grouping"),
        "drift": drift["verdict"] if drift else None,
        "drift_reasons": drift["reasons"] if drift else [],
        "validation": validation["verdict"] if validation else None,
        "tuning": _tuning(tuning) if tuning else None,
        "chosen": _choice(evaluation) if tuning else None,
        "wordings": _unless_erased(store, evidence.get("wordings")),
        "reversal": _reversal(store, evidence),
        "predictions": {"made": evaluation["predicted"], "carried_over": evaluation["carried"]},
        "proofs": evaluation.get("proofs", {}),
        "rerouted": evaluation.get("rerouted", {}),
        "pseudo_labels": tuning.get("pseudo_labels") if tuning else None,
        "rebase": evidence.get("rebase"),
        "carries_over": _carry_over(instance, evidence),
        "trials": trials.trials(instance, version.digest)["trials"],
        "cost": costs_of(instance, item),
        "gate": gate,
        "score": scores.get(version.task_name.partition("@")[0]),
        "earlier_tasks": earlier,
        "verdicts": _verdicts(earlier),
        "judged": state["judged"],
        "sites": state["sites"],
        "approvals": approvals.valid(state),
        "not_counted": approvals.not_counted(state),
        "decision": state,
        "evidence": {"digest": version.evidence, **evidence},
    }


def _carry_over(instance: Instance, evidence: Mapping[str, Any]) -> dict[str, Any] | None:
    """The version that one carries over, with its number and what is new to those who read it."""
    comparison = carry_over(instance.store, evidence)
    if comparison is None:
        return None
    with instance.db.read() as connection:
        before = candidates.get(connection, instance.assistant, comparison.digest)
    return {"number": before.number, "why": before.reason, **comparison.to_json()}


def _reversal(store: ObjectStore, evidence: Mapping[str, Any]) -> dict[str, Any] | None:
    """The task that a version takes out, and those that its group learnt again without it; None for other versions."""
    if "reversal" not in evidence:
        return None
    relearnt = evidence.get("relearnt", {"links": [], "lost": {}})
    lessons = [_record(store, link) for link in relearnt["links"]]
    names = {entry.task: entry.name for entry in Pool.from_manifest(_record(store, evidence["candidate"])).tasks()}
    return {
        "label": _record(store, evidence["reversal"])["label"],
        "learnt_again": [names[lesson["task"]] for lesson in lessons],
        "lost": relearnt["lost"],
    }


def _tuning(tuning: Mapping[str, Any]) -> dict[str, Any]:
    names = ("rule", "rows", "rehearsed_rows", "fallback_share")
    return {**{name: tuning[name] for name in names}, "recalled_rows": tuning.get("recalled_rows", 0)}


def _choice(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    return {"point": evaluation["chosen"], "reason": evaluation["reason"], "points": evaluation["points"]}


def change_counts(instance: Instance, version: Candidate) -> dict[str, Any]:
    """Test rows of earlier tasks whose score a version changed, as counts: in all, and of each task."""
    counts = flip_counts(instance.store, _record(instance.store, str(instance.evidence(version)["evaluation"])))
    tasks = [
        {"task": one.task, "rows": one.rows, "lost": one.lost, "won": one.won,
         "lost_share_at_most": one.negative.high if one.rows else None}
        for one in counts
    ]  # fmt: skip
    totals: dict[str, Any] = {name: sum(getattr(one, name) for one in counts) for name in ("rows", "lost", "won")}
    return {**totals, "tasks": tasks}


def charts(instance: Instance, version: Candidate) -> dict[str, Any]:
    """Points of the curve between learning and keeping, and loss and beta over the steps, for drawing."""
    evidence = instance.evidence(version)
    if evidence["tuning"] is None:  # a change of wordings
        return {"points": [], "loss": [], "old_loss": [], "beta": []}
    tuning, evaluation = (_record(instance.store, evidence[name]) for name in ("tuning", "evaluation"))
    series, history = curves({"old_losses": (), **tuning}), tuning["history"]
    beta = series.get("beta", [])
    bounds = zip(history["beta_low"], history["beta_high"], strict=True)
    return {
        "points": curve_points(evaluation),
        "drop": curve_drop(evaluation),
        "margin": instance.settings.evaluation.choice_margin,
        "loss": series["loss"],
        "old_loss": series.get("loss_earlier_tasks", []),
        "beta": beta,
        "beta_band": [(step, *limits) for (step, _), limits in zip(beta, bounds, strict=False)],
    }


def _earlier(
    instance: Instance,
    version: Candidate,
    rows: list[dict[str, Any]],
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Each earlier task with its scores and the gate's rows about it; `decisive` is the row with the worst verdict."""
    groups = instance.pool(version.digest).groups_by_name()
    by_task: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["rule"] in COMPARED and row["task"]:
            by_task.setdefault(row["task"], {})[row["rule"]] = row
    tasks = []
    for name, rules in by_task.items():
        decisive = min(rules.values(), key=lambda row: SEVERITY.get(row["verdict"], 9))
        tasks.append(
            {
                "task": name,
                "group": groups.get(name, ""),
                "before": before.get(name),
                "after": after.get(name),
                "verdict": decisive["verdict"],
                "unchanged": "unchanged" in rules,
                "decisive": decisive,
                "step": rules.get("step") or rules.get("unchanged"),
                "lifetime": rules.get("lifetime"),
            }
        )
    return tasks


def _verdicts(earlier: list[dict[str, Any]]) -> dict[str, int]:
    """Number of earlier tasks by the gate's worst verdict about each, in all, and proven unchanged."""
    by_verdict = {verdict: sum(task["verdict"] == verdict for task in earlier) for verdict in SEVERITY}
    return {**by_verdict, "all": len(earlier), "unchanged": sum(task["unchanged"] for task in earlier)}


@lru_cache(maxsize=REMEMBERED)
def _record(store: ObjectStore, digest: str) -> Json:
    """A record of numbers, read and checked once."""
    return store.get_json(digest)


def _unless_erased(store: ObjectStore, digest: str | None) -> Json:
    """A record that may hold texts, read each time; None once a withdrawal or retention erased it."""
    if digest is None:
        return None
    try:
        return store.get_json(digest)
    except ObjectMissing:
        return None
