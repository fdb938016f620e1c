"""Refusals in the form of OpenAI's API: HTTP status, type and code by error."""

import logging
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.errors import LciaError
from components.model.control import ContentRefused
from components.model.prompts import TooLong
from components.serving.contract import NoSuchTask
from components.serving.engine import EngineDown
from lcia.gateway.answer_ids import AnswerUnknown
from lcia.gateway.asking import AnswerTooSlow, MayNotTry, NoSuchModel
from lcia.gateway.callers import CallerUnknown, TooBusy, TooOften
from lcia.gateway.shapes import RequestRefused

LOG = logging.getLogger("lcia.gateway")


class BodyTooLarge(LciaError):
    """A request with more bytes than the settings allow."""


class NotJsonBody(LciaError):
    """A request that is not JSON."""


class ForeignHost(LciaError):
    """A request for another host, as a browser sends it on behalf of a page from elsewhere."""


STATUS: Mapping[type[LciaError], tuple[int, str, str]] = {
    CallerUnknown: (401, "authentication_error", "invalid_api_key"),
    MayNotTry: (403, "permission_error", "insufficient_permissions"),
    ForeignHost: (403, "permission_error", "foreign_host"),
    NoSuchModel: (404, "invalid_request_error", "model_not_found"),
    NoSuchTask: (404, "invalid_request_error", "model_not_found"),
    AnswerUnknown: (404, "invalid_request_error", "answer_not_found"),
    BodyTooLarge: (413, "invalid_request_error", "request_too_large"),
    NotJsonBody: (415, "invalid_request_error", "not_json"),
    TooLong: (400, "invalid_request_error", "context_length_exceeded"),
    ContentRefused: (400, "invalid_request_error", "content_refused"),
    TooOften: (429, "rate_limit_error", "rate_limit_exceeded"),
    TooBusy: (429, "rate_limit_error", "too_many_requests"),
    AnswerTooSlow: (504, "server_error", "timeout"),
    EngineDown: (503, "server_error", "not_ready"),
}
"""HTTP status, type and code by error; any other refusal is an invalid request."""


def error_body(error: LciaError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of a refusal."""
    fallback = (400, "invalid_request_error", "bad_request")
    status, kind, code = next((each for type_, each in STATUS.items() if isinstance(error, type_)), fallback)
    param = error.param if isinstance(error, RequestRefused) else None
    return status, {"error": {"message": str(error), "type": kind, "param": param, "code": code}}


def headers(own: Mapping[str, str]) -> dict[str, str]:
    """Headers of every reply, and its own."""
    return {"cache-control": "no-store", "x-content-type-options": "nosniff", **own}


def refuse(_: Request, error: Exception) -> Response:
    """Reply to a request that is refused."""
    assert isinstance(error, LciaError)  # noqa: S101 - registered for it
    status, body = error_body(error)
    extra = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "5"}, 503: {"retry-after": "5"}}.get(status, {})
    return JSONResponse(body, status, headers(extra))


def not_there(_: Request, error: Exception) -> Response:
    """Reply where there is no such address or method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    message = (
        f"{error.detail}: the gateway answers POST /v1/chat/completions, /v1/completions and /v1/feedback, and GET "
        "/v1/models, /health/live, /health/ready and /metrics"
    )
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": "unknown_url"}
    return JSONResponse({"error": body}, error.status_code, headers({}))


class LastResort:
    """ASGI middleware around everything else: answers what nobody foresaw, and logs its place.

    Never its message, which may repeat texts; uvicorn would log that, so no error reaches it.
    """

    def __init__(self, app: ASGIApp) -> None:
        """`app` is everything else."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; a reply that fails after it began breaks off."""
        replies = False

        async def out(message: Message) -> None:
            nonlocal replies
            replies = True
            await send(message)

        try:
            await self.app(scope, receive, out)
        except Exception as error:
            if scope["type"] != "http":
                raise
            reply = _unforeseen(error)
            if not replies:
                await reply(scope, receive, send)


def _unforeseen(error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    places = ", ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    LOG.error("a request failed by %s at %s", type(error).__name__, places)
    body = {
        "message": "the gateway failed; its log says where",
        "type": "server_error",
        "param": None,
        "code": "internal",
    }
    return JSONResponse({"error": body}, 500, headers({}))
