"""How long a connection may keep the service waiting: for a request's head, for its body, for room to write.

uvicorn waits for ever for all three. A thousand clients that begin a request and say no more would take every file
descriptor, so each wait ends, and where too many wait at once the oldest goes: whoever sends a whole request gets in.
"""

import asyncio
import resource
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Any, ClassVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""For the whole head of a request, and between two requests."""
WRITE_SECONDS = 60.0
"""For a client that takes nothing of its answer."""
GRACE_SECONDS, SLOWEST = 20.0, 8 * 1024
"""A body has that long, and beyond it as long as it comes by that many bytes a second."""
STILL_SECONDS = 20.0
"""Between two parts of a body."""
MOST_WAITING = 256
"""Connections whose request's head is still to come."""
SPARE_FILES = 128
"""File descriptors that are kept for databases, objects and uploads."""


class TimedConnection(H11Protocol):
    """uvicorn's connection, whose waits end."""

    waiting: ClassVar["OrderedDict[TimedConnection, None]"] = OrderedDict()
    """Those whose head is still to come, oldest first."""
    _head: asyncio.TimerHandle | None = None
    _room: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody connected; the oldest that still waits goes where there are too many."""
        super().connection_made(transport)
        self._expect_head()
        while len(self.waiting) > MOST_WAITING:
            oldest, _ = self.waiting.popitem(last=False)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._head_came()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A part of a request; its head is there once a cycle is."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._head_came()

    def on_response_complete(self) -> None:
        """The next request is waited for, unless it lies here already."""
        before = self.cycle
        super().on_response_complete()
        if self.cycle is before:
            self._expect_head()

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        super().pause_writing()
        self._room = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads on."""
        if self._room is not None:
            self._room.cancel()
            self._room = None
        super().resume_writing()

    def _expect_head(self) -> None:
        self._head_came()
        self.waiting[self] = None
        self._head = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _head_came(self) -> None:
        self.waiting.pop(self, None)
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _give_up(self) -> None:
        self._head_came()
        if not self.transport.is_closing():
            if self.cycle is None:
                self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()


class Bodies:
    """ASGI middleware: a body that does not come, or comes too slowly, is refused; inside, the client is gone then."""

    def __init__(self, app: ASGIApp) -> None:
        """Around everything else."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, reading with patience that ends."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, size, more, started, slow = time.monotonic(), 0, True, False, False

        async def into() -> Message:
            nonlocal size, more, slow
            if not more:
                return {"type": "http.disconnect"} if slow else await receive()
            left = min(STILL_SECONDS, began + GRACE_SECONDS + size / SLOWEST - time.monotonic())
            try:
                message = await asyncio.wait_for(receive(), max(left, 0.0))
            except TimeoutError:
                more, slow = False, True
                if not started:
                    await self._refuse(send, size)
                return {"type": "http.disconnect"}
            size += len(message.get("body", b""))
            more = bool(message.get("more_body")) and message["type"] == "http.request"
            return message

        async def out(message: Message) -> None:
            nonlocal started
            started = True
            if not slow:
                await send(message)

        await self.app(scope, into, out)

    async def _refuse(self, send: Send, size: int) -> None:
        words = (
            f"TooSlow: the request's body stopped or came by less than {SLOWEST} bytes a second ({size} bytes came); "
            "send it again on a better connection\n"
        )
        heads = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 408, "headers": heads})
        await send({"type": "http.response.body", "body": words.encode()})


def options() -> dict[str, Any]:
    """What uvicorn is told beside; raises the limit of open files as far as the system lets this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    most = 4096 if soft == resource.RLIM_INFINITY else min(4096, max(64, soft - SPARE_FILES))
    return {"http": TimedConnection, "ws": "none", "limit_concurrency": most, "timeout_keep_alive": 5}
