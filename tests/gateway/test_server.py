"""The gateway's process: what it needs, and a real one that follows a real service over HTTP, with tokens."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import uvicorn
from small_gateway import settings_of
from small_loop import OPS
from small_service import served_loop

from components.audit.keys import KeyUnusable
from components.settings import GatewaySettings, Settings
from lcia.client import is_local
from lcia.gateway.server import GatewayRefused, need_settings
from lcia.gateway.source import ServerSource, StateSource
from lcia.operations import decisions
from lcia.service import patience
from lcia.service.listening import listening_at

PASSIVE = "Rewrite the sentence in the passive voice.\nThe doctor thanked the manager."


def state() -> None:
    """No state: it is not opened here."""


@pytest.mark.parametrize(
    ("fields", "source", "expected"),
    [
        ({}, StateSource(state), False),
        ({"tokens": True}, StateSource(state), True),
        ({"host": "0.0.0.0"}, StateSource(state), True),
        ({"host": "0.0.0.0", "tokens": False}, StateSource(state), "is reached from elsewhere"),
        ({"rate": "often"}, StateSource(state), "such as 600/minute"),
        ({"engine": "vllm"}, StateSource(state), "names no server"),
    ],
)
def test_tokens_are_needed_wherever_others_reach_it(fields, source, expected):
    settings = Settings(gateway=GatewaySettings(**fields))
    if isinstance(expected, bool):
        assert need_settings(settings, source) is expected
    else:
        with pytest.raises(GatewayRefused, match=expected):
            need_settings(settings, source)


def test_a_gateway_elsewhere_needs_the_pinned_key_before_it_starts(tmp_path):
    absent = Settings().model_copy(
        update={"audit": Settings().audit.model_copy(update={"public_key": f"{tmp_path}/x"})}
    )
    with pytest.raises(KeyUnusable):
        need_settings(absent, ServerSource())


@contextmanager
def listening(app):
    """An application that listens; its address, and the server."""
    socket, address = listening_at("127.0.0.1", 0, "serve")
    server = uvicorn.Server(uvicorn.Config(app, **patience.options()))
    thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def process(loop, address, token, port, cache):
    """`lcia gateway` as a process that has the service's address, its token, the public key, and nothing else."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cache),
        "LCIA_HOME": str(cache / "home"),
        "LCIA_SERVER": address,
        "LCIA_TOKEN": token,
        "OMP_NUM_THREADS": "1",
    }
    options = {
        "gateway.port": port,
        "gateway.poll_seconds": 0.2,
        "gateway.drain_seconds": 20,
        "gateway.cache": cache / "cache",
        "audit.public_key": loop.home / "keys" / "audit-key.pub.pem",
        "storage.database": "sqlite:////nonexistent/lcia.db",
        "storage.objects": "file:///nonexistent/objects",
    }
    arguments = [each for key, value in options.items() for each in ("--set", f"{key}={value}")]
    command = [str(Path(sys.executable).with_name("lcia")), "gateway", "--config", str(loop.config), *arguments]
    running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def until(condition, running, seconds=120):
    """Wait for a condition, while a process runs."""
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except httpx2.HTTPError:
            pass
        assert running.poll() is None, running.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_gateway_follows_a_service_and_answers_callers_with_tokens(champion, tmp_path):
    served = served_loop(champion)
    gateway = served.person("gateway-1", "serve")
    asks, tries, looks = (
        served.person("app", "answer"),
        served.person("erin", "engineer"),
        served.person("reader", "auditor", only=("look",)),
    )
    free, _ = listening_at("127.0.0.1", 0, "gateway")
    port = free.getsockname()[1]
    free.close()
    url = f"http://127.0.0.1:{port}"

    def chat(token, model="assistant", **fields):
        body = {"model": model, "messages": [{"role": "user", "content": PASSIVE}], **fields}
        return httpx2.post(
            f"{url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {token}"}, timeout=60
        )

    with listening(served.client.app) as address, process(champion, address, gateway, port, tmp_path) as running:
        until(lambda: httpx2.get(f"{url}/health/ready").json()["serves"] == 3, running)
        assert chat(asks).headers["lcia-version"] == "3"
        assert chat("nonsense").status_code == 401
        assert chat(looks).status_code == 401, "limited to looking"
        assert chat(gateway).status_code == 401, "a gateway's own token asks nothing"
        assert chat(asks[:-1] + ("A" if asks[-1] != "A" else "B")).status_code == 401
        assert chat(asks, "assistant@2").status_code == 403
        assert chat(tries, "assistant@2").headers["lcia-version"] == "2"
        until(lambda: served.ask("engineer", "replicas").json()["serving"] == 1, running)
        decisions.rollback(served.instance, "2", OPS, "it was better")
        until(lambda: chat(asks).headers["lcia-version"] == "2", running)
        until(lambda: served.ask("engineer", "replicas").json()["replicas"][0]["number"] == 2, running)

        slow = threading.Thread(target=lambda: results.append(chat(asks, "base", max_tokens=120, temperature=1)))
        results: list[httpx2.Response] = []
        slow.start()
        until(lambda: "lcia_gateway_running 1.0" in httpx2.get(f"{url}/metrics").text, running)
        running.send_signal(signal.SIGTERM)
        slow.join(60)
        assert [each.status_code for each in results] == [200], "a request under way ends before the process does"
        assert running.wait(60) in {0, -signal.SIGTERM}
    log = running.stdout.read()
    assert "version 3 is served from now on" in log
    assert "version 2 is served from now on" in log
    assert "doctor" not in log, "no prompt and no answer"


def test_is_local_knows_this_machine():
    assert all(map(is_local, ("localhost", "127.0.0.1", "::1", "[::1]")))
    assert not any(map(is_local, ("0.0.0.0", "example.org", "10.0.0.1")))


def test_the_cache_is_below_the_state_folder(champion):
    assert settings_of(champion).gateway.cache == f"{champion.home}/gateway"
