"""The gateway of one server: how it gets its token and the public key that it pins, and what it waits for."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from separation import compose
from small_loop import SmallLoop

from components.audit.keys import KeyUnusable
from components.audit.log import SYSTEM
from components.identity import people, tokens
from components.settings import load_settings
from lcia.gateway.server import need_settings
from lcia.gateway.source import ServerSource
from lcia.instance import Instance

SECRETS = {"LCIA_GATEWAY_SECRET": "s", "LCIA_SERVICE_URL": "postgresql://s"}
BIN = Path(sys.executable).parent
HALF_A_YEAR = 181 * 86400


def script(container: str, folder: Path) -> list[str]:
    """The command of a container, on folders instead of volumes."""
    *shell, text = compose(SECRETS)[container]["command"]
    return [*shell, re.sub(r"(?<![\w/])/(access|keys|tmp)\b", rf"{folder}/\1", text).replace("$$", "$")]


def environment(folder: Path) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("LCIA")}
    return {**plain, "LCIA_HOME": str(folder / "home"), "PATH": f"{BIN}:{os.environ['PATH']}"}


def start(folder: Path) -> Instance:
    """Run the container `access` to its end; the state that it opened."""
    subprocess.run(script("access", folder), check=True, env=environment(folder), cwd=folder, timeout=300)
    return Instance.open(folder / "home", load_settings(environment={}, home_folder=folder / "home"))


def names(instance: Instance) -> list[tuple[str, tuple[str, ...]]]:
    """Owner and permissions of each valid token that may follow decisions."""
    with instance.db.read() as connection:
        checks = tokens.checks(connection, ("serve", "answer"))
    return [(one.token.person, one.permissions) for one in checks]


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Folders of the volumes; the service has made its key."""
    for name in ("access", "keys", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "zenml.yaml").write_text("assistant: assistant\n", encoding="utf-8")
    (tmp_path / "keys" / "audit-key.pub.pem").write_text("the first\n", encoding="utf-8")
    return tmp_path


def test_the_gateway_gets_a_token_that_serves_and_the_first_key_for_good(server: Path) -> None:
    instance = start(server)
    token = (server / "access" / "token").read_text(encoding="utf-8")
    assert token.startswith("lcia_")
    assert (server / "access" / "token").stat().st_mode & 0o077 == 0
    assert names(instance) == [("gateway", ("serve",))]
    (server / "keys" / "audit-key.pub.pem").write_text("another\n", encoding="utf-8")
    start(server)
    assert (server / "access" / "token").read_text(encoding="utf-8") == token, "made once"
    assert (server / "access" / "audit-key.pub.pem").read_text(encoding="utf-8") == "the first\n", "pinned"
    old = time.time() - HALF_A_YEAR
    os.utime(server / "access" / "token", (old, old))
    assert len(names(start(server))) == 2
    assert (server / "access" / "token").read_text(encoding="utf-8") != token, "before it expires"


def test_without_a_database_nothing_is_written(server: Path) -> None:
    (server / "home").mkdir()
    (server / "home" / "lcia.db").write_text("no database", encoding="utf-8")
    done = subprocess.run(script("access", server), check=False, env=environment(server), cwd=server, timeout=300)
    assert done.returncode != 0, "compose starts it again"
    assert list((server / "access").iterdir()) == []


def test_a_gateway_that_waits_for_its_token_can_be_ended(server: Path) -> None:
    process = subprocess.Popen(script("gateway", server), env=environment(server), cwd=server)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0


def test_it_asks_for_tokens_and_for_the_pinned_key(tmp_path: Path) -> None:
    container = compose(SECRETS)["gateway"]
    assert container["environment"]["LCIA_SERVER"] == "http://127.0.0.1:8600"
    assert not [name for name in container["environment"] if "STORAGE" in name or "MLFLOW" in name]
    values = {name: str(value) for name, value in container["environment"].items()}
    settings = load_settings(
        Path(__file__).parents[2] / "infra/server/zenml.yaml", environment=values, home_folder=tmp_path
    )
    assert Path(settings.audit.public_key) == Path("/access/audit-key.pub.pem")
    assert "access:/access:ro" in container["volumes"]
    with pytest.raises(KeyUnusable):
        need_settings(settings, ServerSource())
    assert settings.gateway.port == 8700


@pytest.mark.parametrize("status", [200, 503])
def test_its_health_is_that_it_answers(status: int, tmp_path: Path) -> None:
    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/ready" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _, *check = compose(SECRETS)["gateway"]["healthcheck"]["test"]
        port = {"LCIA__GATEWAY__PORT": str(server.server_port)}
        done = subprocess.run(check, check=False, env={**environment(tmp_path), **port}, timeout=60)
        server.shutdown()
    assert (done.returncode == 0) is (status == 200)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def status_of(address: str, token: str = "", body: bytes | None = None) -> int:
    """Status with which an address answers; 0 if nobody does."""
    heads = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, heads), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except OSError:
        return 0


@contextmanager
def running(command: list[str], variables: Mapping[str, str], folder: Path, ready: str) -> Iterator[None]:
    """A process, once an address answers with 200; asked to end at the end, which it has to do."""
    process = subprocess.Popen(command, env=dict(variables), cwd=folder)
    try:
        end = time.monotonic() + 300
        while status_of(ready) != 200:
            assert process.poll() is None
            assert time.monotonic() < end, f"{ready} does not answer"
            time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait(timeout=90)


@pytest.mark.slow
def test_the_containers_together_answer_an_application(champion: SmallLoop, server: Path) -> None:
    """The commands of `access` and `gateway` against a service that has decided something."""
    champion.open().tell_registry()
    for file in (champion.home / "keys").iterdir():
        shutil.copy(file, server / "keys")
    shutil.copy(champion.config, server / "zenml.yaml")
    port, own_port = free_port(), free_port()
    service = {**environment(server), "LCIA_HOME": str(champion.home), "LCIA_SESSION_SECRET": "s" * 40}
    subprocess.run(script("access", server), check=True, env=service, cwd=server, timeout=300)
    with champion.open().db.begin() as connection:
        people.add(connection, "shop", actor=SYSTEM)
        people.grant(connection, "shop", "answer", "*", actor=SYSTEM)
        _, token = tokens.create(connection, "shop", "website", timedelta(days=1), actor=SYSTEM)
    own = {name: str(value) for name, value in compose(SECRETS)["gateway"]["environment"].items()}
    gateway = {
        **environment(server),
        **own,
        "LCIA_SERVER": f"http://127.0.0.1:{port}",
        "LCIA__GATEWAY__PORT": str(own_port),
        "LCIA__AUDIT__PUBLIC_KEY": str(server / "access" / "audit-key.pub.pem"),
        "LCIA_HOME": str(server / "state"),
    }
    base = f"http://127.0.0.1:{own_port}"
    question = b'{"model": "assistant", "messages": [{"role": "user", "content": "Say it."}], "max_tokens": 2}'
    lcia = [str(BIN / "lcia"), "serve"]
    with (
        running(lcia, {**service, "LCIA__SERVE__PORT": str(port)}, server, f"http://127.0.0.1:{port}/health"),
        running(script("gateway", server), gateway, server, f"{base}/health/ready"),
    ):
        assert status_of(f"{base}/v1/chat/completions", token, question) == 200
        assert status_of(f"{base}/v1/chat/completions", "lcia_nobody_x", question) == 401
    with running(script("gateway", server), gateway, server, f"{base}/health/ready"):
        assert status_of(f"{base}/v1/chat/completions", token, question) == 200, "the service is away"
    assert not (server / "state" / "lcia.db").exists()
