"""What the state holds, as lists: tasks, versions, a version's ancestors, log entries."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from components.audit import log
from components.errors import LciaError
from components.names import same_person
from components.promotion import candidates, champion, policy, quorum
from components.promotion.candidates import Candidate
from components.promotion.champion import Promotion
from components.settings import PolicySettings
from components.storage.objects import ObjectMissing
from components.tasks import queue
from components.tasks.queue import QueueItem
from components.tasks.snapshot import load_snapshot
from lcia.workplace import Workplace


class FilterUnknown(LciaError):
    """A filter that can never match."""


def tasks(place: Workplace, state: str | None = None, owner: str | None = None) -> list[dict[str, Any]]:
    """Every task known, in order of submission: where it stands, what it scores, what its owner lets us keep.

    Raises:
        FilterUnknown: `state` is no state of a task.
    """
    if state is not None and state not in queue.MOVES:
        raise FilterUnknown(f"{state!r} is no state of a task, expected one of {', '.join(queue.MOVES)}")
    with place.db.read() as connection:
        items = queue.items(connection, place.assistant, (state,) if state else None)
        versions = candidates.listed(connection, place.assistant)
        first = {made.version: made for made in reversed(champion.lineage(connection, place.assistant))}
    made_by: dict[int, Candidate] = {v.item: v for v in versions if v.item is not None and v.digest in first}
    now = place.champion()
    evaluation = place.store.get_json(str(place.evidence(now)["evaluation"])) if now else None
    groups = {t.task: (g.id, t.name) for g in place.pool(now.digest).groups for t in g.tasks} if now else {}
    found = []
    for item in items:
        if owner is None or item.owner == owner:
            version = made_by.get(item.id)
            group, name = groups.get(version.task, (None, "")) if version else (None, "")
            found.append({**_task(place, item, version), "group": group, **_scores(place, evaluation, name)})
    return found


def _task(place: Workplace, item: QueueItem, version: Candidate | None) -> dict[str, Any]:
    retention: dict[str, Any] | None = None
    try:
        if item.task:
            retention = load_snapshot(place.store, item.task).task.retention.model_dump(mode="json")
    except ObjectMissing:  # withdrawn
        retention = None
    return {
        "id": item.id,
        "name": item.name,
        "version": item.version,
        "state": item.state,
        "reason": item.reason,
        "owner": item.owner,
        "submitted_by": item.submitted_by,
        "learnt_in": version.number if version else None,
        "retention": retention,
        "cost": costs_of(place, item),
    }


def costs_of(place: Workplace, item: QueueItem | None) -> dict[str, Any] | None:
    """Estimate and actual cost of a task's last learning run; None where none was recorded."""
    digest = item.reports.get("cost") if item else None
    try:
        record: dict[str, Any] | None = place.store.get_json(digest) if digest else None
    except ObjectMissing:
        return None
    return {name: record[name] for name in ("estimate", "actual")} if record else None


def _scores(place: Workplace, evaluation: Mapping[str, Any] | None, name: str) -> dict[str, float | None]:
    """The champion's score and that of the version which first promoted the task; null: not measurable."""
    if evaluation is None or name not in evaluation["scores"]:
        return {"score": None, "anchor": None}
    anchor = evaluation["anchors"].get(name)
    erased = anchor is None or place.store.erased(anchor["predictions"]) is not None
    rows = [] if erased else place.store.get_json(anchor["predictions"])["rows"]
    mean = sum(row["score"] for row in rows) / len(rows) if rows else None
    return {"score": evaluation["scores"][name], "anchor": mean}


def versions(place: Workplace, state: str | None = None) -> list[dict[str, Any]]:
    """Every version ever proposed, by number, with who said yes or no to it.

    Raises:
        FilterUnknown: `state` is no state of a version.
    """
    if state is not None and state not in candidates.MOVES:
        raise FilterUnknown(f"{state!r} is no state of a version, expected one of {', '.join(candidates.MOVES)}")
    with place.db.read() as connection:
        found = candidates.listed(connection, place.assistant)
        numbers = {version.digest: version.number for version in found}
        rules = policy.standing(connection, place.assistant, place.settings.policy)
        return [
            {
                **version.to_json(),
                "made_on": numbers.get(version.parent) if version.parent else None,
                "approvals": decisions(connection, version, rules),
            }
            for version in found
            if state in (None, version.state)
        ]


def decisions(connection: Connection, version: Candidate, rules: PolicySettings) -> list[dict[str, Any]]:
    """Every yes and no to a version; `why_not` is why a yes does not count, empty where it does or is history."""
    void: dict[int, str] = {}
    if version.state == "pending" or candidates.rolled_away(connection, version):
        for spite in (False, True):
            found = quorum.weighed(connection, version, rules.approval, override=spite)
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
        for one in quorum.given(connection, version)
    ]


def lineage(place: Workplace, reference: str | None) -> dict[str, Any] | None:
    """A version's ancestors, oldest first, each with its epochs as champion and the versions that branch off it.

    None where there is no champion yet and no version was named.
    """
    version = place.version(reference)
    if version is None:
        return None
    with place.db.read() as connection:
        line = candidates.ancestors(connection, version.digest)
        known = candidates.listed(connection, place.assistant)
        decided = champion.lineage(connection, place.assistant)
        now = champion.current(connection, place.assistant)
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
    return {"version": version.number, "digest": version.digest, "line": told, "other_roots": roots}


def _short(version: Candidate) -> dict[str, Any]:
    names = ("number", "digest", "task_name", "state", "verdict", "marks")
    return {name: getattr(version, name) for name in names}


def _epoch(made: Promotion) -> dict[str, Any]:
    return {"epoch": made.epoch, "kind": made.kind, "by": made.by, "reason": made.reason, "at": made.at.isoformat()}


def entries(
    place: Workplace,
    *,
    kind: str | None = None,
    subject: str | None = None,
    person: str | None = None,
    since: datetime | None = None,
    tail: int | None = None,
) -> list[dict[str, Any]]:
    """Entries of the log, oldest first.

    `kind` is an action such as `candidate.approved`, or its first part; `subject` a digest's beginning or a name;
    `since` without a zone is taken as UTC.
    """
    after = None if since is None else since.astimezone(UTC) if since.tzinfo else since.replace(tzinfo=UTC)
    with place.db.read() as connection:
        found = [
            entry
            for entry in log.entries(connection)
            if (kind is None or entry.action == kind or entry.action.startswith(f"{kind}."))
            and (subject is None or entry.subject.startswith(subject))
            and (person is None or same_person(entry.actor.name, person))
            and (after is None or datetime.fromisoformat(entry.at) >= after)
        ]
    return [
        {**vars(entry), "actor": vars(entry.actor)}
        for entry in (found if tail is None else found[-tail:] if tail else [])
    ]
