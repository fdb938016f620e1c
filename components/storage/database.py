"""The state database: one writer at a time, a consistent snapshot for readers, one clock.

SQLite starts write transactions with BEGIN IMMEDIATE (otherwise two connections both read epoch 1 and both win);
PostgreSQL takes one advisory lock per write transaction. Either way a write transaction sees the last committed state
and is the only writer, which the log and every compare-and-swap rely on.

Passwords come from PostgreSQL's own places (PGPASSWORD, PGPASSFILE, a service file) or the URL, and are never shown.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, DBAPIError, IntegrityError, NoSuchModuleError

from components.errors import LciaError
from components.storage import sqlite
from components.storage.sqlite import BUSY_SECONDS
from components.storage.tables import metadata

if TYPE_CHECKING:
    from alembic.config import Config
    from psycopg import Connection as PostgresqlConnection

SCHEMA = "0013_wording_proposals"
"""The newest of the migrations, and so the schema that this version of lcia needs."""
IDLE_SECONDS = 300
"""Seconds after which PostgreSQL ends an idle transaction: a client that hangs must not keep others waiting."""
AHEAD = timedelta(minutes=1)
"""Most by which a stored time may lie ahead of the clock: beyond that the clock is or was wrong."""
_WRITER_LOCK = 7_103_951
"""Key of the PostgreSQL advisory lock for which write transactions queue; any fixed number."""
NO_RIGHT = "42501"
"""SQLSTATE of PostgreSQL when rights or row security forbid something."""


class DatabaseUnavailable(LciaError):
    """The database cannot be reached, is locked by another program, or lacks its tables."""


class AccountRefused(DatabaseUnavailable):
    """The account on the database's connection may not do this."""


class SchemaUnknown(DatabaseUnavailable):
    """The tables belong to a later version of lcia, or some are missing."""


class ReadOnly(DatabaseUnavailable):
    """This process may read the database's file, but not write to it."""


class DiskFull(DatabaseUnavailable):
    """The disk of the database is full; committed changes are safe."""


class ValueRefused(LciaError):
    """A value that its column can't hold: too long, out of range, or with characters that are no text."""


class Database:
    """One state database, by SQLAlchemy URL."""

    def __init__(self, url: str) -> None:
        """Prepare connections; nothing is opened before the first transaction.

        Raises:
            DatabaseUnavailable: `url` is not a database URL, or its driver is not installed.
        """
        self._file: Path | None = None
        try:
            address = _parse(url)
            self._sqlite = address.get_backend_name() == "sqlite"
            if self._sqlite:
                self._file = file = sqlite.file_of(address, url)
                file.parent.mkdir(parents=True, exist_ok=True)
                self._engine = create_engine(address, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS})
                event.listen(self._engine, "do_connect", partial(sqlite.open_read_only, file))
                event.listen(self._engine, "connect", sqlite.prepare)
                event.listen(self._engine, "begin", sqlite.begin)
            else:
                patience = {} if "connect_timeout" in address.query else {"connect_timeout": BUSY_SECONDS}
                about = {"application_name": "lcia", **patience}
                self._engine = create_engine(address, pool_pre_ping=True, connect_args=about)
                event.listen(self._engine, "connect", _prepare_postgresql)
        except (ArgumentError, NoSuchModuleError, ImportError, OSError, ValueError) as error:
            raise DatabaseUnavailable(
                f"storage.database {_without_password(url)} cannot be used ({error}); expected sqlite:///FILE or "
                "postgresql://USER@HOST/NAME"
            ) from None  # the cause's message may hold the password
        self.url = address.render_as_string(hide_password=True)

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine, for tests and tools."""
        return self._engine

    def migrate(self) -> None:
        """Bring the tables to this version's schema; any number of processes may call it at once.

        Raises:
            SchemaUnknown: they have the schema of a later version.
        """
        present, head = self.revisions()
        if present == head:  # also with an account that may not create tables
            return
        from alembic import command

        config = _alembic()
        try:
            with self.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except AccountRefused as error:
            raise AccountRefused(
                f"{self.url} has schema {present or 'none'}, this version of lcia needs {head}, and this account may "
                "not change it; run `lcia database migrate` and then `lcia database roles` as the owner of the tables"
            ) from error

    def revisions(self) -> tuple[str | None, str]:
        """The schema revision of the database (None: no tables yet), and the revision that this version of lcia needs.

        Raises:
            SchemaUnknown: this version doesn't know the database's revision, or tables are missing.
        """
        with self.read() as connection:
            names = set(inspect(connection).get_table_names())
            present = _revision(connection) if "alembic_version" in names else None
            if present is None and {"log", "candidates"} <= names:
                raise SchemaUnknown(
                    f"{self.url} has tables and says no schema (its table alembic_version is gone or empty): somebody "
                    "changed it by hand, and nothing else was changed now. Restore it from a backup"
                )
        if present not in {None, SCHEMA} and not _is_older(str(present)):
            raise SchemaUnknown(
                f"{self.url} has schema {present}, and this version of lcia knows schemas up to {SCHEMA}: a later "
                "version has changed the tables. Install that version, or restore the backup from before it"
            )
        if present == SCHEMA and (lacking := sorted(set(metadata.tables) - names)):
            raise SchemaUnknown(
                f"{self.url} has schema {present} and lacks {', '.join(lacking)}: somebody dropped what every verb "
                "needs. Restore it from a backup, then run `lcia audit verify`"
            )
        return present, SCHEMA

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A write transaction: committed at the end of the block, undone by any exception.

        Raises:
            DatabaseUnavailable: no connection, no lock within 30 s, or no tables.
            ReadOnly, AccountRefused, ValueRefused: see the classes.
        """
        with self._connect(write=True) as connection:
            if not self._sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER_LOCK})
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read-only transaction on one consistent snapshot; errors as in `begin`."""
        with self._connect(write=False) as connection:
            if not self._sqlite:
                connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            yield connection

    def now(self, connection: Connection) -> datetime:
        """The database's clock."""
        return now(connection)

    @contextmanager
    def _connect(self, *, write: bool) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(lcia_write=write) as connection, connection.begin():
                yield connection
        except IntegrityError:
            raise
        except DataError as error:
            raise ValueRefused(f"the database does not take a value: {_reason(error)}") from error
        except DatabaseError as error:
            if getattr(error.orig, "sqlstate", None) == NO_RIGHT:
                raise AccountRefused(
                    f"the account of {self.url} may not do this ({_reason(error)}); docs/database.md says which "
                    "process has which account, `lcia doctor` what this one can do"
                ) from error
            full = self._file is not None and sqlite.has_no_room(self._file)
            raise _kind(error, full=full)(explain(error, self.url, full=full)) from error


def _parse(url: str) -> URL:
    """The URL, with psycopg as driver if it names PostgreSQL without one, as other programs write it."""
    address = make_url(url)
    return address.set(drivername="postgresql+psycopg") if address.drivername in ("postgresql", "postgres") else address


def _without_password(url: str) -> str:
    """A text that should be a URL, without the part that may be a password."""
    return repr(re.sub(r"^([\w+]*:/*)?.*@", r"\1***@", url))


def _revision(connection: Connection) -> str | None:
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return revision


def _is_older(revision: str) -> bool:
    """True if a migration leads from a schema to the newest."""
    from alembic.script import ScriptDirectory

    return revision in {script.revision for script in ScriptDirectory.from_config(_alembic()).walk_revisions()}


def _alembic() -> "Config":
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    folder = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", folder.replace("%", "%%"))  # Alembic expands % as in INI files
    return config


def now(connection: Connection) -> datetime:
    """The database's clock: aware, UTC."""
    if connection.dialect.name == "sqlite":
        value = connection.execute(text("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')")).scalar_one()
        return datetime.fromisoformat(str(value))
    moment = connection.execute(text("SELECT clock_timestamp() AT TIME ZONE 'UTC'")).scalar_one()
    return datetime.fromisoformat(f"{moment.isoformat()}+00:00")


def is_ahead(when: datetime, moment: datetime) -> bool:
    """True if a stored time lies in the future of `moment` by more than `AHEAD`."""
    return when - moment > AHEAD


FULL = "disk is full"
"""Part of SQLite's message about a write without room."""
_EXPLANATIONS = (
    ("no such table", "lacks a table ({reason}); `lcia status` or any other verb creates them"),
    ("locked", "stayed locked for {seconds} s by another program; end it and try again"),
    ("lock timeout", "stayed locked for {seconds} s by another program; end it and try again"),
    (sqlite.NO_WAL, "is on a network mount: {reason}; move LCIA_HOME to a local disk, or use PostgreSQL"),
    (FULL, "can't grow: disk full; free space and run the same command again, it goes on from there"),
    ("No space left", "can't grow: disk full; free space and run the same command again, it goes on from there"),
    ("readonly database", "is read-only for user {uid}, and this verb writes; run it as the owner of the state folder"),
    ("malformed", "is damaged ({reason}); restore it from a backup, then run `lcia audit verify`"),
    ("not a database", "is damaged ({reason}); restore it from a backup, then run `lcia audit verify`"),
    ("unable to open", "can't be opened by user {uid}; run it as the owner of the state folder, who can write there"),
    ("", "does not answer ({reason}); check storage.database in zenml.yaml and the server"),
)
"""Parts of drivers' messages with our explanation; the first part that fits counts."""


def explain(error: DBAPIError, url: str, *, full: bool = False) -> str:
    """The message about a driver's error; `full`: the disk has no room, which SQLite words in several ways."""
    reason = _reason(error)
    missing = 'relation "' in reason and "does not exist" in reason  # PostgreSQL's words for a table
    message = "no such table" if missing else FULL if full else reason
    words = next(words for part, words in _EXPLANATIONS if part in message)
    return f"database {url} {words.format(reason=reason, seconds=BUSY_SECONDS, uid=os.getuid())}"


def _kind(error: DBAPIError, *, full: bool) -> type[DatabaseUnavailable]:
    reason = _reason(error)
    if full or FULL in reason or "No space left" in reason:
        return DiskFull
    return ReadOnly if "readonly database" in reason else DatabaseUnavailable


def _reason(error: DBAPIError) -> str:
    """The driver's message without its repetition of the statement."""
    return str(error.orig).partition("\nLINE ")[0].strip()


def _prepare_postgresql(connection: "PostgresqlConnection[Any]", record: object) -> None:  # noqa: ARG001
    """Limit waiting for locks, and idle transactions; not running ones, as a slow reader needs its snapshot."""
    connection.execute(f"SET lock_timeout = '{BUSY_SECONDS}s'".encode())
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'".encode())
    connection.commit()
