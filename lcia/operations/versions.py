"""Versions and the evidence about them: lists, ancestors, accuracy matrix, everything a decision rests on."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from components.errors import GateRefused, LciaError
from components.evaluation.history import lineage_matrix
from components.evaluation.matrix import AccuracyMatrix
from components.gate.report import present_form
from components.promotion import approvals, candidates, champion, judging, policy, quorum
from components.promotion.candidates import Candidate
from components.promotion.champion import Promotion
from components.promotion.evidence import replaced_tasks
from components.settings import GateSettings, PolicySettings
from components.tasks import queue
from lcia.instance import Instance
from lcia.operations.costs import costs_of
from lcia.operations.params import FilterUnknown


class NothingToShow(LciaError):
    """There is no version yet."""


def versions(instance: Instance, state: str | None = None) -> dict[str, Any]:
    """Every version ever proposed, by number, with who approved or rejected it.

    Raises:
        FilterUnknown: `state` is no state of a version.
    """
    if state is not None and state not in candidates.MOVES:
        raise FilterUnknown(f"{state!r} is no state of a version, expected one of {', '.join(candidates.MOVES)}")
    with instance.db.read() as connection:
        found = candidates.versions(connection, instance.assistant)
        numbers = {version.digest: version.number for version in found}
        rules = policy.standing(connection, instance.assistant, instance.settings.policy)
        listed = [
            {
                **version.to_json(),
                "made_on": numbers.get(version.parent) if version.parent else None,
                "approvals": _decisions(connection, version, rules),
            }
            for version in found
            if state in (None, version.state)
        ]
    return {"candidates": listed}


def _decisions(connection: Connection, version: Candidate, rules: PolicySettings) -> list[dict[str, Any]]:
    """Every yes and no to a version; `why_not` is why a yes does not count, empty where it does or is history."""
    void: dict[int, str] = {}
    if version.state == "pending" or candidates.rolled_away(connection, version):
        for spite in (False, True):
            found = quorum.weigh(connection, version, rules.approval, override=spite)
            void |= {one.approval.id: one.why_not for one in found if one.approval.override == spite}
    return [
        {
            "person": one.person,
            "verdict": one.verdict,
            "assured": one.assured,
            "how": one.how,
            "reason": one.reason,
            "at": one.at.isoformat(),
            "revoked": one.revoked_at is not None,
            "why_not": void.get(one.id, ""),
        }
        for one in quorum.answers(connection, version)
    ]


def lineage(instance: Instance, version: str | None = None) -> dict[str, Any]:
    """A version's ancestors with promotions and rollbacks, oldest first, and the versions that branch off them.

    Raises:
        NothingToShow: there is no champion yet and no version was named.
    """
    shown = instance.version(version)
    if shown is None:
        raise NothingToShow("there is no champion yet; name a candidate: `lcia lineage N`")
    with instance.db.read() as connection:
        line = candidates.ancestors(connection, shown.digest)
        known = candidates.versions(connection, instance.assistant)
        decided = champion.lineage(connection, instance.assistant)
        now = champion.current(connection, instance.assistant)
    inside = {ancestor.digest for ancestor in line}
    told = []
    for ancestor in line:
        beside = [other for other in known if other.parent == ancestor.digest and other.digest not in inside]
        told.append(
            {
                **_short(ancestor),
                "champion": now is not None and now.version == ancestor.digest,
                "epochs": [_epoch(made) for made in decided if made.version == ancestor.digest],
                "branches": [_short(other) for other in beside],
            }
        )
    roots = [_short(other) for other in known if other.parent is None and other.digest not in inside]
    return {"version": shown.number, "digest": shown.digest, "line": told, "other_roots": roots}


def _short(version: Candidate) -> dict[str, Any]:
    names = ("number", "digest", "task_name", "state", "verdict", "marks")
    return {name: getattr(version, name) for name in names}


def _epoch(made: Promotion) -> dict[str, Any]:
    return {"epoch": made.epoch, "kind": made.kind, "by": made.by, "reason": made.reason, "at": made.at.isoformat()}


def accuracy_matrix(instance: Instance, version: str | None = None) -> AccuracyMatrix:
    """The accuracy matrix along the ancestors of a version (default: the champion).

    Raises:
        NothingToShow: there is no champion yet.
    """
    shown = instance.version(version)
    if shown is None:
        raise NothingToShow("there is no champion yet; `lcia matrix --version N` shows a candidate's matrix")
    return lineage_matrix(instance.store, [instance.store.get_json(d) for d in instance.lineage(shown.digest)])


def matrix(instance: Instance, version: str | None = None) -> dict[str, Any]:
    """The accuracy matrix as JSON, with the averages of the tasks that no other replaces.

    Raises:
        NothingToShow: there is no champion yet.
    """
    found, shown = accuracy_matrix(instance, version), instance.version(version)
    assert shown is not None  # noqa: S101 - there is a matrix
    replaced = replaced_tasks(instance.store, instance.pool(shown.digest), instance.replacements())
    part = found.part([name for name in found.tasks if name not in replaced])
    return {**found.to_json(), "superseded": replaced, "family": {"avg_acc": part.avg_acc, "bwt": part.bwt}}


def show(instance: Instance, version: str | None = None) -> dict[str, Any]:
    """Everything a decision about a version rests on.

    Raises:
        NothingToShow: there is no champion yet and no version was named.
    """
    shown = instance.version(version)
    if shown is None:
        raise NothingToShow("there is no champion yet; name a candidate: `lcia show N`")
    evidence = instance.evidence(shown)
    evaluation, tuning = instance.store.get_json(evidence["evaluation"]), instance.store.get_json(evidence["tuning"])
    assessment = instance.store.get_json(evidence["assessment"])
    pool = instance.pool(shown.digest)
    with instance.db.read() as connection:
        rules = policy.standing(connection, instance.assistant, instance.settings.policy)
        undecided = shown.state == "pending" or candidates.rolled_away(connection, shown)
        judged = _judged(instance, shown, rules.gate) if undecided else _AS_RECORDED | {"verdict": shown.verdict}
        override = approvals.gate_stands_against(judged["verdict"] or "unknown", rules.gate)
        given = quorum.weigh(connection, shown, rules.approval, override=override and undecided)
        sites = candidates.sites(connection, shown)
        item = None if shown.item is None else queue.item(connection, shown.item)
    return {
        "version": shown.to_json(),
        "groups": [{"id": g.id, "tasks": [t.name for t in g.tasks]} for g in pool.groups],
        "grouping": assessment["grouping"],
        "drift": instance.store.get_json(assessment["drift"])["verdict"],
        "validation": instance.store.get_json(assessment["validation"])["verdict"],
        "tuning": {name: tuning[name] for name in ("rule", "rows", "rehearsed_rows", "fallback_share")},
        "chosen": {"point": evaluation["chosen"], "reason": evaluation["reason"], "points": evaluation["points"]},
        "predictions": {"made": evaluation["predicted"], "carried_over": evaluation["carried"]},
        "proofs": evaluation.get("proofs", {}),
        "rerouted": evaluation.get("rerouted", {}),
        "pseudo_labels": tuning.get("pseudo_labels"),
        "rebase": evidence.get("rebase"),
        "cost": costs_of(instance, item),
        "matrix": accuracy_matrix(instance, shown.digest).to_json(),
        "gate": present_form(instance.store.get_json(evidence["gate"])),
        "judged": judged,
        "sites": sorted(sites),
        "approvals": [_said(one.approval) for one in given if not one.why_not],
        "not_counted": _not_counted(given) if undecided else [],
        "evidence": {"digest": shown.evidence, **evidence},
    }


def _said(one: quorum.Approval) -> dict[str, Any]:
    return {"person": one.person, "assured": one.assured, "how": one.how, "reason": one.reason}


_AS_RECORDED = {"again": False, "words": ""}


def _judged(instance: Instance, version: Candidate, rules: GateSettings) -> dict[str, Any]:
    """The gate's verdict under the policy in force; None where it would have to be judged again and can't be."""
    try:
        found = judging.present(instance.store, version, rules)
    except GateRefused as why:
        return {"verdict": None, "again": True, "words": str(why)}
    return {"verdict": found.verdict, "again": found.again is not None, "words": found.words}


def _not_counted(weighed: Sequence[quorum.Weighed]) -> list[dict[str, str]]:
    """Every yes that does not count though nobody took it back, and why."""
    void = [one for one in weighed if one.why_not and one.approval.revoked_at is None]
    return [{"person": one.approval.person, "why": one.why_not} for one in void]


def _of_pending(connection: Connection, version: Candidate, rules: PolicySettings) -> list[dict[str, str]]:
    """The same of a candidate, whatever the gate says of it now: each yes by what it was given for."""
    both = {spite: quorum.weigh(connection, version, rules.approval, override=spite) for spite in (False, True)}
    return _not_counted([one for spite, found in both.items() for one in found if one.approval.override == spite])


def _in_order(instance: Instance, version: Candidate) -> list[Any]:
    """The pool's tasks in the order in which they were learnt."""
    entries = {entry.task: entry for entry in instance.pool(version.digest).tasks()}
    tasks = (record["task"] for record in instance.learnt(version.digest))
    return [entries[task] for task in tasks if task in entries]
