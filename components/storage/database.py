"""The state database: one writer at a time, a consistent snapshot for readers, one clock.

SQLite starts write transactions with BEGIN IMMEDIATE (otherwise two connections both read epoch 1 and both
win); PostgreSQL takes one advisory lock per write transaction. Either way a write transaction sees the last
committed state and nobody writes beside it, which the log and every compare-and-swap rely on.

Passwords come from PostgreSQL's own places (PGPASSWORD, PGPASSFILE, a service file) or the URL, and are never shown.
"""

import logging
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, DBAPIError, IntegrityError, NoSuchModuleError

from components.errors import LciaError

if TYPE_CHECKING:
    from psycopg import Connection as PostgresqlConnection

BUSY_SECONDS = 30
"""How long a writer waits for another one, and anybody for PostgreSQL to answer the door."""
IDLE_SECONDS = 300
"""How long a transaction may do nothing before PostgreSQL ends it: a client that hangs must not keep others waiting."""
AHEAD = timedelta(minutes=1)
"""How far a stored time may lie ahead of the clock: beyond that the clock was wrong, then or now."""
_WRITER_LOCK = 7_103_951
"""Key of the PostgreSQL advisory lock that write transactions take turns on."""
NO_RIGHT = "42501"
"""SQLSTATE of PostgreSQL where rights or row security forbid something."""


class DatabaseUnavailable(LciaError):
    """The database cannot be reached, is locked by another program, or lacks its tables."""


class AccountRefused(DatabaseUnavailable):
    """The account that the database was opened with may not do this."""


class ValueRefused(LciaError):
    """A value that no column takes: too long, out of range, or with characters that are no text."""


class Database:
    """One state database, by SQLAlchemy URL."""

    def __init__(self, url: str) -> None:
        """Prepare connections; nothing is opened before the first transaction.

        Raises:
            DatabaseUnavailable: `url` is not a database URL, or its driver is not installed.
        """
        try:
            parsed = _parse(url)
            self._sqlite = parsed.get_backend_name() == "sqlite"
            if self._sqlite:
                if parsed.database in (None, "", ":memory:"):
                    raise DatabaseUnavailable(f"{url} is a database in memory; expected sqlite:///a/file.db")
                Path(str(parsed.database)).absolute().parent.mkdir(parents=True, exist_ok=True)
                self._engine = create_engine(parsed, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS})
                event.listen(self._engine, "connect", _prepare_sqlite)
                event.listen(self._engine, "begin", _begin_sqlite)
            else:
                patience = {} if "connect_timeout" in parsed.query else {"connect_timeout": BUSY_SECONDS}
                about = {"application_name": "lcia", **patience}
                self._engine = create_engine(parsed, pool_pre_ping=True, connect_args=about)
                event.listen(self._engine, "connect", _prepare_postgresql)
        except (ArgumentError, NoSuchModuleError, ImportError, OSError, ValueError) as error:
            raise DatabaseUnavailable(
                f"storage.database {_shown(url)} cannot be used ({error}); expected sqlite:///FILE or "
                "postgresql://USER@HOST/NAME"
            ) from None  # the cause may hold the password
        self.url = parsed.render_as_string(hide_password=True)

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine, for tests and tools."""
        return self._engine

    def migrate(self) -> None:
        """Bring the tables to this version's shape; any number of processes may call it at once."""
        seen, head = self.revisions()
        if seen == head:
            return  # also with an account that may not create tables
        config = _alembic()
        try:
            with self.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except AccountRefused as error:
            raise AccountRefused(
                f"{self.url} has schema {seen or 'none'}, this version of lcia needs {head}, and this account may not "
                "change it; run `lcia database migrate` and then `lcia database roles` as the owner of the tables"
            ) from error

    def revisions(self) -> tuple[str | None, str | None]:
        """The schema revision of the database (None: no tables yet) and the one that this version of lcia needs."""
        logging.getLogger("alembic").setLevel(logging.WARNING)
        head = ScriptDirectory.from_config(_alembic()).get_current_head()
        with self.read() as connection:
            return MigrationContext.configure(connection).get_current_revision(), head

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A write transaction: committed at the end of the block, undone by any exception.

        Raises:
            DatabaseUnavailable: no connection, no lock within 30 s, or no tables.
        AccountRefused, ValueRefused: see the classes.
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
            raise DatabaseUnavailable(_explain(error, self.url)) from error


def _parse(url: str) -> URL:
    """The URL, with psycopg where it names PostgreSQL without a driver, as other programs write it."""
    parsed = make_url(url)
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername in ("postgresql", "postgres") else parsed


def _shown(url: str) -> str:
    """A URL that may not even be one, without what may be its password."""
    return repr(re.sub(r"^([\w+]*:/*)?.*@", r"\1***@", url))


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def now(connection: Connection) -> datetime:
    """The database's clock: aware, UTC."""
    if connection.dialect.name == "sqlite":
        seen = connection.execute(text("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')")).scalar_one()
        return datetime.fromisoformat(str(seen))
    moment = connection.execute(text("SELECT clock_timestamp() AT TIME ZONE 'UTC'")).scalar_one()
    return datetime.fromisoformat(f"{moment.isoformat()}+00:00")


def is_ahead(stored: datetime, moment: datetime) -> bool:
    """True if a stored time lies in the future of `moment` by more than `AHEAD`."""
    return stored - moment > AHEAD


def _explain(error: DBAPIError, url: str) -> str:
    reason = _reason(error)
    if "no such table" in reason or ('relation "' in reason and "does not exist" in reason):
        return f"database {url} lacks a table ({reason}); `lcia status` or any other verb creates them"
    if "locked" in reason or "lock timeout" in reason:
        return f"database {url} stayed locked for {BUSY_SECONDS} s by another program; end it and try again"
    return f"database {url} does not answer ({reason}); check storage.database in zenml.yaml and the server"


def _reason(error: DBAPIError) -> str:
    """The driver's message without its repetition of the statement."""
    return str(error.orig).partition("\nLINE ")[0].strip()


def _prepare_postgresql(connection: "PostgresqlConnection[Any]", record: object) -> None:  # noqa: ARG001
    """Bounds on waiting; a transaction that changes nothing may still be a snapshot somebody reads slowly."""
    connection.execute(f"SET lock_timeout = '{BUSY_SECONDS}s'".encode())
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'".encode())
    connection.commit()


def _prepare_sqlite(connection: sqlite3.Connection, record: object) -> None:  # noqa: ARG001
    """Manual transactions, foreign keys, full durability and write-ahead logging for one connection."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA recursive_triggers = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    deadline = time.monotonic() + BUSY_SECONDS
    while cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            # the switch ignores busy_timeout; it is made once in the life of the file
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("lcia_write"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("BEGIN")
