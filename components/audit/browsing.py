"""The log for people: pages read backwards from the newest entry, with bounded work for a log of any length."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json
from sqlalchemy import ColumnElement, Connection, Row, select

from components.audit.keys import Head
from components.audit.log import Entry, LogDamaged, count, entry_of
from components.errors import LciaError
from components.storage.tables import log, moment_text

BATCH = 2_000
MOST = 40_000
"""Most entries read for one page; then it is shown as it is."""


class EntryUnknown(LciaError):
    """The log has no such entry."""


@dataclass(frozen=True)
class EntryFilter:
    """Conditions on entries; an empty field allows all."""

    kind: str = ""
    """An action such as `candidate.approved`, or its first part."""
    person: str = ""
    """Name of the actor, in any letter case."""
    subject: str = ""
    """A name or the beginning of a digest."""
    since: datetime | None = None
    until: datetime | None = None
    """Aware times; entries of exactly that moment count."""

    def fits(self, value: dict[str, Any]) -> bool:
        """True if the body of an entry meets the conditions."""
        action, moment = str(value["action"]), str(value["at"])
        return (
            (not self.kind or action == self.kind or action.startswith(f"{self.kind}."))
            and (not self.person or str(value["actor"]["name"]).strip().casefold() == self.person.strip().casefold())
            and str(value["subject"]).startswith(self.subject)
            and (self.since is None or moment >= moment_text(self.since))
            and (self.until is None or moment <= moment_text(self.until))
        )

    def conditions(self) -> list[ColumnElement[bool]]:
        """Conditions on the columns beside the body that every such entry meets, even one that can't be read."""
        conditions: list[ColumnElement[bool]] = []
        if self.kind:
            below = log.c.action.startswith(f"{self.kind}.", autoescape=True)
            conditions.append((log.c.action == self.kind) if "." in self.kind else (log.c.action == self.kind) | below)
        if self.subject:
            whole = len(self.subject) == 64
            begins = log.c.subject.startswith(self.subject, autoescape=True)
            conditions.append(log.c.subject == self.subject if whole else begins)
        return conditions


@dataclass(frozen=True)
class LogPage:
    """Some entries, newest first."""

    entries: Sequence[Entry]
    before: int | None
    """Index below which to continue; None at the beginning of the log."""
    full: bool
    """True if the page is full; else continuing may find more, if there is anything left to read."""


def page(connection: Connection, entry_filter: EntryFilter, before: int | None = None, limit: int = 50) -> LogPage:
    """The newest entries below index `before` that meet the filter.

    To decide where to begin and to end, times are assumed to grow with the index.

    Raises:
        LogDamaged: a stored entry can't be read.
    """
    end = count(connection) if before is None else min(before, count(connection))
    if entry_filter.until is not None:
        end = _first_after(connection, moment_text(entry_filter.until), end)
    matches, count_read = [], 0
    batch = limit  # usually enough; otherwise matches are rare, and larger batches follow
    while count_read < MOST:
        query = select(log).where(log.c.position < end, *entry_filter.conditions()).order_by(log.c.position.desc())
        size = min(batch, MOST - count_read)
        rows = connection.execute(query.limit(size)).all()
        for row in rows:
            if entry_filter.fits(_read(row)):
                matches.append(entry_of(row.body, row.hash, row.root))
                if len(matches) == limit:
                    return LogPage(matches, row.position or None, full=True)
        if len(rows) < size or not rows[-1].position:
            return LogPage(matches, None, full=False)
        if entry_filter.since is not None and str(_read(rows[-1])["at"]) < moment_text(entry_filter.since):
            return LogPage(matches, None, full=False)
        end, count_read, batch = rows[-1].position, count_read + len(rows), BATCH
    return LogPage(matches, end or None, full=False)


def entry(connection: Connection, index: int) -> tuple[Entry, bytes]:
    """One entry and its canonical bytes, as stored.

    Raises:
        EntryUnknown: there is no such entry; LogDamaged: it can't be read.
    """
    row = _row(connection, index)
    return entry_of(row.body, row.hash, row.root), bytes(row.body)


def head_of(connection: Connection, entries: int) -> Head:
    """The head of the log at the time it had that many entries, as stored.

    Raises:
        EntryUnknown: it never had so many.
    """
    row = _row(connection, entries - 1)
    return Head(entries, row.hash, row.root, str(_read(row)["at"]))


def _row(connection: Connection, index: int) -> Row[Any]:
    row = connection.execute(select(log).where(log.c.position == index)).one_or_none()
    if row is None:
        raise EntryUnknown(f"the log has no entry {index}; it has {count(connection)}, counted from 0")
    return row


def _first_after(connection: Connection, moment: str, end: int) -> int:
    """The first index below `end` whose entry is later than `moment`, by bisection; `end` if there is none."""
    low = 0
    while low < end:
        middle = (low + end) // 2
        query = select(log).where(log.c.position >= middle).order_by(log.c.position).limit(1)
        if str(_read(connection.execute(query).one())["at"]) > moment:
            end = middle
        else:
            low = middle + 1
    return end


def _read(row: Row[Any]) -> dict[str, Any]:
    try:
        value: dict[str, Any] = from_json(row.body)
        value["actor"]["name"], value["action"], value["subject"], value["at"]
    except (ValueError, TypeError, KeyError) as error:
        raise LogDamaged(f"entry {row.position} of the log can't be read ({error}); run `lcia audit verify`") from error
    return value


def day(text: str, *, end: bool = False) -> datetime:
    """The beginning or the end of a day in UTC, from `2026-01-31`.

    Raises:
        ValueError: it is no date.
    """
    moment = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    return moment.replace(hour=23, minute=59, second=59, microsecond=999_999) if end else moment
