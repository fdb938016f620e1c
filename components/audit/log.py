"""The audit log: who did what to what, in insert-only rows of canonical bytes.

Each body names the hash of the entry before, and beside each entry stands the Merkle root over all entries up
to it, so that an export can be checked by anyone, offline, from any signed head on.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from components.audit.keys import Head, SigningKey
from components.audit.merkle import Peaks, add_leaf, leaf_hash, root_of
from components.errors import LciaError
from components.storage.database import now
from components.storage.objects import Json, canonical, parse_json, write_durably
from components.storage.tables import log, moment_text


class ActorUnnamed(LciaError):
    """A deed needs a name that can be read."""


class LogDamaged(LciaError):
    """The end of the stored log contradicts itself; nothing may be appended before that is understood."""


@dataclass(frozen=True)
class Actor:
    """Who acts."""

    name: str
    assured: bool
    """True when the system knows the person; False when the name was only asserted."""
    how: str = "asserted"
    """Where the name comes from: `asserted`, `os-user`, `console`, `system`."""

    def __post_init__(self) -> None:
        """Refuse names nobody could read.

        Raises:
            ActorUnnamed: the name is blank, too long, or holds characters that don't print.
        """
        if not self.name.strip() or len(self.name) > 200 or not self.name.isprintable():
            raise ActorUnnamed(f"{self.name!r} is not a name of 1 to 200 printable characters; give one with --as")


SYSTEM = Actor("lcia", assured=True, how="system")
"""The worker acting on its own, by rule."""


@dataclass(frozen=True)
class Entry:
    """One entry with what stands beside it."""

    index: int
    """0 for the first entry."""
    at: str
    """ISO time, UTC, of the database's clock."""
    actor: Actor
    action: str
    """What was done, as `thing.done`: `task.submitted`, `candidate.approved`, ..."""
    subject: str
    """What it was done to: a digest or a name."""
    details: dict[str, Json]
    previous: str
    """Hash of the entry before, '' for the first."""
    hash: str
    """RFC 9162 leaf hash of the canonical body."""
    root: str
    """RFC 9162 tree hash of all entries up to this one."""


@dataclass(frozen=True)
class Deed:
    """What is to be entered; see `Entry`."""

    action: str
    actor: Actor
    subject: str
    details: dict[str, Json]


def append(
    connection: Connection, action: str, actor: Actor, subject: str, details: dict[str, Json] | None = None
) -> Entry:
    """Add an entry in the caller's write transaction, so that the deed and its record stand or fall together.

    Raises:
        LogDamaged: the stored last entry does not fit its own hash or root.
        NotCanonical: `details` have no RFC 8785 form; write numbers beyond 2^53 as strings.
    """
    return append_all(connection, [Deed(action, actor, subject, details or {})])[0]


def append_all(connection: Connection, deeds: Sequence[Deed]) -> list[Entry]:
    """Add entries in order, all at one moment; reads the end of the log once. Errors as in `append`."""
    last = connection.execute(select(log).order_by(log.c.position.desc()).limit(1)).one_or_none()
    size, previous, peaks = 0, "", ()  # type: tuple[int, str, Peaks]
    if last is not None:
        size, previous, peaks = last.position + 1, last.hash, read_peaks(last.peaks)
        fits = leaf_hash(last.body).hex() == last.hash and len(peaks) == size.bit_count()
        if not fits or root_of(peaks).hex() != last.root:
            raise LogDamaged(
                f"entry {last.position}, the last of the log, was altered in the database; nothing is added "
                "or promoted until it is restored from a backup. `lcia audit verify` says what else changed"
            )
    moment = moment_text(now(connection))
    stored: list[dict[str, Any]] = []
    made: list[Entry] = []
    for deed in deeds:
        body = canonical(
            {
                "index": size,
                "at": moment,
                "actor": asdict(deed.actor),
                "action": deed.action,
                "subject": deed.subject,
                "details": deed.details,
                "previous": previous,
            }
        )
        leaf = leaf_hash(body)
        peaks = add_leaf(peaks, size, leaf)
        root, below = root_of(peaks).hex(), " ".join(peak.hex() for peak in peaks)
        stored.append({"position": size, "body": body, "hash": leaf.hex(), "root": root, "peaks": below})
        made.append(parsed(body, leaf.hex(), root))
        size, previous = size + 1, leaf.hex()
    if stored:
        connection.execute(insert(log), stored)
    return made


def head(connection: Connection) -> Head:
    """Number of entries, last hash and root, as stored."""
    last = connection.execute(select(log).order_by(log.c.position.desc()).limit(1)).one_or_none()
    if last is None:
        return Head(0, "", root_of(()).hex(), "")
    return Head(last.position + 1, last.hash, last.root, parsed(last.body, last.hash, last.root).at)


def entries(
    connection: Connection, *, start: int = 0, limit: int | None = None, subject: str | None = None
) -> list[Entry]:
    """Entries from index `start` on, at most `limit`, of one subject if given."""
    found = []
    for row in rows(connection, start):
        entry = parsed(row.body, row.hash, row.root)
        if subject is None or entry.subject == subject:
            found.append(entry)
            if limit is not None and len(found) >= limit:
                break
    return found


def backwards(connection: Connection, batch: int = 500) -> Iterator[Entry]:
    """Entries from the newest to the oldest, read as far as they are taken."""
    end = count(connection)
    while end > 0:
        query = select(log).where(log.c.position < end, log.c.position >= end - batch)
        for row in connection.execute(query.order_by(log.c.position.desc())).all():
            yield parsed(row.body, row.hash, row.root)
        end -= batch


def leaves(connection: Connection, size: int) -> list[bytes]:
    """Leaf hashes of the first `size` entries, as stored: what proofs are made of."""
    query = select(log.c.hash).where(log.c.position < size).order_by(log.c.position)
    return [bytes.fromhex(leaf) for leaf in connection.execute(query).scalars()]


def count(connection: Connection) -> int:
    """Number of entries, off the last one's place: counting a long log takes its time."""
    last = connection.execute(select(func.max(log.c.position))).scalar_one()
    return 0 if last is None else int(last) + 1


def rows(connection: Connection, start: int = 0) -> Iterator[Row[tuple[int, bytes, str, str, str]]]:
    """Stored rows from position `start` on, in order, fetched in batches."""
    query = select(log.c.position, log.c.body, log.c.hash, log.c.root, log.c.peaks)
    query = query.where(log.c.position >= start).order_by(log.c.position)
    yield from connection.execute(query.execution_options(yield_per=1000))


def read_peaks(text: str) -> Peaks:
    """Peaks as stored.

    Raises:
        LogDamaged: they are not blank-separated hex hashes.
    """
    try:
        return tuple(bytes.fromhex(part) for part in text.split())
    except ValueError as error:
        raise LogDamaged(f"stored peaks of the log are not hashes ({error}); restore a backup") from error


def head_path(export_file: Path) -> Path:
    """Where the signed head of an export stands: beside it, `.head` added."""
    return export_file.with_name(export_file.name + ".head")


def export(connection: Connection, path: Path, key: SigningKey | None = None) -> Head:
    """Write the log as JSON Lines `{"body", "hash", "root"}`, and with `key` its signed head beside it.

    Each line is canonical JSON, so any changed byte shows. The file appears whole or not at all.
    Returns the head, which is worth keeping where the database's administrators can't reach.

    Raises:
        LogDamaged: a stored body is not JSON; `verify_database` names the entry.
    """
    write_export(path, lines(connection))
    seen = head(connection)
    write_head(path, key.sign(seen) if key else None)
    return seen


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


def write_head(export_file: Path, signed: bytes | None) -> None:
    """Write a signed head beside an export; None takes away one of an earlier export."""
    beside = head_path(export_file)
    if signed is None:
        beside.unlink(missing_ok=True)
    else:
        write_durably(beside, signed)


def _line(position: int, body: bytes, leaf: str, root: str) -> bytes:
    try:
        return canonical({"body": parse_json(body), "hash": leaf, "root": root}) + b"\n"
    except LciaError as error:
        raise LogDamaged(f"entry {position} of the stored log is damaged and can't be exported: {error}") from error


def parsed(body: bytes, leaf: str, root: str) -> Entry:
    """An entry off its stored bytes and what stands beside them.

    Raises:
        LogDamaged: they are not those of an entry.
    """
    try:
        value = parse_json(body)
        return Entry(**{**value, "actor": Actor(**value["actor"])}, hash=leaf, root=root)
    except (LciaError, TypeError, KeyError) as error:
        raise LogDamaged(f"a stored log entry can't be read ({error}); run `lcia audit verify`") from error
