"""A gateway for tests: the real process's parts on a learnt state, listening in a thread of this process."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
from small_loop import OPS, SmallLoop

from components.errors import LciaError
from components.promotion.champion import RollbackRefused
from components.settings import Settings, load_settings
from lcia.gateway.asking import Gateway
from lcia.gateway.server import in_background
from lcia.gateway.source import StateSource
from lcia.instance import Instance
from lcia.operations import decisions

SECONDS = 60


class Unreachable(LciaError):
    """A source that a test has cut off."""


@dataclass
class CutSource(StateSource):
    """The state of this machine, until a test cuts it off or changes what it says."""

    instance: Instance
    cut: bool = False
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer
    spoil: Callable[[bytes], bytes] = lambda content: content
    reports: list[Mapping[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Open nothing: the state is open."""
        super().__init__(lambda: self.instance)

    def perform(self, operation: str, params: Mapping[str, Any]) -> Any:
        """See `StateSource`."""
        if self.cut:
            raise Unreachable("cut off")
        if operation == "report":
            self.reports.append(params)
        answer = super().perform(operation, params)
        return self.change(answer) if operation == "serving" else answer

    def part(self, version: str, digest: str) -> bytes:
        """See `StateSource`."""
        if self.cut:
            raise Unreachable("cut off")
        return self.spoil(super().part(version, digest))


@dataclass
class Running:
    """A gateway that answers, and what it runs on."""

    url: str
    gateway: Gateway
    source: CutSource
    instance: Instance

    @property
    def follower(self):
        """Follower of the gateway."""
        return self.gateway.follower

    def post(self, path: str, body: object = None, token: str | None = None, **options: Any) -> httpx2.Response:
        """Send a request."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        content = {"json": body} if body is not None else options
        return httpx2.post(f"{self.url}{path}", headers=headers, timeout=SECONDS, **content)

    def get(self, path: str, token: str | None = None) -> httpx2.Response:
        """Ask for a page."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx2.get(f"{self.url}{path}", headers=headers, timeout=SECONDS)

    def chat(self, text: str, model: str = "assistant", token: str | None = None, **fields: Any) -> httpx2.Response:
        """Ask one question."""
        messages = [{"role": "user", "content": text}]
        return self.post("/v1/chat/completions", {"model": model, "messages": messages, **fields}, token)

    def client(self, token: str = "none") -> openai.OpenAI:
        """The official client."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=token, max_retries=0, timeout=SECONDS)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for the follower."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, self.follower.problem
            time.sleep(0.02)

    def decide(self, number: int) -> None:
        """Roll back to a version, or approve one that was rolled away from; signed at once."""
        try:
            decisions.rollback(self.instance, str(number), OPS, "it was better")
        except RollbackRefused:
            decisions.approve(self.instance, str(number), OPS, "it is better after all")

    def serves(self, number: int) -> None:
        """Wait until a version is served."""
        self.until(lambda: self.follower.champion is not None and self.follower.champion.number == number)


@contextmanager
def gateway_on(
    loop: SmallLoop,
    *overrides: str,
    source: Callable[[CutSource], None] = lambda _: None,
    tokens: bool = False,
    ready: bool = True,
) -> Iterator[Running]:
    """A gateway over a loop's state; `source` may change what it hears from the start."""
    heard = CutSource(loop.open())
    source(heard)
    settings = settings_of(loop, "gateway.poll_seconds=0.05", *overrides)
    with in_background(settings, heard, tokens=tokens) as (url, gateway):
        running = Running(url, gateway, heard, heard.instance)
        if ready:
            running.until(lambda: running.follower.ready)
        yield running


def settings_of(loop: SmallLoop, *overrides: str) -> Settings:
    """Settings of a loop with changes."""
    return load_settings(loop.config, overrides, home_folder=loop.home)


def rows_of(loop: SmallLoop, name: str) -> list[dict[str, Any]]:
    """Test rows of a task's package."""
    lines = (loop.package(name) / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def files_of(folder: Path) -> list[Path]:
    """Every file below a folder."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]
