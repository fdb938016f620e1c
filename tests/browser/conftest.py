"""Fixtures of the browser tests: the real service over a learnt state, a real identity provider, headless Chromium."""

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest
import uvicorn
from hostile import TEXT, write_hostile
from provider import SECRET, Provider
from small_loop import OPS, SITE, SmallLoop, standing, write_package

from components.audit.log import SYSTEM, Actor
from components.identity import people, tokens
from components.identity.access import TABLE
from components.promotion import policy
from components.roles import Role
from lcia.instance import Instance
from lcia.operations import decisions, tasks
from lcia.operations.params import AnswerParams
from lcia.operations.table import OPERATIONS
from lcia.server import make_app
from lcia.worker import loop as worker

playwright_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")

ROLES = tuple(role for role in get_args(Role) if role in TABLE["look"])
"""Roles of people; the others are for programs, which no page is for."""
ENVIRONMENT = {"LCIA_SESSION_SECRET": "s" * 40, "LCIA_OIDC_SECRET": SECRET}
WIDE, NARROW = 1280, 360
"""Widths of a screen, in pixels."""


@dataclass
class Site:
    """A running service, and the people it knows."""

    instance: Instance
    loop: SmallLoop
    address: str
    provider: Provider
    tokens: dict[str, str] = field(default_factory=dict)

    def person(self, name: str, *roles: str) -> None:
        """Somebody with roles at every site, an account at the identity provider and a token."""
        claims = {"sub": f"sub-{name}", "preferred_username": name}
        self.provider.accounts[name] = claims
        with self.instance.db.begin() as connection:
            people.add(connection, name, subject=f"{self.provider.issuer}|{claims['sub']}", actor=SYSTEM)
            for role in roles:
                people.grant(connection, name, role, actor=SYSTEM)
            _, self.tokens[name] = tokens.create(
                connection, name, TEXT[:150], timedelta(days=1), actor=Actor(name, assured=True, how="signed in")
            )


@dataclass
class Visitor:
    """A person's browser window; `complaints` collects what no page of ours may cause."""

    page: "playwright_api.Page"
    address: str
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen from the first page on."""
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(f"script error: {error}"))
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._asked)

    def go(self, path: str) -> "playwright_api.Response":
        """Load a page, with the parts that it loads itself."""
        answer = self.page.goto(self.address + path)
        self.settle()
        return answer

    def settle(self) -> None:
        """Wait until no part of the page is being loaded."""
        self.page.wait_for_timeout(150)  # what loads with the page begins
        self.page.wait_for_function("() => !document.querySelector('.htmx-request, .htmx-swapping, .htmx-settling')")

    def overflows(self, width: int) -> bool:
        """Whether the page is wider than the screen."""
        self.page.set_viewport_size({"width": width, "height": 900})
        return self.page.evaluate("document.documentElement.scrollWidth > innerWidth")

    def focused(self, script: str) -> str:
        """Something of the element that has the focus."""
        return self.page.evaluate(f"(e => {script})(document.activeElement)")

    def _said(self, message: "playwright_api.ConsoleMessage") -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{self.page.url}: {message.text}")

    def _dialog(self, dialog: "playwright_api.Dialog") -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _asked(self, request: "playwright_api.Request") -> None:
        if not request.url.startswith((self.address, "http://127.0.0.1", "data:", "blob:")):
            self.complaints.append(f"asked outside: {request.url}")


@pytest.fixture(scope="module")
def chromium() -> Iterator["playwright_api.Browser"]:
    """Debian's Chromium without a window."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


Enter = Callable[..., Visitor]


@pytest.fixture
def enter(chromium: "playwright_api.Browser") -> Iterator[Enter]:
    """`enter(site, name)`: a window of its own in which somebody signed in with their token."""
    contexts = []

    def come_in(site: Site, name: str, **context: object) -> Visitor:
        contexts.append(chromium.new_context(viewport={"width": WIDE, "height": 900}, locale="en", **context))
        contexts[-1].set_default_timeout(60_000)
        visitor = Visitor(contexts[-1].new_page(), site.address)
        visitor.page.goto(f"{site.address}/login/token")
        visitor.page.get_by_label("Token").fill(site.tokens[name])
        visitor.page.get_by_role("button", name="Sign in").click()
        visitor.page.wait_for_url(f"{site.address}/")
        return visitor

    yield come_in
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def waiting(learnt, tmp_path_factory: pytest.TempPathFactory) -> SmallLoop:
    """Three versions promoted, a fourth of a hostile task waits for people; hostile reasons in the log."""
    loop = learnt.loop.copy(tmp_path_factory.mktemp("waiting"))
    instance = loop.open()
    decisions.rollback(instance, "2", OPS, TEXT)
    decisions.approve(instance, "3", OPS, TEXT)
    item = tasks.submit(instance, write_hostile(loop.packages), SITE)
    worker.work(instance, SITE, print, item.id)
    assert standing(instance, item.id)["state"] == "candidate", standing(instance, item.id)["reason"]
    other = tasks.submit(instance, write_package(loop.packages / "other", "passive_voice", first=60, version="2"), SITE)
    OPERATIONS["cancel"].run(instance, OPS, AnswerParams(item=other.id, reason=TEXT))
    return loop


@contextmanager
def running(loop: SmallLoop, *overrides: str) -> Iterator[Site]:
    """The service over a loop's state, with somebody of each role and `everybody`, who has them all."""
    listening = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    provider = Provider()
    instance = loop.open(f"serve.address={address}", f"serve.issuer={provider.issuer}", *overrides)
    with instance.db.begin() as connection:
        policy.install(connection, instance.assistant, instance.settings.policy, actor=SYSTEM)
    config = uvicorn.Config(make_app(instance, ENVIRONMENT), log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    site = Site(instance, loop, address, provider)
    for role in ROLES:
        site.person(role, role)
    site.person("everybody", *ROLES)
    try:
        yield site
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        provider.server.shutdown()


@pytest.fixture(scope="session")
def site(waiting: SmallLoop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A service to look at; what a test does there others see."""
    with running(waiting.copy(tmp_path_factory.mktemp("site"))) as found:
        yield found


@pytest.fixture
def own_site(waiting: SmallLoop, tmp_path: Path) -> Iterator[Site]:
    """A service to do things at; two people have to approve."""
    with running(waiting.copy(tmp_path), "policy.approval.quorum=2") as found:
        yield found
