"""HTTP application: one route per operation, made from the same table as the verbs of the command line."""

import tempfile
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import Body, Depends, FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from components.errors import GateRefused, LciaError, WaitingForPeople
from components.identity.access import Forbidden
from components.identity.tokens import TokenRefused, TokenUnknown
from components.promotion.candidates import CandidateUnknown
from components.promotion.replicas import NotAskable, ReportRefused
from components.promotion.trial_rows import TrialUnknown
from components.promotion.trials import TrialRefused
from components.storage.database import DatabaseUnavailable, DiskFull
from components.storage.objects import Json
from components.tasks.containers import KINDS
from components.tasks.images import MAX_IMAGE_BYTES, MAX_PER_ROW
from components.tasks.parser_process import ParserBusy
from components.tasks.problems import MAX_FILE_BYTES, PackageError
from components.tasks.queue import QueueError
from lcia import failures
from lcia.inference.process import AnswererBusy, AnswererEnded
from lcia.instance import Instance
from lcia.operations import tasks
from lcia.operations.flips import ImageUnknown, NotForSubmitters
from lcia.operations.serving import PartUnknown
from lcia.operations.table import OPERATIONS, Operation
from lcia.service import metrics
from lcia.service.border import Border, root_of
from lcia.service.callers import Caller, NotSignedIn, caller_of, log_denial, perform
from lcia.service.limits import Rates, TooManyRequests
from lcia.service.parts import add_parts
from lcia.service.patience import Bodies
from lcia.service.sign_in import add_sign_in
from lcia.service.streams import NoMoreStreams, Slots, TooManyStreams
from lcia.worker.rounds import Rounds

UPLOADS = {kind: suffix for suffix, kind in KINDS.items()}
"""File suffix of a package, by content type."""
UPLOADS_EACH, UPLOADS_MOST = 4, 16
"""Packages that one person, and all people, may send at the same time."""
BODY_LIMIT = 1024 * 1024
"""Bytes of a request that carries no package and no image."""
LIMITS = {"/try": MAX_PER_ROW * MAX_IMAGE_BYTES + BODY_LIMIT}
"""Bytes of a request with images, by address."""


class Refusal(BaseModel):
    """Refusal of a request."""

    error: str
    """Name of the error."""
    message: str
    """Sentence on what was seen, what was expected, and what to do."""
    exit_code: int
    """Exit code of the command line: 1 error, 2 the gate refuse, 3 people have to act."""


class TooLarge(LciaError):
    """More bytes than any request may have."""


class PackageKindUnknown(LciaError):
    """A package whose container is unknown."""


STATUS: Mapping[type[LciaError], int] = {
    NotSignedIn: 401,
    TokenRefused: 401,
    Forbidden: 403,
    NotForSubmitters: 403,
    CandidateUnknown: 404,
    TokenUnknown: 404,
    ImageUnknown: 404,
    PartUnknown: 404,
    TrialUnknown: 404,
    ReportRefused: 409,
    NotAskable: 409,
    TrialRefused: 409,
    QueueError: 409,
    GateRefused: 409,
    WaitingForPeople: 409,
    PackageError: 422,
    TooLarge: 413,
    PackageKindUnknown: 415,
    TooManyRequests: 429,
    TooManyStreams: 429,
    NoMoreStreams: 503,
    AnswererBusy: 503,
    AnswererEnded: 503,
    ParserBusy: 503,
    DiskFull: 507,
    DatabaseUnavailable: 503,
    failures.Unforeseen: 500,
}
"""HTTP status by error; any other refusal is 400."""
REFUSALS: dict[int | str, dict[str, Any]] = {code: {"model": Refusal} for code in (400, *sorted(set(STATUS.values())))}


Refuse: TypeAlias = Callable[[Request, LciaError, int], Response]
"""A refusal with its HTTP status, as a page."""
AddPages: TypeAlias = Callable[[FastAPI, Instance, Rates], Refuse]
"""Adds pages for people at a browser; returns how a refusal is shown to them."""


def make_app(
    instance: Instance, environment: Mapping[str, str], add_pages: AddPages, rounds: Rounds | None = None
) -> FastAPI:
    """Make the application over an opened state; secrets come from `environment`, troubles for /health from `rounds`.

    Raises:
        ServeRefused: a secret that the settings ask for is not there.
        AddressRefused: see `border.root_of`.
    """
    root = root_of(instance.settings.serve.address)
    app = FastAPI(
        title=f"lcia: {instance.assistant}",
        description="Every look and every decision about an assistant. `/v1` is stable: fields may be added.",
        version="1",
        responses=REFUSALS,
        servers=[{"url": root}] if root else None,
        docs_url=None,  # its page loads scripts from outside
        redoc_url=None,
    )
    rates = Rates(instance.settings.serve)

    def who(request: Request) -> Caller:
        return caller_of(request, instance, rates)

    for operation in OPERATIONS.values():
        _add(app, instance, operation, who)
    _add_submit(app, instance, who)
    add_parts(app, instance, rates)
    _add_health(app, instance, rounds)
    app.add_exception_handler(RequestValidationError, _invalid)
    add_sign_in(app, instance, rates, environment)
    page = add_pages(app, instance, rates)

    def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, LciaError)  # noqa: S101 - registered for it
        return page(request, error, status_of(error)) if _at_browser(request) else _json_refusal(error)

    async def nothing_there(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
        if not _at_browser(request):
            return await http_exception_handler(request, error)
        return page(request, LciaError(f"{request.url.path}: {error.detail}"), error.status_code)

    def unforeseen(request: Request, error: Exception) -> Response:
        message = failures.note(error, instance.home, request.method, request.url.path)
        return refuse(request, failures.Unforeseen(message))

    app.middleware("http")(partial(_guard, refuse, unforeseen))
    app.add_exception_handler(LciaError, refuse)
    app.add_exception_handler(HTTPException, nothing_there)
    app.add_middleware(Border, root=root)
    app.add_middleware(Bodies)
    return app


def _add(app: FastAPI, instance: Instance, operation: Operation, who: Callable[[Request], Caller]) -> None:
    where = Body() if operation.method == "POST" else Query()

    def endpoint(params: Any, caller: Annotated[Caller, Depends(who)]) -> Json:  # noqa: ANN401 - set below
        return perform(instance, operation, caller, params)

    endpoint.__annotations__["params"] = Annotated[operation.params, where]
    app.add_api_route(
        f"/v1/{operation.name}",
        endpoint,
        methods=[operation.method],
        summary=operation.summary,
        operation_id=operation.name,
        response_model=dict[str, Any] | None,
        tags=["do" if operation.changes else "look"],
    )


def _add_submit(app: FastAPI, instance: Instance, who: Callable[[Request], Caller]) -> None:
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in UPLOADS}
    sending = Slots("packages on their way", UPLOADS_EACH, UPLOADS_MOST)

    @app.post(
        "/v1/submit",
        summary="Put a task package into the queue; the body is a .zip or .tar.zst of its folder.",
        operation_id="submit",
        response_model=dict[str, Any],
        tags=["do"],
        openapi_extra={"requestBody": {"required": True, "content": content}},
    )
    async def submit(request: Request, caller: Annotated[Caller, Depends(who)]) -> Json:
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind not in UPLOADS:
            raise PackageKindUnknown(f"a package came as {kind or 'nothing'!r}, expected {' or '.join(UPLOADS)}")
        await run_in_threadpool(caller.need, "submit", None)
        sending.take(caller.person.name)
        try:
            return await receive(request, kind, caller)
        finally:
            sending.give_back(caller.person.name)

    async def receive(request: Request, kind: str, caller: Caller) -> Json:
        uploads = instance.home / "unpacked"
        uploads.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=uploads, prefix="upload-") as folder:
            file = Path(folder) / f"package{UPLOADS[kind]}"
            size = 0
            with file.open("wb") as copy:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > MAX_FILE_BYTES:
                        raise TooLarge(f"the package is larger than {MAX_FILE_BYTES} bytes; send a smaller one")
                    copy.write(chunk)
            return await run_in_threadpool(_submit, instance, caller, file)


def _submit(instance: Instance, caller: Caller, file: Path) -> Json:
    def check_owner(owner: str) -> None:
        try:
            caller.need("submit", owner)
        except Forbidden as why:
            log_denial(instance, caller, "submit", "submit", why)
            raise

    return tasks.submit(instance, file, caller.actor, check_owner, label="as sent").to_json()


class Health(BaseModel):
    """Health of the service: whether its rounds go well, if it answers at all."""

    status: Literal["ok", "degraded"]
    """`degraded`: it answers and decides, but what `reasons` names fails."""
    reasons: list[str]
    """Sentences without details, as nobody has to sign in to read them; `lcia doctor` has the details."""


def _add_health(app: FastAPI, instance: Instance, rounds: Rounds | None) -> None:
    @app.get("/health", summary="Health: the service reaches its database, its rounds go well.", tags=["health"])
    def health() -> Health:
        with instance.db.read():
            reasons = rounds.troubles() if rounds else []
            return Health(status="degraded" if reasons else "ok", reasons=reasons)

    @app.get("/metrics", summary="Numbers for Prometheus.", tags=["health"], response_class=PlainTextResponse)
    def numbers() -> Response:
        return Response(metrics.page(instance, rounds), media_type=metrics.KIND)


def status_of(error: LciaError) -> int:
    """The HTTP status of a refusal."""
    return next((code for kind, code in STATUS.items() if isinstance(error, kind)), 400)


def _at_browser(request: Request) -> bool:
    """True if a person at a browser sees the answer, not a program."""
    asks = "text/html" in request.headers.get("accept", "") or request.headers.get("hx-request")
    return bool(asks) and not request.url.path.startswith("/v1/")


def _json_refusal(error: LciaError) -> Response:
    status = status_of(error)
    message = "\n".join([str(error), *getattr(error, "__notes__", ())])
    refusal = Refusal(error=type(error).__name__, message=message, exit_code=error.exit_code)
    headers = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "60"}}.get(status)
    return JSONResponse(refusal.model_dump(), status, headers)


def _invalid(_: Request, error: Exception) -> Response:
    """Refusal of parameters that do not fit; it never repeats them, as one may be a secret in the wrong place."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    lines = [f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors()[:20]]
    refusal = Refusal(error="ParametersRefused", message="; ".join(lines), exit_code=1)
    return JSONResponse(refusal.model_dump(), 422)


async def _guard(
    refuse: Callable[[Request, Exception], Response],
    unforeseen: Callable[[Request, Exception], Response],
    request: Request,
    following: Callable[[Request], Awaitable[Response]],
) -> Response:
    """Limit the size of requests, answer unforeseen errors, and set headers that keep browsers from guessing."""
    length = request.headers.get("content-length", "unsaid" if "transfer-encoding" in request.headers else "0")
    limit = LIMITS.get(request.url.path, BODY_LIMIT)
    if request.url.path != "/v1/submit" and (not length.isdigit() or int(length) > limit):
        return refuse(request, TooLarge(f"the request has {length} bytes, expected at most {limit}"))
    try:
        response = await following(request)
    except ClientDisconnect:  # nobody reads the answer, and nothing failed
        response = Response(status_code=400)
    except LciaError as error:  # of a middleware
        response = await run_in_threadpool(refuse, request, error)
    except Exception as error:  # noqa: BLE001 - clients get a reference, never a traceback
        response = await run_in_threadpool(unforeseen, request, error)
    response.headers["x-content-type-options"] = "nosniff"
    lasting = request.url.path.startswith("/static/") and response.status_code == 200
    response.headers.setdefault("cache-control", "public, max-age=604800" if lasting else "no-store")
    response.headers["referrer-policy"] = "same-origin"
    response.headers.setdefault("content-security-policy", "default-src 'none'; frame-ancestors 'none'")
    return response
