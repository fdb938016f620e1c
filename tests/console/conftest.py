"""Fixtures of the console's tests: one state served once for those who look, and people at a browser."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import unescape

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from small_loop import Learnt
from small_service import Server, served_loop


@dataclass
class Visitor:
    """Somebody who signed in at a browser."""

    server: Server
    name: str
    client: TestClient = field(init=False)
    csrf: str = field(init=False)

    def __post_init__(self) -> None:
        self.client = TestClient(self.server.client.app, headers={"accept": "text/html"})
        fields = {"csrf": self._csrf("/login/token"), "token": self.server.tokens[self.name]}
        assert self.client.post("/login/token", data=fields).status_code == 200
        self.csrf = self._csrf("/")

    def _csrf(self, path: str) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.client.get(path).text)
        assert found is not None
        return found[1]

    def get(self, path: str, status: int = 200) -> Response:
        """An answer, as sent."""
        got = self.client.get(path)
        assert got.status_code == status, (path, got.status_code, words(got.text)[-500:])
        return got

    def page(self, path: str, status: int = 200) -> str:
        """A page's words, without its tags."""
        return words(self.get(path, status).text)

    def post(self, path: str, **fields: str) -> Response:
        """A form, sent as a script of the page sends it; what it answers, followed nowhere."""
        return self.client.post(path, data={"csrf": self.csrf, **fields}, follow_redirects=False)


def words(html: str) -> str:
    """What a reader sees of a page, in one line; what is hidden in attributes is left out."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


@pytest.fixture(scope="session")
def shown(learnt: Learnt, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Three promoted versions, served; look, but change nothing."""
    return served_loop(learnt.loop.copy(tmp_path_factory.mktemp("shown")))


@pytest.fixture
def visit() -> Callable[[Server, str], Visitor]:
    """`visit(server, name)`: a person of the server, signed in."""
    return Visitor
