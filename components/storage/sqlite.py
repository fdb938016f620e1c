"""SQLite as the state database: its file, and connections that lose nothing and let readers not wait."""

import os
import sqlite3
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from sqlalchemy import URL, Connection, Dialect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

BUSY_SECONDS = 30
"""Longest wait of a connection for another one's lock."""
ROOM = 64 * 1024
"""Bytes that SQLite needs beside its file: 32 KiB of index, and a page of the log."""
NO_WAL = "its file system has no write-ahead log"
"""Error of a connection whose file can't have a write-ahead log."""


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite URL; None for another database's URL, or any other text."""
    try:
        address = make_url(url)
        return file_of(address, url) if address.get_backend_name() == "sqlite" else None
    except (ArgumentError, ValueError):
        return None


def file_of(address: URL, url: str) -> Path:
    """The file that SQLite opens for a URL.

    Raises:
        ValueError: it is in memory or a folder, or its path has characters that a URL can't carry.
    """
    name = address.database
    if name in (None, "", ":memory:") or "mode" in address.query:
        raise ValueError("it is a database in memory")
    unknown = set(address.query) - {"uri", "timeout", "cache", "vfs", "nolock", "isolation_level"}
    if unknown or ("?" in url and not address.query):
        raise ValueError(
            "SQLite takes what follows the '?' for options, so a path can't hold one: rename the folder, or write "
            "sqlite:///file:PATH?uri=true with %3F for it"
        )
    if str(name).startswith("file:") and address.query.get("uri"):
        name = url2pathname(urlsplit(str(name)).path)
    file = Path(str(name)).absolute()
    if file.is_dir():
        raise ValueError("it is a folder: move that away, and restore the database from a backup")
    return file


def open_read_only(
    file: Path,
    dialect: Dialect,  # noqa: ARG001
    record: object,  # noqa: ARG001
    arguments: object,  # noqa: ARG001
    options: object,  # noqa: ARG001
) -> sqlite3.Connection | None:
    """A read-only connection if nothing can be written beside the file; else None, and SQLAlchemy opens one.

    SQLite writes even to read (the index of its write-ahead log), unless it may treat the file as immutable. That is
    safe only for a file without pending changes in a log beside it.
    """
    may_write = all(os.access(path, os.W_OK, effective_ids=True) for path in (file, file.parent))
    if not file.exists() or (may_write and not has_no_room(file)):
        return None
    log, index = (file.with_name(f"{file.name}-{part}") for part in ("wal", "shm"))
    # an empty log with an index belongs to a writer that is about to begin
    waiting = log.exists() and (index.exists() or log.stat().st_size > 0)
    mode = "mode=ro" if waiting else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"{file.as_uri()}?{mode}", uri=True, timeout=BUSY_SECONDS)
    connection.execute("PRAGMA query_only = ON")
    return connection


def has_no_room(file: Path) -> bool:
    """True if a file's disk has no room for the index of a write-ahead log, which SQLite writes even to read."""
    try:
        disk = os.statvfs(file.parent)
    except OSError:
        return False
    free = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
    return disk.f_blocks > 0 and free * disk.f_frsize < ROOM


def prepare(connection: sqlite3.Connection, record: object) -> None:  # noqa: ARG001
    """Manual transactions, foreign keys, full durability and write-ahead logging for one connection."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA recursive_triggers = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    deadline = time.monotonic() + BUSY_SECONDS
    read_only = cursor.execute("PRAGMA query_only").fetchone()[0]
    while not read_only and cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            mode = cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError:
            # the switch to WAL ignores busy_timeout; it happens once in the life of the file
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            if mode != "wal":
                raise sqlite3.OperationalError(NO_WAL)
    cursor.close()


def begin(connection: Connection) -> None:
    """Begin a transaction: one that writes holds the lock from its start, any other sees one snapshot."""
    if connection.get_execution_options().get("lcia_write"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("BEGIN")
