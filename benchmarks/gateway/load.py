"""Load on gateways: clients that ask one question after another over kept connections, and a record of every reply."""

import http.client
import itertools
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

SECONDS = 120
CHAT = "/v1/chat/completions"
IDLE_SECONDS = 2.0
"""Idle time after which a client takes a new connection: servers close those that are idle for 5 seconds."""
FAILURES = (OSError, http.client.HTTPException)
"""What a request that never gets its whole answer raises."""


@dataclass(frozen=True)
class Reply:
    """One reply; times are of the monotonic clock, in seconds."""

    address: str
    question: int
    """Place of the question in the list."""
    began: float
    ended: float
    status: int
    """Status of HTTP, 0 if no whole answer came."""
    version: str
    text: str
    """Answer, or the reason why there is none."""

    @property
    def ok(self) -> bool:
        """True if it is an answer."""
        return self.status == 200


class Client:
    """One connection, kept open from one request to the next."""

    def __init__(self, address: str, token: str = "") -> None:
        self.address, self._used = address, 0.0
        url = urlsplit(address)
        self._connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=SECONDS)
        self._headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}

    def send(self, path: str, body: object = None) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request, POST if it has a body; status, headers and content of the answer.

        Raises:
            OSError, HTTPException: no whole answer came; the next request takes a new connection.
        """
        content = None if body is None else json.dumps(body).encode()
        if time.monotonic() - self._used > IDLE_SECONDS:
            self._connection.close()
        try:
            self._connection.request("GET" if content is None else "POST", path, content, self._headers)
            response = self._connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        except FAILURES:
            self._connection.close()
            raise
        finally:
            self._used = time.monotonic()

    def ask(self, question: int, body: Mapping[str, Any]) -> Reply:
        """Ask for an answer in a chat."""
        began = time.monotonic()
        try:
            status, headers, content = self.send(CHAT, body)
            value = json.loads(content)
        except (*FAILURES, ValueError) as error:
            return Reply(self.address, question, began, time.monotonic(), 0, "", repr(error))
        text = value["choices"][0]["message"]["content"] if status == 200 else json.dumps(value)[:300]
        return Reply(
            self.address, question, began, time.monotonic(), status, headers.get("lcia-version", ""), str(text)
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass
class Load:
    """Replies to clients that ask side by side until they are told to stop."""

    replies: list[Reply] = field(default_factory=list)
    """All of them, in the order of their ends."""
    again: list[Reply] = field(default_factory=list)
    """Of the requests that failed: replies of another gateway, asked once more at once."""


@contextmanager
def under_load(
    addresses: Sequence[str], bodies: Sequence[Mapping[str, Any]], clients: int, token: str = ""
) -> Iterator[Load]:
    """Clients, divided among addresses, that ask all the time; a request that fails is asked once more elsewhere."""
    load, stop, turn = Load(), threading.Event(), itertools.count()

    def work(number: int) -> None:
        own = [Client(addresses[(number + each) % len(addresses)], token) for each in range(min(2, len(addresses)))]
        while not stop.is_set():
            question = next(turn) % len(bodies)
            reply = own[0].ask(question, bodies[question])
            load.replies.append(reply)
            if not reply.ok:
                load.again.append(own[-1].ask(question, bodies[question]))
                time.sleep(0.1)
        for client in own:
            client.close()

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join(2 * SECONDS)


def wait_for(condition: Callable[[], object], seconds: float = SECONDS, pause: float = 0.05) -> bool:
    """Wait until a condition holds; False if it does not within so many seconds. An address that fails counts as no."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(*FAILURES, ValueError):
            if condition():
                return True
        time.sleep(pause)
    return False


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest-rank quantile; nan of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


def machine_load() -> float:
    """Load average of the last minute, of everything on this machine."""
    return round(os.getloadavg()[0], 1)
