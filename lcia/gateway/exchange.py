"""Exchange of one request for its reply, whole or as a stream of events; if the caller hangs up, the work ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from typing import TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from components.errors import LciaError
from lcia.gateway import tracing
from lcia.gateway.asking import Body, Gateway, ReplyPart
from lcia.gateway.callers import Asker
from lcia.gateway.refusals import error_body, headers
from lcia.gateway.replies import Answered, Kind, event

Value = TypeVar("Value")


class Exchange:
    """One request under way."""

    def __init__(self, gateway: Gateway, request: Request, body: Body, kind: Kind, asker: Asker) -> None:
        self._request, self._body = request, body
        self._span = tracing.begin(gateway.tracer, kind, body.model, request.headers)
        self._pieces = gateway.ask(body, kind, asker)
        self._answers = [Answered() for _ in range(body.n or 1)]

    async def response(self) -> Response:
        """The reply; refusals are raised before anything of it is sent.

        Raises:
            LciaError: see `Gateway.ask`.
        """
        try:
            first = await unless_gone(self._request, anext(self._pieces))
        except BaseException:
            self._span.end()
            raise
        reply = first.reply
        if self._body.stream:
            media, extra = "text/event-stream", headers(reply.headers)
            return StreamingResponse(self._events(first), media_type=media, headers=extra)
        await unless_gone(self._request, self._rest(first))
        return JSONResponse(reply.whole(self._answers), headers=headers(reply.headers))

    async def _every(self, first: ReplyPart) -> AsyncIterator[ReplyPart]:
        """All pieces, noted as they pass."""
        try:
            async with aclosing(self._pieces):
                self._answers[first.number].add(first.part)
                yield first
                async for piece in self._pieces:
                    self._answers[piece.number].add(piece.part)
                    yield piece
                tracing.describe(self._span, first.reply.facts, first.reply.usage(self._answers))
        finally:
            self._span.end()

    async def _rest(self, first: ReplyPart) -> None:
        async for _ in self._every(first):
            pass

    async def _events(self, first: ReplyPart) -> AsyncIterator[str]:
        reply, options = first.reply, self._body.stream_options
        try:
            yield reply.opening(len(self._answers))
            async for piece in self._every(first):
                if piece.part.text or piece.part.steps or piece.part.finish:
                    yield reply.event(piece.number, piece.part)
        except LciaError as error:  # the status is sent already: say it in the stream
            yield event(error_body(error)[1])
            return
        yield reply.closing(self._answers, usage=bool(options and options.include_usage))


async def unless_gone(request: Request, work: Awaitable[Value]) -> Value:
    """Result of some work, which is cancelled if the caller hangs up first.

    Raises:
        ClientDisconnect: the caller hung up.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_hang_up(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
