"""Notices: mail and webhooks about what waits for people or went wrong, once each and never lost.

Notices are read off the log, so no code path can forget one. Each stays in the database until it is delivered; a
channel that is down is tried again, after a longer pause each time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Connection, insert, select, update

from components.audit import log
from components.errors import LciaError
from components.names import version_deed
from components.promotion import candidates, quorum, replicas
from components.promotion.trial_rows import CANARY, RULES
from components.registry.outbox import backlog
from components.settings import ApprovalSettings
from components.storage.database import Database, now
from components.storage.leases import acquire, process_owner, release
from components.storage.objects import Json
from components.storage.tables import notices
from components.visible import visible

KINDS = {
    "candidate.registered": "pending",
    "task.held": "held",
    "task.failed": "failed",
    "task.refused": "refused",
    "champion.promoted": "promoted",
    "champion.rolled_back": "rolled back",
    "gate.overridden": "gate overridden",
    "registry.repaired": "tampering",
    "policy.proposed": "policy",
    "appointment.proposed": "appointment",
    "version.differs": "worse",
    "trial.requested": "trial",
    "trial.ended": "trial stopped",
}
"""Log entry -> kind of the notice it leads to. `expiring`, `tampering`, `refused by MLflow` and `not followed` have no
log entry."""

CURSOR = "cursor"
"""Kind of the row that remembers how far the log has been read."""
_CARRIES = " It carries an earlier version over, whose approvals don't count for it; its page says what is new."
FIRST_RETRY, LONGEST_RETRY = timedelta(minutes=1), timedelta(hours=6)
LEASE_SECONDS = 120.0


class NotDelivered(LciaError):
    """A channel did not take a notice; it is tried again."""


@dataclass(frozen=True)
class Notice:
    """Something to tell."""

    id: int
    kind: str
    payload: dict[str, Json]
    """`title` and `text` for people, hidden characters spelt out; `subject`, `position` and `link` for programs."""
    at: datetime
    attempts: int


class Channel(Protocol):
    """A way to people."""

    name: str
    """Unique among the channels."""

    def send(self, notice: Notice) -> None:
        """Deliver.

        Raises:
            NotDelivered: try again later.
        """


@dataclass(frozen=True)
class Sent:
    """One attempt."""

    kind: str
    channel: str
    ok: bool
    message: str


def collect(connection: Connection, assistant: str, channels: list[str], link: str = "") -> int:
    """Turn new log entries into notices for each channel; returns how many. Without channels nothing is collected.

    Entries from before the first channel was set up lead to no notice.
    """
    if not channels:
        return 0
    cursor = (notices.c.assistant == assistant) & (notices.c.kind == CURSOR)
    row = connection.execute(select(notices.c.payload).where(cursor)).one_or_none()
    size = log.count(connection)
    if row is None:
        _insert(connection, assistant, CURSOR, "log", "", {"position": size})
        return 0
    count = 0
    for entry in log.entries(connection, start=int(row.payload["position"])):
        if entry.action in KINDS and not _quiet(entry):
            try:
                payload = _payload(entry, link)
            except Exception:  # noqa: BLE001 - of an entry whose details are not as expected people hear all the same
                payload = _bare(entry)
            count += _tell(connection, assistant, KINDS[entry.action], f"entry {entry.index}", payload, channels)
    connection.execute(update(notices).where(cursor).values(payload={"position": size}))
    return count


def warn_of_expiry(
    connection: Connection, assistant: str, policy: ApprovalSettings, hours: float, channels: list[str], link: str = ""
) -> int:
    """Warn of approvals that expire soon while their candidate still waits for more."""
    count, soon = 0, now(connection) + timedelta(hours=hours)
    for candidate in candidates.versions(connection, assistant, "pending"):
        for approval in quorum.valid(connection, candidate, policy):
            if approval.expires_at < soon:
                payload: dict[str, Json] = {
                    "title": f"an approval of version {candidate.number} expires",
                    "text": f"{approval.person}'s approval of version {candidate.number} ({candidate.task_name}) "
                    f"counts until {approval.expires_at:%Y-%m-%d %H:%M} UTC, and more people have to approve before "
                    "that.",
                    "subject": candidate.digest,
                    "link": _link(link, f"versions/{candidate.number}"),
                }
                count += _tell(connection, assistant, "expiring", f"approval {approval.id}", payload, channels)
    return count


def warn_of_refusals(connection: Connection, assistant: str, channels: list[str], link: str = "") -> int:
    """Warn of updates that MLflow refused: it does not show, or serve, what was decided."""
    count = 0
    for row in backlog(connection, assistant):
        if row.parked_at is not None:
            what = row.what
            payload: dict[str, Json] = {
                "title": f"MLflow refused: {what}",
                "text": f"{what} was decided and MLflow does not take it: {row.error} `lcia sync` publishes again what "
                "is missing and tries it again.",
                "subject": row.digest,
                "link": _link(link, f"versions/{row.number}" if row.number is not None else ""),
            }
            count += _tell(connection, assistant, "refused by MLflow", f"outbox {row.id}", payload, channels)
    return count


def warn_of_replicas(
    connection: Connection, assistant: str, seconds: float, channels: list[str], link: str = ""
) -> int:
    """Warn of gateways that have not served the decided version for so long; once for each of them and decision."""
    gateways, count = replicas.fleet(connection, assistant), 0
    decided = gateways.decided
    if decided is None:
        return 0
    number = candidates.get(connection, assistant, decided.version).number
    for one in gateways.fresh:
        since = one.differs_since(decided)
        if since is None or gateways.moment - since < timedelta(seconds=seconds):
            continue
        serves = "no version" if one.version is None else f"version {one.number or one.version[:12]}"
        payload: dict[str, Json] = {
            "title": f"the gateway {one.replica} does not follow the decision for version {number}",
            "text": f"version {number} was decided, and the gateway {one.replica} has not been ready with it since "
            f"{since:%Y-%m-%d %H:%M} UTC; it has {serves}. {one.problem or 'It names no problem.'}",
            "subject": decided.version,
            "link": _link(link, "in-use"),
        }
        about = f"replica {one.replica}, epoch {decided.epoch}"
        count += _tell(connection, assistant, "not followed", about, payload, channels)
    return count


def tampering(connection: Connection, assistant: str, what: str, words: str, channels: list[str]) -> int:
    """Warn that the log or an object was altered. Not read off the log, which may be what can't be written to."""
    payload: dict[str, Json] = {"title": "tampering found", "text": words, "subject": what, "link": ""}
    return _tell(connection, assistant, "tampering", what[:200], payload, channels)


def deliver(db: Database, assistant: str, channels: Mapping[str, Channel]) -> list[Sent]:
    """Send what is due, oldest first; a channel that fails is skipped until the next call.

    One process at a time; a process that dies between sending and recording sends that one notice again.
    """
    lease = acquire(db, f"notices:{assistant}", process_owner("notices"), LEASE_SECONDS)
    if lease is None:
        return []
    deliveries: list[Sent] = []
    try:
        with db.read() as connection:
            moment = now(connection)
            # No pause is longer than this, so a later time was written while the clock was wrong.
            ready = (notices.c.next_at <= moment) | (notices.c.next_at > moment + LONGEST_RETRY)
            due = notices.c.done_at.is_(None) & (notices.c.kind != CURSOR) & ready
            query = select(notices).where(notices.c.assistant == assistant, due).order_by(notices.c.id)
            rows = connection.execute(query).mappings().all()
        down: set[str] = set()
        for row in rows:
            channel = channels.get(row["channel"])
            if channel is None or channel.name in down:
                continue
            texts = {name: visible(str(row["payload"][name])) for name in ("title", "text")}
            notice = Notice(row["id"], row["kind"], {**row["payload"], **texts}, row["at"], row["attempts"])
            error: str | None = None
            try:
                channel.send(notice)
            except NotDelivered as failure:
                error = str(failure)
                down.add(channel.name)
            except Exception as broken:  # noqa: BLE001 - whatever this notice holds, the others are delivered
                error = f"this notice can't be sent by {channel.name}: {type(broken).__name__}"
            _record(db, notice, error)
            deliveries.append(Sent(notice.kind, channel.name, error is None, error or str(notice.payload["title"])))
    finally:
        release(db, lease)
    return deliveries


def waiting(connection: Connection, assistant: str) -> list[Notice]:
    """Notices that are not delivered yet."""
    open_ones = (notices.c.assistant == assistant) & notices.c.done_at.is_(None) & (notices.c.kind != CURSOR)
    rows = connection.execute(select(notices).where(open_ones).order_by(notices.c.id)).mappings()
    return [Notice(row["id"], row["kind"], row["payload"], row["at"], row["attempts"]) for row in rows]


def _record(db: Database, notice: Notice, error: str | None) -> None:
    with db.begin() as connection:
        moment = now(connection)
        pause = min(FIRST_RETRY * 2 ** min(notice.attempts, 20), LONGEST_RETRY)  # unbounded, a timedelta would overflow
        values = {"attempts": notice.attempts + 1, "error": error, "next_at": moment + pause}
        end = {"done_at": None if error else moment}
        connection.execute(update(notices).where(notices.c.id == notice.id).values(**values, **end))


def _tell(
    connection: Connection, assistant: str, kind: str, about: str, payload: dict[str, Json], channels: list[str]
) -> int:
    """A row for each channel that does not have this notice yet."""
    same = (notices.c.assistant == assistant) & (notices.c.kind == kind) & (notices.c.about == about)
    earlier = set(connection.execute(select(notices.c.channel).where(same)).scalars())
    fresh = [channel for channel in channels if channel not in earlier]
    for channel in fresh:
        _insert(connection, assistant, kind, about, channel, payload)
    return len(fresh)


def _insert(
    connection: Connection, assistant: str, kind: str, about: str, channel: str, payload: dict[str, Json]
) -> None:
    moment = now(connection)
    values = {"assistant": assistant, "kind": kind, "about": about, "channel": channel, "payload": payload}
    connection.execute(insert(notices).values(**values, at=moment, next_at=moment, attempts=0))


def _quiet(entry: log.Entry) -> bool:
    """True for the end of a trial that none of its rules stopped: people did it, or know."""
    return entry.action == "trial.ended" and entry.details.get("cause") not in RULES[CANARY]


def _payload(entry: log.Entry, link: str) -> dict[str, Json]:
    details = entry.details
    number = details.get("number")
    what = f"version {number}" if number is not None else entry.subject
    words = {
        "version.differs": f"{what} does not answer as recorded: {details.get('differ')} of {details.get('rows')} rows "
        "differ by more than a near tie.",
        "candidate.registered": f"{what} {version_deed(str(details.get('task_name')))}: gate {details.get('verdict')}; "
        f"it waits for people to approve or reject it.{_CARRIES if details.get('origin') else ''}",
        "champion.promoted": f"{what} is the champion (by {entry.actor.name}: {details.get('reason')}).",
        "champion.rolled_back": f"{what} is the champion again (by {entry.actor.name}: {details.get('reason')}).",
        "gate.overridden": f"{entry.actor.name} says yes in spite of the gate: {details.get('reason')}.",
        "appointment.proposed": f"{entry.actor.name} proposes {details.get('role') or 'another account'} for {what}: "
        f"{details.get('reason')}; another admin has to accept.",
        "trial.requested": f"{entry.actor.name} asks for a canary of {what} on {details.get('share')} of the callers: "
        f"{details.get('reason')}; somebody else has to approve it: `lcia trial approve {details.get('trial')}`.",
        "trial.ended": f"{details.get('reason')}. Every caller of {what} gets the champion again; `lcia trial` has the "
        "counts.",
        "policy.proposed": f"{entry.actor.name} proposes {what}: {details.get('reason')}; another admin has to accept.",
    }
    text = words.get(entry.action, f"{what}: {details.get('reason', entry.action)}")
    return {
        "title": f"{KINDS[entry.action]}: {what}",
        "text": text,
        "subject": entry.subject,
        "position": entry.index,
        "link": _link(link, _page(entry)),
    }


def _bare(entry: log.Entry) -> dict[str, Json]:
    text = f"entry {entry.index} of the log ({entry.action}) can't be put into words; `lcia audit show` has it."
    return {"title": KINDS[entry.action], "text": text, "subject": entry.subject, "position": entry.index, "link": ""}


def _page(entry: log.Entry) -> str:
    """The page of the console that is about an entry."""
    pages = {"policy": "policy", "appointment": "people"}
    if (page := pages.get(entry.action.partition(".")[0])) is not None:
        return page
    for name, page in (("number", "versions"), ("item", "tasks")):
        if entry.details.get(name) is not None:
            return f"{page}/{entry.details[name]}"
    return ""


def _link(base: str, page: str) -> str:
    return f"{base.rstrip('/')}/{page}" if base else ""
