"""Test rows that a version changed, for people who decide about it; every look is entered in the log."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from components.audit import browsing, log
from components.audit.log import Actor
from components.errors import LciaError
from components.evaluation import history
from components.evaluation.reports import Flip
from components.identity import people
from components.identity.access import EVERYWHERE, Grant, need, permits
from components.promotion import candidates, quorum
from components.promotion.candidates import Candidate
from components.promotion.evidence import held_back
from components.storage.database import now
from components.storage.objects import Json
from components.tasks.images import Picture
from lcia.instance import Instance

SEEN = "flips.seen"
AGAIN = timedelta(hours=1)
"""Looks of one person at the same rows within this time are one entry."""


class NotForSubmitters(LciaError):
    """Test rows are read by those who approve, not by those who submit."""


class ImageUnknown(LciaError):
    """An image that no changed test row shows."""


@dataclass(frozen=True)
class Seen:
    """Changed test rows that somebody may read, and how many more there are."""

    rows: list[Flip]
    held_back: int
    """Rows of the reserve, which stay unseen until the gate has opened it."""
    other_sites: int
    """Rows of tasks of sites where the person reads no rows."""


def flips(instance: Instance, actor: Actor, version: str) -> Json:
    """Test rows of prior tasks that a version changed; the look is logged."""
    candidate, view = look(instance, version, actor)
    return {
        "version": candidate.number,
        "flips": [vars(flip) for flip in view.rows],
        "held_back": view.held_back,
        "other_sites": view.other_sites,
    }


def png(instance: Instance, actor: Actor, version: str, task: str, image: str) -> Json:
    """An image of one of these rows, as a PNG file in base64."""
    candidate, image_shown = picture(instance, version, actor, task, image)
    return {
        "version": candidate.number,
        "task": task,
        "image": image_shown.digest,
        "content": b64encode(image_shown.png()).decode(),
    }


def look(instance: Instance, reference: str, actor: Actor) -> tuple[Candidate, Seen]:
    """Test rows of prior tasks that a version changed, with their texts; the look is entered in the log.

    Raises:
        NotForSubmitters: the person submitted or launched the task, and policy asks for four eyes.
    """
    version, evidence = _open(instance, reference, actor)
    view = _rows(instance, version, evidence, actor)
    details = {"evaluation": str(evidence["evaluation"]), "rows": len(view.rows), "held_back": view.held_back}
    if view.other_sites:
        details["other_sites"] = view.other_sites
    with instance.db.begin() as connection:
        if not is_entered(connection, SEEN, version.digest, actor, details):
            log.append(connection, SEEN, actor, version.digest, details)
    return version, view


def picture(instance: Instance, reference: str, actor: Actor, task: str, digest: str) -> tuple[Candidate, Picture]:
    """An image that one of these rows shows: part of a look, entered in the log as one where there was none before.

    Raises:
        NotForSubmitters: see `look`. Forbidden: the task is of a site where the person reads no rows.
        ImageUnknown: no row that may be looked at shows it, or it was erased.
    """
    version, evidence = _open(instance, reference, actor)
    _need_task(instance, version, actor, task)
    rows = [row for row in _rows(instance, version, evidence, actor, task).rows if digest in row.images]
    if not rows or not instance.store.exists(digest):
        raise ImageUnknown(
            f"no test row of {task} that version {version.number} changed shows an image {digest[:12]}; "
            f"`lcia flips {version.number}` names those there are"
        )
    filters = browsing.EntryFilter(kind=SEEN, person=actor.name, subject=version.digest)
    with instance.db.read() as connection:
        looks = browsing.page(connection, filters, limit=1).entries
    if not looks:
        details = {"evaluation": str(evidence["evaluation"]), "rows": len(rows), "image": digest}
        with instance.db.begin() as connection:
            log.append(connection, SEEN, actor, version.digest, details)
    return version, Picture.by_digest(digest, instance.store.get)


def is_entered(connection: Connection, action: str, version: str, actor: Actor, details: dict[str, Any]) -> bool:
    """True if the person's last look showed the same, within the hour: nobody fills the log with looks."""
    mine = (one for one in islice(log.newest(connection, [action], version), 100) if one.actor == actor)
    last = next(mine, None)
    if last is None or last.details != details:
        return False
    return abs(now(connection) - datetime.fromisoformat(last.at)) < AGAIN


def _open(instance: Instance, reference: str, actor: Actor) -> tuple[Candidate, dict[str, Any]]:
    """A version and its evidence, for somebody who may read test rows."""
    version = instance.version(reference)
    assert version is not None  # noqa: S101 - a reference always finds one, or raises
    if quorum.bars(version, actor.name, instance.settings.policy.approval):
        raise NotForSubmitters(
            f"{actor.name} brought in the task of version {version.number}; test rows are for those who approve: "
            f"tuning on these rows would invalidate the test; `lcia show {version.number}` has the counts"
        )
    return version, instance.evidence(version)


def _rows(
    instance: Instance, version: Candidate, evidence: Mapping[str, Any], actor: Actor, task: str | None = None
) -> Seen:
    """Changed rows, of one task or of all, as far as the person may read them."""
    evaluation = instance.store.get_json(str(evidence["evaluation"]))
    reserve = held_back(instance.store, evaluation, instance.store.get_json(str(evidence["gate"])))
    rows = history.flips(instance.store, evaluation, task)
    mine = _readable(instance, version, actor)
    own = [row for row in rows if mine is None or row.task in mine]
    visible = [row for row in own if (row.task, row.row) not in reserve]
    return Seen(visible, len(own) - len(visible), len(rows) - len(own))


def _readable(instance: Instance, version: Candidate, actor: Actor) -> set[str] | None:
    """Names of the version's tasks whose rows the person may read; None for all."""
    if actor.how in people.OPERATOR:
        return None
    owners, grants = _owners(instance, version), _grants(instance, actor)
    if permits(grants, "read_rows", EVERYWHERE):
        return None
    return {name for name, owner in owners.items() if permits(grants, "read_rows", owner)}


def _need_task(instance: Instance, version: Candidate, actor: Actor, task: str) -> None:
    """Refuse rows of another site's task.

    Raises:
        Forbidden: see above.
    """
    if actor.how not in people.OPERATOR:
        need(actor.name, _grants(instance, actor), "read_rows", _owners(instance, version).get(task, EVERYWHERE))


def _grants(instance: Instance, actor: Actor) -> tuple[Grant, ...]:
    with instance.db.read() as connection:
        return people.get(connection, actor.name).grants


def _owners(instance: Instance, version: Candidate) -> dict[str, str]:
    """By name of a task in the version: its owner; `*` where nobody knows."""
    with instance.db.read() as connection:
        owners = candidates.owners(connection, instance.assistant)
    return {entry.name: owners.get(entry.task, EVERYWHERE) for entry in instance.pool(version.digest).tasks()}
