"""The audit log: who did what to what, in insert-only rows of canonical bytes.

Each body has the hash of the entry before, and each row the Merkle root over all entries up to it, so anyone can check
an export, offline, from any signed head on. On PostgreSQL the database itself writes the columns beside the body, and
checks who may add an entry; see docs/decisions/0029.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, text
from sqlalchemy.exc import DBAPIError

from components.audit.keys import Head, SigningKey
from components.audit.merkle import Peaks, Span, add_leaf, leaf_hash, parts, root_of
from components.errors import LciaError
from components.storage.database import now
from components.storage.objects import Json, canonical, parse_json, write_durably
from components.storage.tables import log, moment_text


class ActorUnnamed(LciaError):
    """A deed needs a name that can be read."""


class LogDamaged(LciaError):
    """The end of the stored log contradicts itself; nothing may be appended until that is cleared up."""


class EntryRefused(LciaError):
    """The database refuses an entry: it is not the next one, not of this moment, or larger than 4 MiB."""


_WAYS = "restore a backup, or take the damaged end out with `lcia audit set-aside` as the owner of the tables"
_REFUSED = "23L01"
"""SQLSTATE of the database's log writer for an invalid entry."""


@dataclass(frozen=True)
class Actor:
    """A person or program that acts."""

    name: str
    assured: bool
    """True when the system knows the person; False when the name was only asserted."""
    how: str = "asserted"
    """Source of the name: `asserted`, `os-user`, `console`, `system`."""

    def __post_init__(self) -> None:
        """Refuse names nobody could read.

        Raises:
            ActorUnnamed: the name is blank, too long, or holds characters that don't print.
        """
        if not self.name.strip() or len(self.name) > 200 or not self.name.isprintable():
            raise ActorUnnamed(f"{self.name!r} is not a name of 1 to 200 printable characters; give one with --as")

    @classmethod
    def of_log(cls, name: str, assured: bool, how: str) -> "Actor":
        """The actor of a stored entry. Any name in the log is accepted; characters that don't print are spelt out."""
        printable = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in name)[:200]
        return cls(printable if printable.strip() else "(blank)", assured, how)


SYSTEM = Actor("lcia", assured=True, how="system")
"""The worker, acting by rule without a person."""


@dataclass(frozen=True)
class Entry:
    """One entry with its hash and root."""

    index: int
    """0 for the first entry."""
    at: str
    """ISO time, UTC, of the database's clock."""
    actor: Actor
    action: str
    """The deed, as `thing.done`: `task.submitted`, `candidate.approved`, ..."""
    subject: str
    """The thing it was done to: a digest or a name."""
    details: dict[str, Json]
    previous: str
    """Hash of the entry before, '' for the first."""
    hash: str
    """RFC 9162 leaf hash of the canonical body."""
    root: str
    """RFC 9162 tree hash of all entries up to this one."""


@dataclass(frozen=True)
class Deed:
    """Content of a new entry; see `Entry`."""

    action: str
    actor: Actor
    subject: str
    details: dict[str, Json]


def append(
    connection: Connection, action: str, actor: Actor, subject: str, details: dict[str, Json] | None = None
) -> Entry:
    """Add an entry in the caller's write transaction, so that the deed and its record are committed together.

    Raises:
        LogDamaged: the stored last entry does not fit its own hash or root.
        NotCanonical: `details` have no RFC 8785 form; write numbers beyond 2^53 as strings.
    """
    return append_all(connection, [Deed(action, actor, subject, details or {})])[0]


def append_all(connection: Connection, events: Sequence[Deed]) -> list[Entry]:
    """Add entries in order, all at one moment; reads the end of the log once. Errors as in `append`."""
    last = connection.execute(select(log).order_by(log.c.position.desc()).limit(1)).one_or_none()
    size, previous, peaks = 0, "", ()  # type: tuple[int, str, Peaks]
    if last is not None:
        size, previous, peaks = last.position + 1, last.hash, read_peaks(last.peaks)
        fits = leaf_hash(last.body).hex() == last.hash and len(peaks) == size.bit_count()
        if not fits or root_of(peaks).hex() != last.root:
            raise LogDamaged(
                f"entry {last.position}, the last of the log, was altered in the database; nothing is added "
                f"or promoted before that is mended: {_WAYS}. `lcia audit verify` says what else changed"
            )
    moment = moment_text(now(connection))
    rows_to_add: list[dict[str, Any]] = []
    new_entries: list[Entry] = []
    for event in events:
        body = canonical(
            {
                "index": size,
                "at": moment,
                "actor": asdict(event.actor),
                "action": event.action,
                "subject": event.subject,
                "details": event.details,
                "previous": previous,
            }
        )
        leaf = leaf_hash(body)
        peaks = add_leaf(peaks, size, leaf)
        root, below = root_of(peaks).hex(), " ".join(peak.hex() for peak in peaks)
        beside = {"hash": leaf.hex(), "root": root, "peaks": below, "action": event.action, "subject": event.subject}
        rows_to_add.append({"position": size, "body": body, **beside})
        new_entries.append(entry_of(body, leaf.hex(), root))
        size, previous = size + 1, leaf.hex()
    if rows_to_add:
        _enter(connection, rows_to_add)
    return new_entries


def _enter(connection: Connection, rows_to_add: list[dict[str, Any]]) -> None:
    """Insert rows; on PostgreSQL through its log writer, which computes and checks everything but the body."""
    if connection.dialect.name != "postgresql":
        connection.execute(insert(log), rows_to_add)
        return
    try:
        connection.execute(text("SELECT log_enter(:bodies)"), {"bodies": [row["body"] for row in rows_to_add]})
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _REFUSED:
            raise EntryRefused(
                f"{str(error.orig).partition(chr(10))[0]}; nothing was changed. If it says so again, look at the "
                "database's clock and at `lcia audit verify`"
            ) from error
        raise


def head(connection: Connection) -> Head:
    """Number of entries, last hash and root, as stored."""
    last = connection.execute(select(log).order_by(log.c.position.desc()).limit(1)).one_or_none()
    if last is None:
        return Head(0, "", root_of(()).hex(), "")
    return Head(last.position + 1, last.hash, last.root, entry_of(last.body, last.hash, last.root).at)


def entries(
    connection: Connection, *, start: int = 0, limit: int | None = None, subject: str | None = None
) -> list[Entry]:
    """Entries from index `start` on, at most `limit`, of one subject if given."""
    matches = rows(connection, start, subject)
    return [entry_of(row.body, row.hash, row.root) for row in islice(matches, limit)]


def newest(connection: Connection, actions: Sequence[str], subject: str | None = None) -> Iterator[Entry]:
    """Entries of some actions, of one subject if given, from the newest back; read only as far as needed."""
    before: int | None = None
    mine = log.c.action.in_(list(actions)) & (True if subject is None else log.c.subject == subject)
    while True:
        query = select(log).where(mine if before is None else mine & (log.c.position < before))
        batch = connection.execute(query.order_by(log.c.position.desc()).limit(_FEW)).all()
        for row in batch:
            before = row.position
            yield entry_of(row.body, row.hash, row.root)
        if len(batch) < _FEW:
            return


_FEW = 20
"""Entries read at once when usually the first is enough."""


def at(connection: Connection, index: int) -> Entry | None:
    """One entry, whose bytes are checked against the hash beside them; None if there is none.

    Raises:
        LogDamaged: it was altered.
    """
    row = connection.execute(select(log).where(log.c.position == index)).one_or_none()
    if row is None:
        return None
    entry = entry_of(row.body, row.hash, row.root)
    if leaf_hash(row.body).hex() != row.hash or entry.index != index:
        raise LogDamaged(f"entry {index} of the log was altered in the database; `lcia audit verify` says what else")
    return entry


def span_hashes(connection: Connection, spans: Iterable[Span]) -> list[bytes]:
    """Tree hash of each span of entries, from stored peaks: the parts of proofs.

    A complete subtree that begins where a larger one does is the last peak beside its last entry. Each span consists of
    few such subtrees, so a proof in a log of a million entries reads about two hundred rows.

    Raises:
        LogDamaged: the stored peaks are not those of the log's tree.
    """
    split = [parts(*span) for span in spans]
    ends = sorted({end - 1 for pieces in split for _, end in pieces})
    hashes: dict[int, tuple[bytes, Peaks]] = {}
    for first in range(0, len(ends), 500):  # SQLite may take no more than 999 parameters
        query = select(log.c.position, log.c.hash, log.c.peaks).where(log.c.position.in_(ends[first : first + 500]))
        for row in connection.execute(query):
            hashes[row.position] = b"".join(read_peaks(row.hash)), read_peaks(row.peaks)
    return [root_of(tuple(_piece(hashes, start, end) for start, end in pieces)) for pieces in split]


def _piece(hashes: dict[int, tuple[bytes, Peaks]], start: int, end: int) -> bytes:
    if end - 1 not in hashes:
        raise LogDamaged(f"entry {end - 1} of the log is missing; restore a backup")
    leaf, peaks = hashes[end - 1]
    if end - start == 1:
        return leaf
    if not peaks:
        raise LogDamaged(f"entry {end - 1} of the log has lost what stands beside it; restore a backup")
    return peaks[-1]


def count(connection: Connection) -> int:
    """Number of entries, from the last position: counting the rows of a long log is slow."""
    last = connection.execute(select(func.max(log.c.position))).scalar_one()
    return 0 if last is None else int(last) + 1


def rows(connection: Connection, start: int = 0, subject: str | None = None) -> Iterator[Row[Any]]:
    """Stored rows from position `start` on, of one subject if given, in order, fetched in batches."""
    mine = (log.c.position >= start) & (True if subject is None else log.c.subject == subject)
    query = select(log).where(mine).order_by(log.c.position)
    with connection.execute(query.execution_options(yield_per=1000)) as cursor:  # also closed if the reader stops early
        yield from cursor


def read_peaks(text: str) -> Peaks:
    """Peaks from their stored text.

    Raises:
        LogDamaged: they are not blank-separated hex hashes.
    """
    try:
        return tuple(bytes.fromhex(part) for part in text.split())
    except ValueError as error:
        raise LogDamaged(f"stored peaks of the log are not hashes ({error}); {_WAYS}") from error


def head_path(export_file: Path) -> Path:
    """Path of an export's signed head: beside it, with `.head` added."""
    return export_file.with_name(export_file.name + ".head")


def export(connection: Connection, path: Path, key: SigningKey | None = None) -> Head:
    """Write the log as JSON Lines `{"body", "hash", "root"}`, and with `key` its signed head beside it.

    Each line is canonical JSON, so any changed byte shows. The file appears whole or not at all. Returns the head,
    which is worth keeping out of reach of the database's administrators.

    Raises:
        LogDamaged: a stored body is not JSON; `verify_database` names the entry.
    """
    write_export(path, lines(connection))
    end = head(connection)
    write_head(path, key.sign(end) if key else None)
    return end


def lines(connection: Connection, start: int = 0) -> Iterator[bytes]:
    """The lines of an export, from entry `start` on.

    Raises:
        LogDamaged: see `export`.
    """
    return (_line(row.position, row.body, row.hash, row.root) for row in rows(connection, start))


def write_export(path: Path, content: Iterable[bytes]) -> None:
    """Write lines to a file, which appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def write_head(export_file: Path, content: bytes | None) -> None:
    """Write a signed head beside an export; None removes that of an earlier export."""
    beside = head_path(export_file)
    if content is None:
        beside.unlink(missing_ok=True)
    else:
        write_durably(beside, content)


def _line(position: int, body: bytes, leaf: str, root: str) -> bytes:
    try:
        return canonical({"body": parse_json(body), "hash": leaf, "root": root}) + b"\n"
    except LciaError as error:
        raise LogDamaged(f"entry {position} of the stored log is damaged and can't be exported: {error}") from error


def entry_of(body: bytes, leaf: str, root: str) -> Entry:
    """The entry of a stored body, with the hash and root beside it.

    Raises:
        LogDamaged: the bytes are not those of an entry.
    """
    try:
        value = parse_json(body)
        return Entry(**{**value, "actor": Actor.of_log(**value["actor"])}, hash=leaf, root=root)
    except (LciaError, TypeError, KeyError) as error:
        raise LogDamaged(f"a stored log entry can't be read ({error}); run `lcia audit verify`") from error
