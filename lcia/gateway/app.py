"""HTTP routes of the gateway: OpenAI's API, feedback, health, metrics."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from components.errors import LciaError
from components.tasks.images import MAX_IMAGE_BYTES, MAX_PER_ROW
from lcia import client
from lcia.gateway import refusals
from lcia.gateway.asking import Gateway
from lcia.gateway.callers import LOCAL, Asker, asker_of
from lcia.gateway.exchange import Exchange
from lcia.gateway.follower import NotServing
from lcia.gateway.refusals import BodyTooLarge, ForeignHost, NotJsonBody
from lcia.gateway.shapes import ChatRequest, CompletionRequest, Feedback, RequestRefused
from lcia.service.patience import Bodies

Model = TypeVar("Model", bound=BaseModel)


def make_app(gateway: Gateway, run: Callable[[], Awaitable[None]], *, tokens: bool) -> FastAPI:
    """Make the application; `run` follows decisions while it lives, `tokens` says if callers need one."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.ensure_future(run())
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await gateway.follower.close()

    app = FastAPI(title="lcia gateway", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    _add_answers(app, gateway, tokens=tokens)
    _add_state(app, gateway)
    app.add_exception_handler(LciaError, refusals.refuse)
    app.add_exception_handler(HTTPException, refusals.not_there)
    app.add_middleware(Bodies)
    app.add_middleware(refusals.LastResort)
    return app


def _add_answers(app: FastAPI, gateway: Gateway, *, tokens: bool) -> None:
    def asker(request: Request) -> Asker:
        if tokens:
            if not gateway.follower.tokens and not gateway.follower.ready:  # else a good token would be called unknown
                raise NotServing("the gateway has not heard yet which tokens may ask; wait a little and ask again")
            return asker_of(request.headers.get("authorization"), gateway.follower.tokens)
        if not client.is_local(urlsplit(f"//{request.headers.get('host', '')}").hostname or ""):
            raise ForeignHost("without tokens the gateway answers this machine only, under localhost or 127.0.0.1")
        return LOCAL

    async def body(request: Request, who: Asker, shape: type[Model]) -> Model:
        with gateway.admission.body(who):
            return await _body(gateway, request, shape)

    @app.get("/v1/models")
    def models(request: Request) -> dict[str, Any]:
        asker(request)
        entries = [{"id": name, "object": "model", "created": 0, "owned_by": "lcia"} for name in gateway.names()]
        return {"object": "list", "data": entries}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        who = asker(request)
        return await Exchange(gateway, request, await body(request, who, ChatRequest), "chat", who).response()

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        who = asker(request)
        ask = await body(request, who, CompletionRequest)
        return await Exchange(gateway, request, ask, "completion", who).response()

    @app.post("/v1/feedback")
    async def feedback(request: Request) -> dict[str, bool]:
        who = asker(request)
        with gateway.admission.place(who):
            gateway.rate(await body(request, who, Feedback))
        return {"counted": True}


def _add_state(app: FastAPI, gateway: Gateway) -> None:
    follower = gateway.follower

    @app.get("/health/live")
    def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready")
    def ready() -> Response:
        value = {
            "status": "ready" if follower.ready else "not ready",
            "serves": follower.champion.number if follower.champion else None,
            "decided": follower.decided["number"] if follower.decided else None,
            "differs": bool(follower.problem),
        }
        return JSONResponse(value, 200 if follower.ready else 503)

    @app.get("/metrics")
    def numbers() -> Response:
        page = gateway.measures.page(
            running=gateway.admission.total,
            ready=follower.ready,
            version=follower.champion.number if follower.champion else None,
            target=follower.decided["number"] if follower.decided else None,
        )
        return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _body(gateway: Gateway, request: Request, shape: type[Model]) -> Model:
    """Body of a request in its shape.

    Raises:
        NotJsonBody, BodyTooLarge; RequestRefused: it does not fit; the message does not repeat it.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which no page from elsewhere can send without being asked
        raise NotJsonBody(f"the request came as {kind[:60] or 'nothing'!r}, expected application/json")
    engine = gateway.follower.engine
    limit = gateway.settings.gateway.body_bytes
    if engine is not None and engine.sees_images:
        limit += MAX_PER_ROW * MAX_IMAGE_BYTES * 4 // 3
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise BodyTooLarge(f"the request has more than {limit} bytes (gateway.body_bytes); send a shorter one")
    try:
        return shape.model_validate_json(bytes(content))
    except ValidationError as error:
        raise RequestRefused.of(error) from None
