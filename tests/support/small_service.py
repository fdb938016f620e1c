"""A small service for tests: a copy of a learnt state, people with roles, the application over it."""

import json
import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import get_args

import pytest
from fastapi.testclient import TestClient
from small_loop import SmallLoop

from components.audit.log import SYSTEM, Actor
from components.identity import people, tokens
from components.roles import Role
from lcia.instance import Instance
from lcia.server import make_app

ENVIRONMENT = {"LCIA_SESSION_SECRET": "s" * 40}
DAY = timedelta(days=1)


def csrf_of(page: str) -> str:
    """What the forms of a page bring back."""
    return re.search(r'name="csrf" value="([^"]+)"', page)[1]


@dataclass
class Server:
    """The application over a state, and tokens by name."""

    instance: Instance
    loop: SmallLoop
    client: TestClient
    tokens: dict[str, str] = field(default_factory=dict)

    def person(self, name: str, *roles: str, site: str = "*", only: tuple[str, ...] = ()) -> str:
        """Somebody with roles at a site; returns a token."""
        with self.instance.db.begin() as connection:
            people.add(connection, name, actor=SYSTEM)
            for role in roles:
                people.grant(connection, name, role, site, actor=SYSTEM)
            own = Actor(name, assured=True, how="signed in at https://idp")
            _, self.tokens[name] = tokens.create(connection, name, "test", DAY, only, actor=own)
        return self.tokens[name]

    def sign_in(self, name: str) -> str:
        """Let the client be somebody's browser; returns what its forms have to bring back."""
        self.client.cookies.clear()
        self.client.headers.update({"accept": "text/html"})
        fields = {"csrf": csrf_of(self.client.get("/login/token").text), "token": self.tokens[name]}
        self.client.post("/login/token", data=fields, follow_redirects=False)
        session: dict[str, str] = json.loads(b64decode(self.client.cookies["lcia_session"].partition(".")[0]))
        return session["csrf"]

    def ask(self, name: str | None, operation: str, **params: object):
        """GET or POST an operation as somebody, or as nobody."""
        from lcia.operations.table import OPERATIONS

        headers = {"authorization": f"Bearer {self.tokens[name]}"} if name else {}
        if operation in OPERATIONS and OPERATIONS[operation].method == "GET":
            return self.client.get(f"/v1/{operation}", params=params, headers=headers)
        return self.client.post(f"/v1/{operation}", json=params, headers=headers)


def served_loop(loop: SmallLoop, *overrides: str) -> Server:
    """The application over a loop's state, with one person per role, named like it."""
    instance = loop.open(*overrides)
    server = Server(instance, loop, TestClient(make_app(instance, ENVIRONMENT)))
    for role in get_args(Role):
        server.person(role, role)
    return server


@pytest.fixture
def serve() -> Callable[..., Server]:
    """See `served_loop`."""
    return served_loop
