"""A real MLflow server of the tests' own, in a process of its own, and a line to it that can be cut."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

_ANSWER_SECONDS = 180


class MlflowServer:
    """Started and ended at will; its database and its files stay."""

    def __init__(self, folder: Path, empty: Path, *options: str, told: Mapping[str, str] | None = None) -> None:
        """`empty` is a migrated database, which spares seconds; `told` are environment variables."""
        self.folder, self.database = folder, folder / "mlflow.db"
        shutil.copy(empty, self.database)
        self._options, self._told = options, dict(told or {})
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"

    @property
    def runs(self) -> bool:
        """Whether it was started and not ended."""
        return self._process is not None

    def wipe(self) -> None:
        """Empty its tables under its feet; its files stay."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection, connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (name,) in tables:
                if name not in {"alembic_version", "sqlite_sequence", "workspaces"}:
                    connection.execute(f"DELETE FROM {name}")

    def start(self) -> None:
        """Return when it answers."""
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        secret = {"MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex()}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self.port),
                 "--backend-store-uri", f"sqlite:///{self.database}",
                 "--artifacts-destination", str(self.folder / "artifacts"), *self._options],
                env={**os.environ, **quiet, **secret, **self._told},
                cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _ANSWER_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.address}/health", timeout=5):
                return
            time.sleep(0.1)
        raise RuntimeError(f"MLflow did not start: {(self.folder / 'server.log').read_text(encoding='utf-8')}")

    def kill(self) -> None:
        """End it as a machine that loses its power does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class Line:
    """A TCP line to a server; what goes wrong with it is chosen by request.

    A request whose first line contains `at` meets the fault, and every later one finds the line dead until it is
    mended: `lost` never reaches the server, the answer of `unanswered` never comes back, `slow` waits.
    """

    def __init__(self, port: int) -> None:
        """Listen at a port of its own."""
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.seen: list[str] = []
        """First lines of all requests."""
        self.mend()
        threading.Thread(target=self._accept, daemon=True).start()

    def mend(self) -> None:
        """Let everything through."""
        self._at, self._how, self._dead, self._delay = "", "", False, 0.0
        self._deed: Callable[[], None] | None = None

    def cut(self, at: str, how: str, deed: Callable[[], None] | None = None) -> None:
        """Fail from the first request on that contains `at`; `deed` is done at that moment."""
        self._at, self._how, self._deed = at, how, deed

    def slow(self, seconds: float) -> None:
        """Hold every request back."""
        self._delay = seconds

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if self._dead:
                return
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                for end in (client, server):  # each small part at once
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                muted = threading.Event()
                threading.Thread(target=self._answer, args=(server, client, muted), daemon=True).start()
                while data := client.recv(65536):
                    first = data.partition(b"\r\n")[0].decode("ascii", "replace")
                    if first.endswith(" HTTP/1.1"):
                        self.seen.append(first)
                        time.sleep(self._delay)
                        if self._dead or not self._pass(first, muted):
                            return
                    server.sendall(data)

    def _pass(self, first: str, muted: threading.Event) -> bool:
        if not self._how or self._at not in first:
            return True
        self._dead = True
        if self._deed is not None:
            self._deed()
        muted.set()
        return self._how == "unanswered"

    def _answer(self, server: socket.socket, client: socket.socket, muted: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if muted.is_set():
                    break
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def serving(server: MlflowServer) -> Iterator[MlflowServer]:
    """The server, running, for the length of a block."""
    server.start()
    try:
        yield server
    finally:
        server.kill()
