"""A PostgreSQL of one's own for a while: no network, no password, gone afterwards, never another one's data.

It runs as its own unprivileged account where the tests run as root (PostgreSQL refuses root), and ends with the process
that started it, whatever ends that.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from components.storage.database import Database

TEMPLATE = "lcia_template"
"""A migrated database; copying it takes a tenth of the time that migrating takes."""
_OPTIONS = {
    "listen_addresses": "",
    "max_connections": "300",
    "shared_buffers": "32MB",
    "fsync": "off",  # these data need not survive the machine
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class PostgresqlMissing(Exception):
    """There are no server programs here, or no account to run them as."""


@dataclass
class Cluster:
    """A running server."""

    folder: Path
    """Of its socket; short, for a socket's path has at most 107 bytes."""
    programs: Path
    """Where `pg_dump` and the others are."""
    command: tuple[str | Path, ...] = ()
    """Command line of the server."""
    server: "subprocess.Popen[bytes] | None" = None
    made: int = 0

    def start(self) -> None:
        """Start the server, which is not running; returns when it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        _wait(self, self.server)

    def kill(self) -> None:
        """End all its processes as a machine that loses its power does."""
        if self.server is not None:
            with contextlib.suppress(OSError):  # it may have ended already
                pid = self.server.pid
                backends = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
                for process in (pid, *map(int, backends)):  # each backend leads a session of its own
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
            self.server.wait()

    def url(self, name: str, user: str = "postgres") -> str:
        """SQLAlchemy URL of a database, for one of its accounts."""
        return f"postgresql+psycopg://{user}@/{name}?host={self.folder}"

    def new(self, template: str = TEMPLATE) -> str:
        """Name of a new database with empty tables."""
        self.made += 1
        name = f"test_{self.made}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def require_password(self, user: str) -> None:
        """Let this account in with its password only."""
        rules = self.folder / "data" / "pg_hba.conf"
        rules.write_text(f"local all {user} scram-sha-256\n" + rules.read_text(encoding="utf-8"), encoding="utf-8")
        self.execute("SELECT pg_reload_conf()")

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement as the superuser."""
        with psycopg.connect(f"host={self.folder} user=postgres dbname={database}", autocommit=True) as connection:
            connection.execute(sql.SQL(statement))  # type: ignore[arg-type]


def programs() -> Path:
    """Folder of the newest server's programs.

    Raises:
        PostgresqlMissing: there is none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise PostgresqlMissing("PostgreSQL's initdb is neither below /usr/lib/postgresql nor on the PATH")
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


@contextlib.contextmanager
def running(**options: str) -> Iterator[Cluster]:
    """A new server with a migrated template database; `options` as in postgresql.conf.

    Raises:
        PostgresqlMissing: see the class.
    """
    bin_folder, setpriv = programs(), shutil.which("setpriv")
    if setpriv is None:
        raise PostgresqlMissing("setpriv (of util-linux), which ends the server with the tests, is not there")
    folder = Path(tempfile.mkdtemp(prefix="lcia-pg-"))
    as_other: list[str] = []
    if os.geteuid() == 0:
        account = _unprivileged()
        as_other = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        os.chown(folder, account.pw_uid, account.pw_gid)
    data = folder / "data"
    cluster = Cluster(folder, bin_folder)
    try:
        subprocess.run(
            [setpriv, *as_other, bin_folder / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
             "--no-locale", "--no-sync", "--no-instructions"],
            check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
        settings = [part for name, value in {**_OPTIONS, **options}.items() for part in ("-c", f"{name}={value}")]
        # SIGINT, PostgreSQL's fast shutdown, also comes when this process dies
        as_other += ["--pdeathsig", "INT"]
        cluster.command = (setpriv, *as_other, bin_folder / "postgres", "-D", data, "-k", folder, *settings)
        cluster.start()
        cluster.execute(f"CREATE DATABASE {TEMPLATE}")
        template = Database(cluster.url(TEMPLATE))
        template.migrate()
        template.engine.dispose()
        yield cluster
    finally:
        if cluster.server is not None:
            cluster.server.send_signal(2)
            try:
                cluster.server.wait(20)
            except subprocess.TimeoutExpired:
                cluster.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(cluster: Cluster, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            cluster.execute("SELECT 1")
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                told = (cluster.folder / "server.log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"PostgreSQL did not start: {told}") from None
            time.sleep(0.05)
        else:
            return


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise PostgresqlMissing("PostgreSQL does not run as root, and there is no account `postgres` or `nobody`")
