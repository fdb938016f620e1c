"""Delivery of signed heads to places outside the database, out of reach of its administrators.

A place is a folder, any fsspec URL, or `mlflow`. A head is written once under a name of its own, so it never replaces
an earlier one. Missing heads are read off the log and stay in the table `heads` until they are delivered and read back:
a place that is down delays heads but loses none, and nothing waits for them.

On S3 the bucket's own default retention (Object Lock) locks them; lcia only makes plain writes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem
from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from components.audit.keys import Head, SigningKey, read_head, write_key_file
from components.audit.log import head
from components.errors import LciaError
from components.storage.database import Database, now
from components.storage.tables import heads

MLFLOW = "mlflow"
Keep = Callable[[str, bytes], None]
"""Writes a head under a name and reads it back; raises LciaError if that fails."""


class HeadNotKept(LciaError):
    """A place did not take a head; it is tried again."""


@dataclass(frozen=True)
class Kept:
    """One attempt to deliver a head."""

    place: str
    entries: int
    ok: bool
    message: str


def missing(connection: Connection, places: Iterable[str], entries: int) -> list[str]:
    """Places for which no head of at least `entries` entries is queued yet."""
    query = select(heads.c.place, func.max(heads.c.entries)).group_by(heads.c.place)
    newest: dict[str, int] = {row[0]: row[1] for row in connection.execute(query)}
    return [place for place in dict.fromkeys(places) if newest.get(place, 0) < entries]


def enqueue(db: Database, key: SigningKey, places: Iterable[str]) -> bytes:
    """Sign the present log and queue the head for each place; returns the head file."""
    with db.read() as connection:
        now_ = head(connection)
    content = key.sign(now_)
    for place in dict.fromkeys(places):
        mine = (heads.c.place == place) & (heads.c.entries == now_.entries)
        try:
            with db.begin() as connection:
                if connection.execute(select(heads.c.entries).where(mine)).first() is None:
                    values = {"entries": now_.entries, "place": place, "content": content.decode(), "attempts": 0}
                    connection.execute(insert(heads).values(**values, at=now(connection)))
        except IntegrityError:  # another process has just queued it
            continue
    return content


def deliver(db: Database, places: Iterable[str], keepers: Mapping[str, Keep] | None = None) -> list[Kept]:
    """Deliver every waiting head to its place, oldest first; a place that fails is skipped until the next call.

    Only to `places`: after a move or copy of the state, places that the settings no longer name belong to another
    state. `keepers`: places that are no file system. May be repeated, and run by several processes at once.
    """
    with db.read() as connection:
        waiting = heads.c.done_at.is_(None) & heads.c.place.in_(list(places))
        rows = connection.execute(select(heads).where(waiting).order_by(heads.c.entries)).mappings().all()
    attempts: list[Kept] = []
    down: set[str] = set()
    for row in rows:
        place, content = str(row["place"]), str(row["content"]).encode()
        if place in down:
            continue
        error: str | None = None
        try:
            (keepers or {}).get(place, file_keeper(place))(name_of(read_head(content, None)), content)
        except LciaError as refused:
            error = str(refused)
            down.add(place)
        with db.begin() as connection:
            moment = None if error else now(connection)
            values = {"attempts": row["attempts"] + 1, "error": error, "done_at": moment}
            mine = (heads.c.place == place) & (heads.c.entries == row["entries"])
            connection.execute(update(heads).where(mine).values(**values))
        attempts.append(
            Kept(place, int(row["entries"]), error is None, error or f"head of {row['entries']} entries kept")
        )
    return attempts


def waiting(connection: Connection, places: Iterable[str]) -> list[tuple[str, int, str]]:
    """Place, length and last error of every head that still waits for one of the places."""
    mine = heads.c.done_at.is_(None) & heads.c.place.in_(list(places))
    query = select(heads.c.place, heads.c.entries, heads.c.error).where(mine)
    return [(place, entries, error or "") for place, entries, error in connection.execute(query)]


def name_of(head: Head) -> str:
    """File name of a head: sorts by length, and differs for another log of the same length."""
    return f"{head.entries:012d}-{head.root[:16]}.head"


def file_keeper(place: str) -> Keep:
    """Keeper that writes into a folder or below an fsspec URL."""

    def keep(name: str, content: bytes) -> None:
        try:
            files, root = fsspec.core.url_to_fs(place)
            path = f"{str(root).rstrip('/')}/{name}"
            if not files.exists(path):
                if isinstance(files, LocalFileSystem):
                    Path(root).mkdir(parents=True, exist_ok=True)
                    write_key_file(Path(path), content, 0o444, overwrite=False)
                else:
                    files.makedirs(str(root), exist_ok=True)
                    files.pipe_file(path, content)
            stored_content = bytes(files.cat_file(path))
        except ImportError as error:
            raise HeadNotKept(
                f"heads can't be kept at {place}: {error}. Install what it names, or name a folder or `mlflow` in "
                "audit.heads_to"
            ) from error
        except (OSError, ValueError) as error:
            raise HeadNotKept(f"heads can't be kept at {place}: {error}. They are tried again") from error
        need_same(place, name, content, stored_content)

    return keep


def need_same(place: str, name: str, content: bytes, actual: bytes) -> None:
    """Refuse a place that holds a head other than the one written.

    Raises:
        HeadNotKept: it holds another one.
    """
    if actual != content and read_head(actual, None) != read_head(content, None):
        raise HeadNotKept(f"{place} holds another head as {name}, expected what was signed: somebody altered it")


def newest_kept(places: Iterable[str]) -> list[tuple[str, bytes]]:
    """Name and content of the newest head in each place that is a folder on this machine."""
    results = []
    for place in places:
        if place == MLFLOW or "://" in place:
            continue
        files = sorted(Path(place).glob("*.head"))
        results += [(str(files[-1]), files[-1].read_bytes())] if files else []
    return results


def all_heads(connection: Connection) -> list[tuple[str, bytes]]:
    """Place and content of every head in the database, delivered or not."""
    query = select(heads.c.place, heads.c.content).order_by(heads.c.entries)
    return [(f"the head for {place}", content.encode()) for place, content in connection.execute(query)]
