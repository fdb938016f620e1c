"""Test rows that a version changed, for those who decide about it; who looks at them is entered in the log."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.audit import browsing, log
from components.audit.log import Actor
from components.errors import LciaError
from components.evaluation.history import flips
from components.evaluation.reports import Flip
from components.identity import people
from components.identity.access import EVERYWHERE, allowed
from components.promotion import candidates, quorum
from components.promotion.candidates import Candidate
from components.promotion.evidence import held_back
from components.tasks.images import Picture
from lcia.workplace import Workplace

SEEN = "flips.seen"


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


def look(place: Workplace, reference: str, actor: Actor) -> tuple[Candidate, Seen]:
    """Test rows of prior tasks that a version changed, with their texts; the look is entered in the log.

    Raises:
        NotForSubmitters: whoever brought the task in may not read test rows, since four eyes are asked for.
    """
    version, evidence = _opened(place, reference, actor)
    seen = _rows(place, version, evidence, actor)
    details = {"evaluation": str(evidence["evaluation"]), "rows": len(seen.rows), "held_back": seen.held_back}
    if seen.other_sites:
        details["other_sites"] = seen.other_sites
    with place.db.begin() as connection:
        log.append(connection, SEEN, actor, version.digest, details)
    return version, seen


def image(place: Workplace, reference: str, actor: Actor, task: str, digest: str) -> tuple[Candidate, Picture]:
    """An image that one of these rows shows: part of a look, entered in the log as one where there was none before.

    Raises:
        NotForSubmitters: see `look`.
        ImageUnknown: no row that may be looked at shows it, or it was erased.
    """
    version, evidence = _opened(place, reference, actor)
    rows = [row for row in _rows(place, version, evidence, actor, task).rows if digest in row.images]
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


def _opened(place: Workplace, reference: str, actor: Actor) -> tuple[Candidate, dict[str, Any]]:
    """A version and its evidence, for somebody who may read test rows."""
    version = place.version(reference)
    assert version is not None  # noqa: S101 - a reference always finds one, or raises
    if quorum.barred(version, actor.name, place.settings.policy.approval):
        raise NotForSubmitters(
            f"{actor.name} brought in the task of version {version.number}; test rows are for those who approve, "
            f"for what is tuned on them can't be tested on them; `lcia show {version.number}` has the counts"
        )
    return version, place.evidence(version)


def _rows(
    place: Workplace, version: Candidate, evidence: Mapping[str, Any], actor: Actor, task: str | None = None
) -> Seen:
    """Changed rows, of one task or of all, as far as the person may read them."""
    evaluation = place.store.get_json(str(evidence["evaluation"]))
    hidden = held_back(place.store, evaluation, place.store.get_json(str(evidence["gate"])))
    found = flips(place.store, evaluation, task)
    mine = _readable(place, version, actor)
    own = [row for row in found if mine is None or row.task in mine]
    seen = [row for row in own if (row.task, row.row) not in hidden]
    return Seen(seen, len(own) - len(seen), len(found) - len(own))


def _readable(place: Workplace, version: Candidate, actor: Actor) -> set[str] | None:
    """Names of the version's tasks whose rows the person may read; None for all."""
    if actor.how in people.OPERATOR:
        return None
    with place.db.read() as connection:
        grants = people.get(connection, actor.name).grants
        owners = candidates.owners(connection, place.assistant)
    if allowed(grants, "read_rows", EVERYWHERE):
        return None
    entries = place.pool(version.digest).tasks()
    return {one.name for one in entries if allowed(grants, "read_rows", owners.get(one.task, EVERYWHERE))}
