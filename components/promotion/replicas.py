"""Replicas: gateways that answer for an assistant, as they report themselves, beside the version that was decided.

A replica differs while it is not ready with the version that was decided. Since when it does follows from three times:
the decision, the last report in which it agreed with the decision of that moment, and its first report.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, insert, select, update

from components.audit.log import Actor
from components.errors import LciaError
from components.names import same_person
from components.promotion import candidates, champion
from components.promotion.candidates import Candidate
from components.promotion.champion import Champion
from components.storage.database import now
from components.storage.objects import Json, ObjectStore, canonical
from components.storage.tables import candidates as candidates_table
from components.storage.tables import replicas as table
from components.visible import is_plain, visible

FRESH = timedelta(seconds=30)
"""Time without a report after which a replica does not count."""
FORGOTTEN = timedelta(days=1)
"""Time without a report after which a replica is deleted."""
MOST = 500
"""Replicas that an assistant may have."""
LONGEST_ENGINE, LONGEST_PROBLEM = 40, 1000
"""Characters of an engine's name, and characters that are kept of a problem."""
LARGEST = 64 * 1024
"""Bytes of each of the three JSON values of a report, in canonical form."""
ASKABLE = frozenset({"pending", "promoted"})
"""States of versions that a gateway may fetch: the champion, earlier ones, and those that wait for people."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,79}")


class ReportRefused(LciaError):
    """A report that can't be recorded."""


class NotAskable(LciaError):
    """A version that no gateway may answer with."""


@dataclass(frozen=True)
class Replica:
    """A gateway at its last report."""

    replica: str
    """Its name."""
    engine: str
    version: str | None
    """Digest of the version it answers with; None if it has none."""
    number: int | None
    """Number of that version; None if it is unknown here."""
    ready: bool
    problem: str
    """A sentence; empty if there is none."""
    traffic: dict[str, dict[str, int]]
    """Group, or `none`, -> `requests` and `errors` since the replica started."""
    latency: dict[str, Json]
    trial: Json
    reported_by: str
    started_at: datetime
    """First report after a silence of `FRESH`, or the first of all."""
    reported_at: datetime
    agreed_at: datetime | None
    """Last report in which it was ready with the version that was decided at that moment."""

    def differs_since(self, decided: Champion | None) -> datetime | None:
        """Time since which it has not been ready with the decided version; None if it is."""
        if decided is None or self.agrees(decided):
            return None
        return max(decided.decided_at, self.agreed_at or self.started_at)

    def agrees(self, decided: Champion) -> bool:
        """True if it is ready with the decided version."""
        return self.ready and self.version == decided.version


@dataclass(frozen=True)
class Fleet:
    """Replicas of an assistant beside the decision, at one moment."""

    decided: Champion | None
    moment: datetime
    replicas: tuple[Replica, ...]
    """All that reported within `FORGOTTEN`, by name."""

    def is_fresh(self, replica: Replica) -> bool:
        """True if a replica reported just now; a report from the future was dated by a clock that was wrong."""
        return _silence(replica, self.moment) < FRESH

    @property
    def fresh(self) -> tuple[Replica, ...]:
        """Replicas that count."""
        return tuple(filter(self.is_fresh, self.replicas))

    @property
    def serving(self) -> int:
        """Number of replicas that count and are ready with the decided version."""
        return sum(self.decided is not None and one.agrees(self.decided) for one in self.fresh)

    @property
    def differs_since(self) -> datetime | None:
        """Earliest time since which one of those that count differs; None if all agree."""
        return min(filter(None, (one.differs_since(self.decided) for one in self.fresh)), default=None)

    @property
    def traffic(self) -> dict[str, dict[str, int]]:
        """Group -> counts, added up over the replicas that count, by group."""
        sums: dict[str, Counter[str]] = {}
        for one in self.fresh:
            for group, counts in one.traffic.items():
                sums.setdefault(group, Counter()).update(counts)
        return {group: dict(sums[group]) for group in sorted(sums)}


def record(
    connection: Connection,
    assistant: str,
    replica: str,
    *,
    engine: str,
    version: str | None,
    ready: bool,
    problem: str,
    traffic: Mapping[str, Mapping[str, int]],
    latency: Mapping[str, Json],
    trial: Json,
    actor: Actor,
) -> None:
    """Record a replica's report in place of its last one, and delete replicas that were silent for `FORGOTTEN`.

    Raises:
        ReportRefused: a name that is not plain, too many bytes, too many replicas, or another's name.
    """
    counts: dict[str, Json] = {group: dict(own) for group, own in traffic.items()}
    _check(replica, engine, {"traffic": counts, "latency": dict(latency), "trial": trial})
    moment, decided = now(connection), champion.current(connection, assistant)
    _forget(connection, assistant, moment)
    others = {one.replica: one for one in _all(connection, assistant)}
    before = others.pop(replica, None)
    lasting = before if before is not None and _silence(before, moment) < FRESH else None
    if lasting is not None and not same_person(lasting.reported_by, actor.name):
        raise ReportRefused(
            f"{lasting.reported_by} reports as the replica {replica!r} already; start this gateway under another name"
        )
    agrees = decided is not None and ready and version == decided.version
    values = {
        "engine": engine,
        "version": version,
        "ready": ready,
        "problem": visible(problem)[:LONGEST_PROBLEM],
        "traffic": counts,
        "latency": dict(latency),
        "trial": trial,
        "reported_by": actor.name,
        "started_at": lasting.started_at if lasting else moment,
        "reported_at": moment,
        "agreed_at": moment if agrees else lasting.agreed_at if lasting else None,
    }
    if before is None:
        _make_room(connection, assistant, list(others.values()), moment)
        connection.execute(insert(table).values(assistant=assistant, replica=replica, **values))
    else:
        connection.execute(update(table).where(_row(assistant, replica)).values(**values))


def fleet(connection: Connection, assistant: str) -> Fleet:
    """Replicas that reported within `FORGOTTEN`, and the version that was decided."""
    moment = now(connection)
    heard = tuple(one for one in _all(connection, assistant) if _silence(one, moment) < FORGOTTEN)
    return Fleet(champion.current(connection, assistant), moment, heard)


def need_askable(connection: Connection, store: ObjectStore, assistant: str, reference: str) -> Candidate:
    """The version of a number or digest, if a gateway may answer with it.

    Raises:
        CandidateUnknown: there is none.
        NotAskable: it was rejected, overtaken or erased.
    """
    version = candidates.get(connection, assistant, reference)
    if version.state not in ASKABLE:
        raise NotAskable(
            f"version {version.number} is {version.state} ({version.reason}); gateways answer with the champion, with "
            "earlier ones and with versions that wait for people"
        )
    why = store.why_erased(version.digest)
    if why is not None:
        raise NotAskable(f"version {version.number} was erased: {why}; ask another one")
    return version


def _check(replica: str, engine: str, values: Mapping[str, Json]) -> None:
    if not _NAME.fullmatch(replica):
        raise ReportRefused(
            f"{replica[:80]!r} is no name of a replica; expected 1 to 80 of A-Z, a-z, 0-9, '.', '_', ':' and '-', with "
            "a letter or digit first"
        )
    if not is_plain(engine) or len(engine) > LONGEST_ENGINE:
        raise ReportRefused(f"{engine[:80]!r} is no name of an engine; expected at most {LONGEST_ENGINE} plain signs")
    for name, value in values.items():
        size = len(canonical(value))
        if size > LARGEST:
            raise ReportRefused(f"{name} of the report has {size} bytes, expected at most {LARGEST}")


def _silence(replica: Replica, moment: datetime) -> timedelta:
    return abs(moment - replica.reported_at)


def _forget(connection: Connection, assistant: str, moment: datetime) -> None:
    silent = (table.c.reported_at < moment - FORGOTTEN) | (table.c.reported_at > moment + FORGOTTEN)
    connection.execute(delete(table).where(table.c.assistant == assistant, silent))


def _make_room(connection: Connection, assistant: str, others: Sequence[Replica], moment: datetime) -> None:
    """Delete the replica that was silent for longest if there are as many as there may be.

    Raises:
        ReportRefused: all of them report.
    """
    if len(others) < MOST:
        return
    eldest = max(others, key=lambda one: _silence(one, moment))
    if _silence(eldest, moment) < FRESH:
        raise ReportRefused(f"{MOST} replicas report for {assistant} already, which is the most; end some")
    connection.execute(delete(table).where(_row(assistant, eldest.replica)))


def _row(assistant: str, replica: str) -> ColumnElement[bool]:
    return (table.c.assistant == assistant) & (table.c.replica == replica)


def _all(connection: Connection, assistant: str) -> list[Replica]:
    query = select(table, candidates_table.c.number)
    query = query.join(candidates_table, candidates_table.c.digest == table.c.version, isouter=True)
    rows = connection.execute(query.where(table.c.assistant == assistant).order_by(table.c.replica)).mappings()
    return [_replica(row) for row in rows]


def _replica(row: RowMapping) -> Replica:
    return Replica(**{name: row[name] for name in row if name != "assistant"})
