"""Streams for pages that watch for changes: all share one look, and their number is limited."""

import threading
import time
from collections import Counter
from collections.abc import AsyncIterable, Callable, Iterable

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from components.errors import LciaError


class TooManyStreams(LciaError):
    """One person has too many watching pages or uploads at once."""


class NoMoreStreams(LciaError):
    """All places of the service are taken."""


class Look:
    """Value that is looked up at most once in `every` seconds, however many ask for it."""

    def __init__(self, look: Callable[[], str], every: float) -> None:
        """`look` may wait for a database."""
        self._look, self._every = look, every
        self._value, self._at, self._busy = "", -every, False

    async def value(self) -> str:
        """Newest value. The first caller who finds it too old looks it up; the others get the old one meanwhile.

        Raises:
            LciaError: the look failed.
        """
        if not self._busy and time.monotonic() - self._at >= self._every:
            self._busy = True
            try:
                self._value = await run_in_threadpool(self._look)
            finally:
                self._at, self._busy = time.monotonic(), False
        return self._value


class Slots:
    """Slots: a limit for each person, and one for all."""

    def __init__(self, what: str, each: int, most: int) -> None:
        """Refusals name `what`, such as `pages that watch for changes`; `each` and `most` are the limits."""
        self._what, self._each, self._most = what, each, most
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, person: str) -> None:
        """Take a place, which has to be given back.

        Raises:
            TooManyStreams: this person has as many as one may have.
            NoMoreStreams: none is free.
        """
        with self._lock:
            if self._taken[person] >= self._each:
                raise TooManyStreams(f"{person} has {self._each} {self._what} at once already; close one, or wait")
            if self._taken.total() >= self._most:
                raise NoMoreStreams(f"there are {self._most} {self._what} at once already; wait and try again")
            self._taken[person] += 1

    def give_back(self, person: str) -> None:
        """Give a place back."""
        with self._lock:
            self._taken[person] -= 1
            if self._taken[person] <= 0:
                del self._taken[person]

    @property
    def in_use(self) -> int:
        """Number of places in use."""
        with self._lock:
            return self._taken.total()


class Stream(StreamingResponse):
    """Answer in pieces, such as an event stream, that gives its place back however it ends."""

    def __init__(
        self,
        pieces: AsyncIterable[str] | Iterable[bytes],
        places: Slots,
        person: str,
        kind: str = "text/event-stream",
        **headers: str,
    ) -> None:
        """The caller has taken the place already; in names of headers `_` stands for `-`."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(pieces, media_type=kind, headers={"x-accel-buffering": "no", **names})
        self._places, self._person = places, person

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the reader leaves or the pieces end."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.give_back(self._person)
