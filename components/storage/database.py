"""The state database: one writer at a time, a consistent snapshot for readers, one clock.

SQLite starts write transactions with BEGIN IMMEDIATE (otherwise two connections both read epoch 1 and both
win); PostgreSQL takes one advisory lock per write transaction. Either way a write transaction sees the last
committed state and nobody writes beside it, which the log and every compare-and-swap rely on.
"""

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, IntegrityError, NoSuchModuleError

from components.errors import LciaError

BUSY_SECONDS = 30
"""How long a writer waits for another one."""
_WRITER_LOCK = 7_103_951
"""Key of the PostgreSQL advisory lock that write transactions take turns on."""


class DatabaseUnavailable(LciaError):
    """The database cannot be reached, is locked by another program, or lacks its tables."""


class Database:
    """One state database, by SQLAlchemy URL."""

    def __init__(self, url: str) -> None:
        """Prepare connections; nothing is opened before the first transaction.

        Raises:
            DatabaseUnavailable: `url` is not a database URL, or its driver is not installed.
        """
        try:
            parsed = make_url(url)
            self._sqlite = parsed.get_backend_name() == "sqlite"
            if self._sqlite:
                if parsed.database in (None, "", ":memory:"):
                    raise DatabaseUnavailable(f"{url} is a database in memory; expected sqlite:///a/file.db")
                Path(str(parsed.database)).absolute().parent.mkdir(parents=True, exist_ok=True)
                self._engine = create_engine(parsed, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS})
                event.listen(self._engine, "connect", _prepare_sqlite)
                event.listen(self._engine, "begin", _begin_sqlite)
            else:
                self._engine = create_engine(parsed, pool_pre_ping=True)
        except (ArgumentError, NoSuchModuleError, ImportError, OSError) as error:
            raise DatabaseUnavailable(
                f"storage.database {url!r} cannot be used ({error}); expected sqlite:///FILE or "
                "postgresql+psycopg2://USER@HOST/NAME with its driver installed"
            ) from error
        self.url = parsed.render_as_string(hide_password=True)

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine, for tests and tools."""
        return self._engine

    def migrate(self) -> None:
        """Bring the tables to this version's shape; any number of processes may call it at once."""
        seen, head = self.revisions()
        if seen == head:
            return
        config = _alembic()
        with self.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

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
        except DatabaseError as error:
            raise DatabaseUnavailable(_explain(error, self.url)) from error


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


def _explain(error: DBAPIError, url: str) -> str:
    reason = str(error.orig)
    if "no such table" in reason or ('relation "' in reason and "does not exist" in reason):
        return f"database {url} lacks a table ({reason}); `lcia status` or any other verb creates them"
    if "locked" in reason:
        return f"database {url} stayed locked for {BUSY_SECONDS} s by another program; end it and try again"
    return f"database {url} does not answer ({reason}); check storage.database in zenml.yaml and the server"


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
