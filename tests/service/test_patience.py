"""Connections that never end what they began, readers who never read, and many pages that watch."""

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lcia.console.views import overview
from lcia.operations.status import fingerprint
from lcia.service import patience
from lcia.service.streams import Look
from tests.service.test_border import serving

HALF = b"GET /health HTTP/1.1\r\nhost: h\r\nx: "


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience of a test."""
    for name, value in (("HEAD_SECONDS", 0.5), ("GRACE_SECONDS", 0.5), ("STILL_SECONDS", 0.3), ("WRITE_SECONDS", 0.5)):
        monkeypatch.setattr(patience, name, value)
    monkeypatch.setattr(overview, "EVERY", 0.1)


@pytest.fixture
def server(serve, fresh):
    return serve(fresh, "serve.streams_each=3", "serve.streams=5")


@pytest.fixture
def port(quick, server) -> Iterator[int]:
    with serving(server.client.app) as found:
        yield found


def half_requests(port: int, count: int, content: bytes = HALF) -> list[socket.socket]:
    """Connections that begin a request and say no more."""
    found = []
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", port), timeout=30)
        one.sendall(content)
        found.append(one)
    return found


def status(port: int) -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    client.request("GET", "/health")
    return client.getresponse().status


def answer(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_half_a_head_is_given_up(port):
    connections = half_requests(port, 20)
    assert status(port) == 200
    assert {answer(one)[:12] for one in connections} == {b"HTTP/1.1 408"}


def test_whoever_asks_in_full_gets_in_though_many_ask_by_half(port, monkeypatch):
    monkeypatch.setattr(patience, "MOST_WAITING", 40)
    monkeypatch.setattr(patience, "HEAD_SECONDS", 60.0)
    connections = half_requests(port, 100)
    assert status(port) == 200
    assert len(patience.TimedConnection.waiting) <= 40
    gone = 0
    for one in connections[:50]:
        try:
            gone += one.recv(1) == b""
        except ConnectionResetError:
            gone += 1
    assert gone == 50, "those that wait longest"


def test_a_connection_that_drips_after_its_answer_is_given_up(port):
    (one,) = half_requests(port, 1, b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n")
    assert one.recv(12) == b"HTTP/1.1 200"
    began = time.monotonic()
    with pytest.raises(OSError):  # noqa: PT011, PT012 - whichever write notices
        while time.monotonic() < began + 20:
            one.sendall(b"G")
            time.sleep(0.1)


def test_half_a_body_is_given_up(port, server):
    """From nobody known (a form), and from somebody known (a package)."""
    form = b"POST /login/token HTTP/1.1\r\nhost: h\r\ncontent-length: 500\r\n"
    form += b"content-type: application/x-www-form-urlencoded\r\n\r\ncsrf="
    package = b"POST /v1/submit HTTP/1.1\r\nhost: h\r\ncontent-length: 5000000\r\ncontent-type: application/zip\r\n"
    package += f"authorization: Bearer {server.tokens['submitter']}\r\n\r\nPK".encode()
    for content in (form, package):
        (one,) = half_requests(port, 1, content)
        assert answer(one)[:12] == b"HTTP/1.1 408", content
    assert not (server.instance.home / "errors").exists(), "nothing failed here"


def test_a_body_that_drips_is_given_up(port, server):
    head = "POST /v1/submit HTTP/1.1\r\nhost: h\r\ncontent-length: 5000000\r\ncontent-type: application/zip\r\n"
    (one,) = half_requests(port, 1, f"{head}authorization: Bearer {server.tokens['submitter']}\r\n\r\n".encode())
    began = time.monotonic()
    with pytest.raises(OSError):  # noqa: PT011, PT012 - whichever write notices
        while time.monotonic() < began + 20:
            one.sendall(b"P" * 10)
            time.sleep(0.05)
    assert list((server.instance.home / "unpacked").glob("upload-*")) == []


def test_somebody_who_never_reads_is_given_up(port, monkeypatch):
    paused = []
    monkeypatch.setattr(
        patience.TimedConnection, "pause_writing", _noted(patience.TimedConnection.pause_writing, paused)
    )
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    one.connect(("127.0.0.1", port))
    one.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: h\r\n\r\n" * 400)
    deadline = time.monotonic() + 20
    while not paused or not paused[0].transport.is_closing():
        assert time.monotonic() < deadline, "it waits for ever"
        time.sleep(0.1)


def _noted(function, found):
    def noted(self):
        found.append(self)
        function(self)

    return noted


def test_streams_are_counted_by_person_and_in_all_and_given_back(port, server):
    def watch(name: str, stack: ExitStack) -> int:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        stack.callback(client.close)
        client.request("GET", "/events", headers={"authorization": f"Bearer {server.tokens[name]}"})
        return client.getresponse().status

    with ExitStack() as stack:
        assert [watch("engineer", stack) for _ in range(4)] == [200, 200, 200, 429]
        assert [watch("auditor", stack) for _ in range(3)] == [200, 200, 503]
    deadline = time.monotonic() + 20
    while True:
        with ExitStack() as stack:
            if [watch("engineer", stack) for _ in range(3)] == [200, 200, 200]:
                return
        assert time.monotonic() < deadline, "places are not given back"
        time.sleep(0.2)


def test_however_many_watch_the_state_is_looked_at_once_a_tick(port, server, monkeypatch):
    looks = []
    monkeypatch.setattr(overview, "EVERY", 1000.0)
    app_look = Look(lambda: (looks.append(1), fingerprint(server.instance))[1], 0.3)

    import asyncio

    async def many() -> None:
        for _ in range(5):
            await asyncio.gather(*(app_look.value() for _ in range(200)))
            await asyncio.sleep(0.31)

    asyncio.run(many())
    assert len(looks) == 5
