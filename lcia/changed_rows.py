"""Test rows that a version changed, for those who decide about it; who looks at them is entered in the log."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from components.audit import browsing, log
from components.audit.log import Actor
from components.errors import LciaError
from components.evaluation.history import flips
from components.evaluation.reports import Flip
from components.promotion import approvals
from components.promotion.candidates import Candidate
from components.promotion.evidence import held_back
from components.storage.database import now
from components.tasks.images import Picture
from lcia.workplace import Workplace

SEEN = "flips.seen"
AGAIN = timedelta(hours=1)
"""Looks of one person at the same rows within this time are one entry."""


class NotForSubmitters(LciaError):
    """Test rows are read by those who approve, not by those who submit."""


class ImageUnknown(LciaError):
    """An image that no changed test row shows."""


def look(place: Workplace, reference: str, actor: Actor) -> tuple[Candidate, list[Flip], int]:
    """Test rows of prior tasks that a version changed, with their texts; the look is entered in the log.

    Rows of the reserve stay unseen until the gate has opened it; the last value says how many.

    Raises:
        NotForSubmitters: whoever brought the task in may not read test rows, since four eyes are asked for.
    """
    version, evidence = _opened(place, reference, actor)
    seen, hidden = _rows(place, evidence)
    details = {"evaluation": str(evidence["evaluation"]), "rows": len(seen), "held_back": hidden}
    with place.db.begin() as connection:
        if not _entered(connection, version.digest, actor, details):
            log.append(connection, SEEN, actor, version.digest, details)
    return version, seen, hidden


def image(place: Workplace, reference: str, actor: Actor, task: str, digest: str) -> tuple[Candidate, Picture]:
    """An image that one of these rows shows: part of a look, entered in the log as one where there was none before.

    Raises:
        NotForSubmitters: see `look`.
        ImageUnknown: no row that may be looked at shows it, or it was erased.
    """
    version, evidence = _opened(place, reference, actor)
    rows = [row for row in _rows(place, evidence, task)[0] if digest in row.images]
    if not rows or not place.store.exists(digest):
        raise ImageUnknown(
            f"no test row of {task} that version {version.number} changed shows an image {digest[:12]}; "
            f"`lcia flips {version.number}` names those there are"
        )
    wanted = browsing.Wanted(kind=SEEN, person=actor.name, subject=version.digest)
    with place.db.read() as connection:
        looked = browsing.page(connection, wanted, limit=1).entries
    if not looked:
        details = {"evaluation": str(evidence["evaluation"]), "rows": len(rows), "image": digest}
        with place.db.begin() as connection:
            log.append(connection, SEEN, actor, version.digest, details)
    return version, Picture.stored(digest, place.store.get)


def _entered(connection: Connection, version: str, actor: Actor, details: dict[str, Any]) -> bool:
    """Whether the person's last look showed the same, within the hour: nobody fills the log with looks."""
    mine = (one for one in islice(log.newest(connection, [SEEN], version), 100) if one.actor == actor)
    last = next(mine, None)
    if last is None or last.details != details:
        return False
    return abs(now(connection) - datetime.fromisoformat(last.at)) < AGAIN


def _opened(place: Workplace, reference: str, actor: Actor) -> tuple[Candidate, dict[str, Any]]:
    """A version and its evidence, for somebody who may read test rows."""
    version = place.version(reference)
    assert version is not None  # noqa: S101 - a reference always finds one, or raises
    if approvals.barred(version, actor.name, place.settings.policy.approval):
        raise NotForSubmitters(
            f"{actor.name} brought in the task of version {version.number}; test rows are for those who approve, "
            f"for what is tuned on them can't be tested on them; `lcia show {version.number}` has the counts"
        )
    return version, place.evidence(version)


def _rows(place: Workplace, evidence: Mapping[str, Any], task: str | None = None) -> tuple[list[Flip], int]:
    """Changed rows, of one task or of all, without those of the reserve; and how many these are."""
    evaluation = place.store.get_json(str(evidence["evaluation"]))
    hidden = held_back(place.store, evaluation, place.store.get_json(str(evidence["gate"])))
    found = flips(place.store, evaluation, task)
    seen = [row for row in found if (row.task, row.row) not in hidden]
    return seen, len(found) - len(seen)
