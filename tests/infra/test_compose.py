"""The gateway of one server: how it gets its token and the public key that it pins, and what it waits for."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from separation import compose

from components.audit.keys import KeyUnusable
from components.identity import tokens
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
