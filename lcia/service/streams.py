"""Pages that watch for changes: one look a tick for all of them, and so many of one person and in all."""

import threading
import time
from collections import Counter
from collections.abc import AsyncIterable, Callable

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from components.errors import LciaError


class TooManyStreams(LciaError):
    """One person watches on too many pages at once, or sends too much at once."""


class NoMoreStreams(LciaError):
    """All that the service has is taken."""


class Look:
    """A value that is looked up at most once in `every` seconds, however many ask for it."""

    def __init__(self, look: Callable[[], str], every: float) -> None:
        """`look` may wait for a database."""
        self._look, self._every = look, every
        self._value, self._at, self._busy = "", -every, False

    async def value(self) -> str:
        """The newest known; the first who finds it too old looks, and the others don't wait for that.

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
    """So many at a time of one person, and in all."""

    def __init__(self, what: str, each: int, most: int) -> None:
        """`what` is named in refusals, as `pages that watch for changes`."""
        self._what, self._each, self._most = what, each, most
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, person: str) -> None:
        """Take a place, to be given back.

        Raises:
            TooManyStreams: this person has all that one may have.
            NoMoreStreams: there is none.
        """
        with self._lock:
            if self._taken[person] >= self._each:
                raise TooManyStreams(f"{person} has {self._each} {self._what} at once already; close one, or wait")
            if self._taken.total() >= self._most:
                raise NoMoreStreams(f"there are {self._most} {self._what} at once already; wait and try again")
            self._taken[person] += 1

    def give_back(self, person: str) -> None:
        """Let somebody else have it."""
        with self._lock:
            self._taken[person] -= 1
            if self._taken[person] <= 0:
                del self._taken[person]

    @property
    def taken(self) -> int:
        """Places that are taken now."""
        with self._lock:
            return self._taken.total()


class Stream(StreamingResponse):
    """An event stream that gives its place back however it ends."""

    def __init__(self, events: AsyncIterable[str], places: Slots, person: str) -> None:
        """The place was taken by whoever makes it."""
        super().__init__(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._places, self._person = places, person

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the reader or the events end."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.give_back(self._person)
