"""Behind a reverse proxy with a path prefix, which takes the prefix away or leaves it; HEAD; IPv6; forward proxies."""

import http.client
import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest
import uvicorn
from fastapi.testclient import TestClient
from provider import SECRET, Provider
from small_service import ENVIRONMENT, served_loop

from lcia import client as remote
from lcia.server import make_app
from lcia.service import patience
from lcia.service.border import AddressRefused, root_of

LINK = re.compile(r'\b(?:href|src|action|hx-get|hx-post|sse-connect)="([^"#?][^"]*)"')
POST = re.compile(r'(?:method="post"(?: class="[^"]*")? action|hx-post)="([^"]+)"')
HOP = {"connection", "transfer-encoding", "content-length", "host"}


@contextmanager
def in_thread(server: ThreadingHTTPServer) -> Iterator[int]:
    """A server of this process; its port."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def proxy_to(port: int, prefix: str, *, strips: bool) -> type[BaseHTTPRequestHandler]:
    """What hands requests below `prefix` on, as nginx does with a `proxy_pass` with and without a path."""

    class Proxy(BaseHTTPRequestHandler):
        def answer(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404, "not below the prefix")
                return
            inner = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            path = self.path.removeprefix(prefix) if strips else self.path
            inner.request(self.command, path, body or None, dict(self.headers.items()))
            got = inner.getresponse()
            stream = got.getheader("content-type", "").startswith("text/event-stream")
            content = b"" if self.command == "HEAD" else got.readline() if stream else got.read()
            self.send_response(got.status)
            for name, value in got.getheaders():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            inner.close()

        do_GET = do_POST = do_HEAD = answer  # noqa: N815 - the names are the server's

        def log_message(self, *_: object) -> None:
            pass

    return Proxy


@contextmanager
def serving(app: object) -> Iterator[int]:
    """The application behind uvicorn, as `lcia serve` runs it; its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, **patience.options()))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listening.close()


@pytest.fixture(params=["strips", "keeps"])
def behind(request: pytest.FixtureRequest, pending) -> Iterator[tuple[httpx2.Client, str, object]]:
    """A browser before the proxy, the address that it knows, and the server."""
    server = served_loop(pending, "serve.address=https://example.org/ml/lcia/")
    with serving(server.client.app) as port:
        proxy = ThreadingHTTPServer(("127.0.0.1", 0), proxy_to(port, "/ml/lcia", strips=request.param == "strips"))
        with in_thread(proxy) as front, httpx2.Client(headers={"accept": "text/html"}, timeout=30) as client:
            yield client, f"http://127.0.0.1:{front}/ml/lcia", server


def signed_in(client: httpx2.Client, address: str, token: str) -> httpx2.Response:
    """Open the first page as somebody unknown, and sign in where it leads."""
    page = client.get(f"{address}/versions/1", follow_redirects=True)
    assert (page.status_code, str(page.url)) == (200, f"{address}/login/token")
    csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)[1]
    return client.post(f"{address}/login/token", data={"csrf": csrf, "token": token})


def test_every_link_form_and_redirect_has_the_prefix(behind):
    client, address, server = behind
    answer = signed_in(client, address, server.tokens["admin"])
    assert answer.status_code == 303
    assert answer.headers["location"] == "/ml/lcia/versions/1"
    assert "path=/ml/lcia;" in answer.headers["set-cookie"]
    seen, waiting = set(), {f"{address}/"}
    while waiting:
        url = waiting.pop()
        seen.add(url)
        page = client.get(url)
        assert page.status_code == 200, url
        if "text/html" not in page.headers["content-type"] or "/reports/" in url:
            continue  # a report is a document of its own, in a frame
        posts = {*POST.findall(page.text)}
        for link in map(unescape, LINK.findall(page.text)):
            assert link.startswith("/ml/lcia/"), (url, link)
            target = urljoin(url, link)
            if link not in posts and target not in seen:
                waiting.add(target)
    paths = {urlsplit(url).path.removeprefix("/ml/lcia") for url in seen}
    assert paths >= {"/", "/tasks", "/versions", "/versions/1", "/log", "/people", "/policy", "/events", "/log/0"}
    assert any(path.startswith("/static/console.css") for path in paths)


def test_forms_work_and_end_where_they_should(behind):
    client, address, server = behind
    signed_in(client, address, server.tokens["approver"])
    page = client.get(f"{address}/versions/1").text
    fields = {"csrf": re.search(r'name="csrf" value="([^"]+)"', page)[1], "back": "/versions/1"}
    answer = client.post(f"{address}/preferences", data={**fields, "language": "ja", "theme": "dark"})
    assert answer.headers["location"] == "/ml/lcia/versions/1"
    assert all("Path=/ml/lcia;" in cookie for cookie in answer.headers.get_list("set-cookie") if "lcia_theme" in cookie)
    decided = client.post(
        f"{address}/do/reject", data={**fields, "version": "1", "reason": "no"}, headers={"hx-request": "true"}
    )
    assert decided.headers["hx-redirect"] == "/ml/lcia/versions/1"
    assert 'data-theme="dark"' in client.get(f"{address}/versions/1").text


def test_programs_and_machines_find_it_too(behind, monkeypatch):
    client, address, server = behind
    monkeypatch.setenv("LCIA_SERVER", address)
    monkeypatch.setenv("LCIA_TOKEN", server.tokens["engineer"])
    assert remote.perform("status", {}, None, None)["assistant"] == "assistant"
    assert client.get(f"{address}/openapi.json").json()["servers"] == [{"url": "/ml/lcia"}]
    assert client.get(f"{address}/health").json() == {"status": "ok", "reasons": []}
    nowhere = client.get(f"{address}/nowhere")
    assert nowhere.status_code == 404
    assert 'href="/ml/lcia/"' in nowhere.text


@pytest.fixture
def provider() -> Iterator[Provider]:
    found = Provider()
    yield found
    found.server.shutdown()


def test_the_identity_provider_sends_people_back_below_the_prefix(fresh, provider):
    place = fresh.open(f"serve.issuer={provider.issuer}", "serve.address=http://testserver/ml/lcia")
    client = TestClient(make_app(place, {**ENVIRONMENT, "LCIA_OIDC_SECRET": SECRET}), follow_redirects=False)
    for path in ("/login", "/ml/lcia/login"):
        there = client.get(path).headers["location"]
        assert there.startswith(provider.issuer)
        assert "redirect_uri=http%3A%2F%2Ftestserver%2Fml%2Flcia%2Flogin%2Fcallback" in there


def test_head_is_answered_wherever_get_is(serve, pending):
    server = serve(pending)
    client = server.client
    for path in ("/health", "/metrics", "/openapi.json", "/static/console.css", "/login/token"):
        asked, got = client.head(path), client.get(path)
        assert (asked.status_code, asked.content) == (200, b""), path
        assert asked.headers["content-type"] == got.headers["content-type"]
    heads = {"authorization": f"Bearer {server.tokens['engineer']}"}
    for path in ("/", "/versions/1", "/v1/status", "/events"):
        assert client.head(path, headers=heads).status_code == 200, path
    assert client.head("/v1/sync", headers=heads).status_code == 405
    assert client.head("/nowhere").status_code == 404


@pytest.mark.parametrize(
    ("address", "root"),
    [("http://h", ""), ("http://h:1/", ""),
     ("https://h/a/b/", "/a/b"), ("http://[::1]:1/x", "/x"), ("http://h/é", "/%C3%A9")],
)  # fmt: skip
def test_the_prefix_of_an_address(address: str, root: str) -> None:
    assert root_of(address) == root


@pytest.mark.parametrize("address", ["", "example.org/lcia", "ftp://h/x", "http://", "http://h/?a=b"])
def test_an_address_that_nobody_can_open_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="expected http"):
        root_of(address)


def test_an_unforeseen_failure_shows_a_reference_and_no_traceback(serve, pending, caplog):
    from lcia.operations.table import OPERATIONS

    server = serve(pending)
    operation, kept = OPERATIONS["status"], OPERATIONS["status"].run

    def fail(*_: object) -> None:
        raise KeyError("secret thing")

    object.__setattr__(operation, "run", fail)
    caplog.set_level(logging.ERROR, logger="lcia.service")
    try:
        got = server.ask("engineer", "status")
    finally:
        object.__setattr__(operation, "run", kept)
    assert got.status_code == 500
    assert got.json()["error"] == "Unforeseen"
    reference = re.search(r"under ([0-9a-f]{8})$", got.json()["message"])[1]
    assert "secret thing" not in got.text
    assert reference in caplog.text
    (file,) = (pending.home / "errors").iterdir()
    assert f"reference {reference}" in file.read_text(encoding="utf-8")
    assert "KeyError" in file.read_text(encoding="utf-8")


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set proxies of the environment, and a server to ask."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)

    def use(server: str, **variables: str) -> None:
        monkeypatch.setenv("LCIA_SERVER", server)
        monkeypatch.setenv("LCIA_TOKEN", "lcia_a_b")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return use


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_this_machine_is_asked_without_a_proxy(proxied, serve, pending, host, proxy, monkeypatch):
    server = serve(pending)
    with serving(server.client.app) as port:
        proxied(f"http://{host}:{port}", HTTP_PROXY=proxy, ALL_PROXY=proxy)
        monkeypatch.setenv("LCIA_TOKEN", server.tokens["engineer"])
        assert remote.perform("status", {}, None, None)["assistant"] == "assistant"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "ALL_PROXY names a SOCKS proxy, which needs `pip install socksio`"),
        ({"HTTP_PROXY": "http://127.0.0.1:9"}, "goes through the proxy of HTTP_PROXY; NO_PROXY names"),
        ({"HTTP_PROXY": "gopher://x"}, "or a proxy's address (HTTP_PROXY) can't be used"),
    ],
)
def test_a_proxy_that_does_not_work_is_named(proxied, variables, words):
    proxied("http://lcia.invalid:8600", **variables)
    with pytest.raises(remote.ServerUnreachable, match=re.escape(words)):
        remote.perform("status", {}, None, None)


def test_libraries_ask_this_machine_without_a_proxy(proxied, fresh, monkeypatch):
    import requests

    proxied("", HTTP_PROXY="http://127.0.0.1:9", NO_PROXY="example.org")
    monkeypatch.setenv("no_proxy", "example.org")
    fresh.enter()
    assert os.environ["NO_PROXY"] == "example.org,localhost,127.0.0.1,::1"
    for url in ("http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000", "http://example.org"):
        assert requests.utils.get_environ_proxies(url) == {}, url
    assert requests.utils.get_environ_proxies("http://elsewhere.org")["http"] == "http://127.0.0.1:9"
