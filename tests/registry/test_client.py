"""An MLflow that takes connections and never answers: a verb asks it once, and goes on without it."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from promotion_state import State
from sqlalchemy import select

from components.promotion import champion
from components.registry.client import MlflowLine, Silent
from components.registry.outbox import apply_outbox
from components.registry.registry import Registry, RegistryError
from components.storage import tables


@dataclass
class SilentServer:
    """A port whose connections are counted, and never answered."""

    listening: socket.socket
    taken: list[socket.socket] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listening.getsockname()[1]}"

    def take(self) -> None:
        while True:
            try:
                self.taken.append(self.listening.accept()[0])
            except OSError:
                return


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentServer]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    server = SilentServer(socket.create_server(("127.0.0.1", 0)))
    thread = threading.Thread(target=server.take, daemon=True)
    thread.start()
    yield server
    server.listening.shutdown(socket.SHUT_RDWR)
    server.listening.close()
    thread.join()
    for one in server.taken:
        one.close()


def test_a_silent_server_is_asked_once(state: State, registry: Registry, silent: SilentServer) -> None:
    """All rows, and the question whether it answers, share one wait; nothing is parked."""
    version = state.candidate("news", None)
    state.candidate("mail", None)
    assert all(one.ok for one in apply_outbox(state.db, state.store, registry))
    away = Registry(f"http://{silent.address}", "mlflow-artifacts:/", "lcia", "a")
    state.candidate("sports", None)
    (failed,) = apply_outbox(state.db, state.store, away)
    assert "does not answer within 1 seconds" in failed.message
    for ask in (away.champion, away.recorded_place, lambda: away.tag(version.digest, {"state": "x"})):
        with pytest.raises(RegistryError, match="did not answer a moment ago"):
            ask()
    assert not away.answers()
    assert len(silent.taken) == 1
    with state.db.read() as connection:
        assert connection.execute(select(tables.outbox.c.parked_at)).scalars().all() == [None] * 3
        assert champion.current(connection, "a") is None
    away.ask_anew()
    with pytest.raises(RegistryError, match="does not answer within"):
        away.champion()
    assert len(silent.taken) == 2


def test_connecting_to_a_database_is_bounded() -> None:
    """MLflow on PostgreSQL: the driver itself would wait for ever."""
    from components.registry.client import _with_timeout

    assert _with_timeout("postgresql://u:p%40ss@db/x") == "postgresql://u:p%40ss@db/x?connect_timeout=6"
    assert _with_timeout("postgresql+psycopg://db/x?connect_timeout=3") == "postgresql+psycopg://db/x?connect_timeout=3"
    for other in ("sqlite:////srv/a b.db", "https://mlflow.example/x?y=%20", "mysql+pymysql://u:p@db/x"):
        assert _with_timeout(other) == other


def test_long_waiting_in_the_middle_of_a_call_counts_as_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    line, clock = MlflowLine("sqlite:///x"), [100.0]
    monkeypatch.setattr("components.registry.client.time.monotonic", lambda: clock[0])
    with pytest.raises(OSError, match="at once"), line.talk():
        raise OSError("at once")

    def wait() -> None:
        with line.talk():
            clock[0] += 11
            raise OSError("late")

    with pytest.raises(OSError, match="late"):
        wait()
    clock[0] += 5
    with pytest.raises(Silent), line.talk():
        pass
    clock[0] += 20
    with line.talk():
        pass
