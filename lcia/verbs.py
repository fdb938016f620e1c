"""What the verbs do, as functions that return plain data; `cli.py` prints it."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from components.audit import log
from components.audit.log import Actor
from components.errors import GateRefused, LciaError
from components.evaluation.history import lineage_matrix
from components.evaluation.matrix import AccuracyMatrix
from components.promotion import approvals, candidates, champion, judging, policy, quorum, superseding, withdrawal
from components.promotion.candidates import Candidate
from components.promotion.champion import Promotion, StaleCandidate
from components.promotion.evidence import replaced_tasks
from components.promotion.outbox import undelivered
from components.settings import GateSettings, PolicySettings
from components.tasks import queue
from components.tasks.inbox import quarantine
from components.tasks.isolation import take
from components.tasks.problems import PackageError
from components.tasks.queue import QueueItem
from lcia import delivery, moving
from lcia.listing import costs_of
from lcia.workplace import Workplace


class NothingToShow(LciaError):
    """There is no version yet."""


class GroupUnknown(LciaError):
    """A group that the champion has not."""


def submit(
    place: Workplace,
    package: Path,
    actor: Actor,
    allowed: Callable[[str], None] | None = None,
    called: str | None = None,
    *,
    sender_known: bool = True,
) -> QueueItem:
    """Put a task package, a folder or a container, into the queue.

    `allowed` refuses owners that the actor may not submit for; `called` names the package in messages where its path
    means nothing to whoever sent it. A task that would replace another waits for a person where its sender is not
    known.

    Raises:
        PackageError: it is refused; the report is in `quarantine/`, nothing else was changed.
    """
    try:
        read = take(
            package, place.store, place.settings.packages, place.home / "unpacked", called=called, allowed=allowed
        )
    except PackageError as error:
        report = quarantine(place.home, package, error.problems)
        error.add_note(f"The report is in {report}; the package itself was not touched.")
        raise
    with place.db.begin() as connection:
        item = queue.submit(
            connection,
            assistant=place.assistant,
            package=read.package,
            name=read.task.name,
            version=read.task.version,
            owner=read.task.owner,
            submitted_by=actor,
            task=read.snapshot.digest,
        )
        if not sender_known and read.task.supersedes and not item.known:
            why = (
                f"it would replace {read.task.supersedes} and came through an inbox, which does not know its sender: "
                f"`lcia release {item.id}` lets it go on, `lcia cancel {item.id}` does not"
            )
            item = queue.move(connection, None, item.id, "held", why, actor=actor)
    return replace(item, cut=read.cut, remarks=read.remarks)


def status(place: Workplace) -> dict[str, Any]:
    """Champion, queue, candidates and log, as `docs/json.md` describes."""
    with place.db.read() as connection:
        now = champion.current(connection, place.assistant)
        decided = champion.lineage(connection, place.assistant)
        items = queue.items(connection, place.assistant)
        counts = queue.counts(connection, place.assistant)
        found = candidates.listed(connection, place.assistant)
        head = log.head(connection)
        waiting = undelivered(connection, place.assistant)
        rules = policy.standing(connection, place.assistant, place.settings.policy)
        void = {one.digest: _of_pending(connection, one, rules) for one in found if one.state == "pending"}
    shown = None
    if now is not None:
        version = next(c for c in found if c.digest == now.version)
        pool = place.pool(now.version)
        shown = {
            "version": version.number,
            "digest": now.version,
            "epoch": now.epoch,
            "served": delivery.seen_served(place, now),
            "groups": [{"id": g.id, "tasks": [t.name for t in g.tasks], "adapter": g.adapter} for g in pool.groups],
            "tasks": [entry.name for entry in _in_order(place, version)],
            "marks": decided[-1].marks,
        }
    return {
        "assistant": place.assistant,
        "champion": shown,
        "queue": {**counts, "items": [item.to_json() for item in items]},
        "candidates": [{**one.to_json(), "not_counted": void.get(one.digest, [])} for one in found],
        "audit": {"entries": head.entries, "head": head.root},
        "registry": {
            "pending": len(waiting),
            "parked": [row.to_json() for row in waiting if row.parked_at is not None],
            "moved": moving.moved(place),
            "empty": shown is not None and moving.mlflow_empty(place),
            "links": moving.links(place.home, place.settings),
        },
    }


def _not_counted(weighed: Sequence[quorum.Weighed]) -> list[dict[str, str]]:
    """Every yes that does not count though nobody took it back, and why."""
    void = [one for one in weighed if one.why_not and one.approval.revoked_at is None]
    return [{"person": one.approval.person, "why": one.why_not} for one in void]


def _of_pending(connection: Connection, version: Candidate, rules: PolicySettings) -> list[dict[str, str]]:
    """The same of a candidate, whatever the gate says of it now: each yes by what it was given for."""
    both = {spite: quorum.weighed(connection, version, rules.approval, override=spite) for spite in (False, True)}
    return _not_counted([one for spite, found in both.items() for one in found if one.approval.override == spite])


def _in_order(place: Workplace, version: Candidate) -> list[Any]:
    """The pool's tasks in the order in which they were learnt."""
    entries = {entry.task: entry for entry in place.pool(version.digest).tasks()}
    tasks = (record["task"] for record in place.learnt(version.digest))
    return [entries[task] for task in tasks if task in entries]


def accuracy_matrix(place: Workplace, reference: str | None = None) -> AccuracyMatrix:
    """The accuracy matrix along the ancestors of a version (default: the champion).

    Raises:
        NothingToShow: there is no champion yet.
    """
    version = place.version(reference)
    if version is None:
        raise NothingToShow("there is no champion yet; `lcia matrix --version N` shows a candidate's matrix")
    return lineage_matrix(place.store, [place.store.get_json(d) for d in place.lineage(version.digest)])


def matrix(place: Workplace, reference: str | None = None) -> dict[str, Any]:
    """The accuracy matrix as JSON, with the averages of the tasks that no other replaces.

    Raises:
        NothingToShow: there is no champion yet.
    """
    found, version = accuracy_matrix(place, reference), place.version(reference)
    assert version is not None  # noqa: S101 - there is a matrix
    replaced = replaced_tasks(place.store, place.pool(version.digest), place.superseded())
    part = found.part([name for name in found.tasks if name not in replaced])
    return {**found.to_json(), "superseded": replaced, "family": {"avg_acc": part.avg_acc, "bwt": part.bwt}}


def show(place: Workplace, reference: str | None) -> dict[str, Any]:
    """Everything a decision about a version rests on.

    Raises:
        NothingToShow: there is no champion yet and no version was named.
    """
    version = place.version(reference)
    if version is None:
        raise NothingToShow("there is no champion yet; name a candidate: `lcia show N`")
    evidence = place.evidence(version)
    evaluation, tuning = place.store.get_json(evidence["evaluation"]), place.store.get_json(evidence["tuning"])
    assessment = place.store.get_json(evidence["assessment"])
    pool = place.pool(version.digest)
    with place.db.read() as connection:
        rules = policy.standing(connection, place.assistant, place.settings.policy)
        undecided = version.state == "pending" or candidates.rolled_away(connection, version)
        judged = _judged(place, version, rules.gate) if undecided else _AS_RECORDED | {"verdict": version.verdict}
        override = approvals.gate_stands_against(judged["verdict"] or "unknown", rules.gate)
        given = quorum.weighed(connection, version, rules.approval, override=override and undecided)
        sites = candidates.sites(connection, version)
        item = None if version.item is None else queue.item(connection, version.item)
    return {
        "version": version.to_json(),
        "groups": [{"id": g.id, "tasks": [t.name for t in g.tasks]} for g in pool.groups],
        "grouping": assessment["grouping"],
        "drift": place.store.get_json(assessment["drift"])["verdict"],
        "validation": place.store.get_json(assessment["validation"])["verdict"],
        "tuning": {name: tuning[name] for name in ("rule", "rows", "rehearsed_rows", "fallback_share")},
        "chosen": {"point": evaluation["chosen"], "reason": evaluation["reason"], "points": evaluation["points"]},
        "predictions": {"made": evaluation["predicted"], "carried_over": evaluation["carried"]},
        "proofs": evaluation.get("proofs", {}),
        "rerouted": evaluation.get("rerouted", {}),
        "pseudo_labels": tuning.get("pseudo_labels"),
        "rebase": evidence.get("rebase"),
        "cost": costs_of(place, item),
        "matrix": accuracy_matrix(place, version.digest).to_json(),
        "gate": place.store.get_json(evidence["gate"]),
        "judged": judged,
        "sites": sorted(sites),
        "approvals": [_said(one.approval) for one in given if not one.why_not],
        "not_counted": _not_counted(given) if undecided else [],
        "evidence": {"digest": version.evidence, **evidence},
    }


def _said(one: quorum.Approval) -> dict[str, Any]:
    return {"person": one.person, "assured": one.assured, "how": one.how, "reason": one.reason}


_AS_RECORDED = {"again": False, "words": ""}


def _judged(place: Workplace, version: Candidate, rules: GateSettings) -> dict[str, Any]:
    """The gate's verdict under the policy in force; None where it would have to be judged again and can't be."""
    try:
        found = judging.present(place.store, version, rules)
    except GateRefused as why:
        return {"verdict": None, "again": True, "words": str(why)}
    return {"verdict": found.verdict, "again": found.again is not None, "words": found.words}


def approve(
    place: Workplace,
    reference: str,
    actor: Actor,
    reason: str,
    *,
    override: bool = False,
    evidence: str | None = None,
) -> tuple[Candidate, Promotion | None]:
    """Record an approval and promote when the quorum is reached; None while more people are needed.

    Of the champion itself it changes nothing, but tells the registry what a crash may have left untold.
    """
    settings = place.settings
    version = place.version(reference)
    now = place.champion()
    in_use = version is not None and now is not None and version.digest == now.digest
    if version is not None and version.state == "pending" and version.parent != (now.digest if now else None):
        raise StaleCandidate(
            f"version {version.number} was made on another champion than the present one; "
            f"reject it (`lcia reject {version.number}`) and `lcia retry` its task, or roll back first"
        )
    if not in_use:
        approvals.approve(
            place.db,
            place.store,
            assistant=place.assistant,
            version=reference,
            actor=actor,
            reason=reason,
            policy=settings.policy,
            override=override,
            evidence=evidence,
        )
    made: Promotion | None = None
    with contextlib.suppress(quorum.QuorumMissing):
        made = champion.promote(
            place.promoter,
            place.store,
            assistant=place.assistant,
            version=reference,
            actor=actor,
            policy=settings.policy,
            reason=reason,
        )
    delivery.settle(place)
    with place.db.read() as connection:
        return candidates.get(connection, place.assistant, reference), made


def reject(place: Workplace, reference: str, actor: Actor, reason: str) -> Candidate:
    """End a candidate."""
    approvals.reject(place.db, assistant=place.assistant, version=reference, actor=actor, reason=reason)
    delivery.settle(place)
    with place.db.read() as connection:
        return candidates.get(connection, place.assistant, reference)


def revoke(
    place: Workplace, reference: str, actor: Actor, reason: str, person: str | None = None
) -> tuple[Candidate, quorum.Approval]:
    """Take back one's own approval, or somebody else's, before anything rests on it."""
    taken = approvals.revoke(
        place.db, assistant=place.assistant, version=reference, actor=actor, reason=reason, person=person
    )
    with place.db.read() as connection:
        return candidates.get(connection, place.assistant, reference), taken


def rollback(place: Workplace, reference: str, actor: Actor, reason: str) -> Promotion:
    """Make an earlier champion the champion again; where it is that and MLflow does not serve it yet, deliver only."""
    now, target = place.champion(), place.version(reference)
    if now is None or target is None or target.digest != now.digest or delivery.standing(place, now.digest)["served"]:
        made = champion.rollback(
            place.promoter, place.store, assistant=place.assistant, version=reference, actor=actor, reason=reason
        )
    else:
        with place.db.read() as connection:
            made = replace(champion.lineage(connection, place.assistant)[-1], known=True)
    delivery.settle(place)
    return made


def supersede(place: Workplace, old: str, new: str, actor: Actor, reason: str) -> QueueItem:
    """Declare that a learnt task replaces an earlier one; names, `name@version` or numbers in the queue."""
    with place.db.begin() as connection:
        items = [withdrawal.find(connection, place.assistant, name) for name in (old, new)]
        return superseding.declare(connection, *items, actor, reason)


def need_group(place: Workplace, item: int, group: str) -> None:
    """Refuse a group that a held task can't be put into.

    Raises:
        GroupUnknown: the champion has no such group, and it is not `new`.
        QueueError: there is no such task.
    """
    with place.db.read() as connection:
        found = queue.item(connection, item)
    champion_ = place.champion()
    known = [one.id for one in place.pool(champion_.digest).groups] if champion_ else []
    if found.state == "held" and group not in (*known, "new"):
        raise GroupUnknown(f"{group!r} is no group of the champion, expected {', '.join([*known, 'new'])}")


OUTCOME = {"candidate": 3, "held": 3, "waiting": 3, "refused": 1, "failed": 1}
"""Exit code by the state a task ended in; a candidate that the gate refused gives 2."""


def candidate_of(place: Workplace, item: QueueItem) -> Candidate | None:
    """The newest candidate that a task has led to."""
    with place.db.read() as connection:
        made = [c for c in candidates.listed(connection, place.assistant) if c.item == item.id]
    return made[-1] if made else None


def outcomes(place: Workplace, items: list[QueueItem]) -> list[dict[str, Any]]:
    """Where tasks stand after work, each with its version, verdict, what MLflow knows of it, and exit code."""
    told = []
    for item in items:
        made = candidate_of(place, item)
        code = OUTCOME.get(item.state, 0)
        verdict = made.verdict if made else None
        if item.state == "candidate" and verdict != "pass" and place.settings.policy.gate.enforce:
            code = 2
        known = delivery.standing(place, made.digest if made else "")
        if item.state == "promoted":  # by policy.approval.auto
            code = known["exit_code"]
        told.append(
            {
                **item.to_json(),
                "candidate": made.number if made else None,
                "digest": made.digest if made else None,
                "verdict": verdict,
                **known,
                "exit_code": code,
            }
        )
    return told
