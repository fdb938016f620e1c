"""Patience of the service: limits to how long it waits for a request's head, its body, and room to write.

uvicorn waits forever for all three. A thousand clients that begin a request and send no more would take every file
descriptor. So each wait ends, and if too many wait at once the oldest is cut off: complete requests get in.
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
"""Seconds for the whole head of a request, and between two requests."""
WRITE_SECONDS = 60.0
"""Seconds for a client that reads nothing of its answer."""
GRACE_SECONDS, SLOWEST = 20.0, 8 * 1024
"""Seconds that every body has, and bytes per second at which it may take longer."""
STILL_SECONDS = 20.0
"""Seconds between two parts of a body."""
MOST_WAITING = 256
"""Connections that may wait for a request's head at the same time."""
SPARE_FILES = 128
"""File descriptors kept free for databases, objects and uploads."""


class TimedConnection(H11Protocol):
    """Connection of uvicorn whose waits end."""

    waiting: ClassVar["OrderedDict[TimedConnection, None]"] = OrderedDict()
    """Connections whose request's head has not come yet, oldest first."""
    _head: asyncio.TimerHandle | None = None
    _room: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the head of a new connection; if too many wait, cut off the oldest."""
        super().connection_made(transport)
        self._expect_head()
        while len(self.waiting) > MOST_WAITING:
            oldest, _ = self.waiting.popitem(last=False)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all waits."""
        self._head_came()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a part of a request; its head is complete once uvicorn has made a cycle."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._head_came()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it has come already."""
        before = self.cycle
        super().on_response_complete()
        if self.cycle is before:
            self._expect_head()

    def pause_writing(self) -> None:
        """Limit the wait for a client that reads slower than we write."""
        super().pause_writing()
        self._room = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """End that wait: the client reads on."""
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
    """ASGI middleware that refuses a body which stops or comes too slowly; the app inside sees a disconnect."""

    def __init__(self, app: ASGIApp) -> None:
        """`app` is everything else; this is the outermost layer."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with limits to how long its body may take."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, size, more, answering, slow = time.monotonic(), 0, True, False, False

        async def into() -> Message:
            nonlocal size, more, slow
            if not more:
                return {"type": "http.disconnect"} if slow else await receive()
            seconds = min(STILL_SECONDS, began + GRACE_SECONDS + size / SLOWEST - time.monotonic())
            try:
                message = await asyncio.wait_for(receive(), max(seconds, 0.0))
            except TimeoutError:
                more, slow = False, True
                if not answering:
                    await self._refuse(send, size)
                return {"type": "http.disconnect"}
            size += len(message.get("body", b""))
            more = bool(message.get("more_body")) and message["type"] == "http.request"
            return message

        async def out(message: Message) -> None:
            nonlocal answering
            answering = True
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
    """Options of uvicorn; raises this process's limit of open files as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    most = 4096 if soft == resource.RLIM_INFINITY else min(4096, max(64, soft - SPARE_FILES))
    plain = {"log_config": None, "log_level": "warning", "server_header": False, "proxy_headers": False}
    return {**plain, "http": TimedConnection, "ws": "none", "limit_concurrency": most, "timeout_keep_alive": 5}
