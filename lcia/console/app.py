"""The console's routes: signing in, static files, preferences, deeds, and the pages."""

from collections.abc import Callable
from functools import partial

from fastapi import APIRouter, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

from components.errors import LciaError
from components.identity.tokens import TokenRefused
from lcia.console import language
from lcia.console.base import (
    FLASH,
    THEME_COOKIE,
    THEMES,
    Console,
    FormRefused,
    form_of,
    html,
    local,
    onwards,
    theme_of,
    to_sign_in,
)
from lcia.console.forms import parameters, sentence
from lcia.console.rendering import STATIC, render
from lcia.console.views import (
    ask,
    candidate,
    compare,
    in_use,
    log,
    overview,
    people,
    policy,
    routing,
    statistics,
    task,
    versions,
    wordings,
)
from lcia.instance import Instance
from lcia.service.callers import PERSON, NotSignedIn
from lcia.service.limits import Rates
from lcia.service.sign_in import CSRF, NEXT, new_csrf, sign_in_with_token

VIEWS = (overview, task, candidate, ask, routing, wordings, in_use, versions, compare, log, statistics, policy, people)
"""Modules with a function `routes`."""
YEAR = 365 * 24 * 3600


def add_console(app: FastAPI, instance: Instance, rates: Rates) -> Callable[[Request, LciaError, int], Response]:
    """Add all pages to the application that has sessions; returns the function that shows a refusal."""
    console = Console(instance, rates)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for router in (_sign_in(console), _deeds(console), *(view.routes(console) for view in VIEWS)):
        app.router.routes.extend(router.routes)
    return partial(refusal, console)


def _sign_in(console: Console) -> APIRouter:
    router, instance = APIRouter(include_in_schema=False), console.instance
    if instance.settings.serve.issuer is None:
        router.add_api_route("/login", lambda: RedirectResponse("/login/token", 303))

    @router.get("/login/token")
    def by_token(request: Request) -> Response:
        if request.session.get(PERSON):
            return RedirectResponse("/", 303)
        request.session.setdefault(CSRF, new_csrf())
        return _sign_in_page(console, request)

    @router.post("/login/token")
    async def with_token(request: Request) -> Response:
        fields = await form_of(request)
        try:
            return await run_in_threadpool(
                sign_in_with_token, request, instance, console.rates, fields.get("token", "")
            )
        except TokenRefused as why:
            return _sign_in_page(console, request, str(why), 401)

    @router.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        await form_of(request)
        request.session.clear()
        return RedirectResponse("/login/token", 303)

    @router.post("/preferences")
    async def preferences(request: Request) -> Response:
        return _prefer(await form_of(request), path=console.root or "/", secure=instance.settings.serve.https_only)

    return router


def _prefer(fields: dict[str, str], *, path: str, secure: bool) -> Response:
    """Language and colours, kept in cookies of their own: they outlast a sign-in."""
    answer = RedirectResponse(local(fields.get("back", "/")), 303)
    for cookie, field, choices in (
        (language.COOKIE, "language", language.LANGUAGES),
        (THEME_COOKIE, "theme", THEMES),
    ):
        if fields.get(field) in choices:
            answer.set_cookie(cookie, fields[field], YEAR, path=path, samesite="lax", secure=secure, httponly=True)
    return answer


def _sign_in_page(console: Console, request: Request, why: str = "", status: int = 200) -> Response:
    values = {
        "assistant": console.instance.assistant,
        "csrf": request.session.get(CSRF, ""),
        "theme": theme_of(request),
        "language": language.language_of(request),
        "issuer": console.instance.settings.serve.issuer,
        "onwards": request.session.get(NEXT, "/"),
        "why": why,
    }
    return html(render(values["language"], "sign_in.html", values, console.root), status)


def _deeds(console: Console) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.post("/do/{operation}")
    async def do(operation: str, request: Request) -> Response:
        """Any operation that changes something, as the form's fields say; checked like the API's."""
        fields = await form_of(request)
        back = local(fields.pop("back", "/"))

        def run() -> str:
            reader = console.reader(request)
            return sentence(reader.say, operation, console.ask(reader, operation, **parameters(operation, fields)))

        request.session[FLASH] = await run_in_threadpool(run)
        return onwards(request, back)

    return router


def refusal(console: Console, request: Request, error: LciaError, status: int) -> Response:
    """A refusal for somebody at a browser: the way to sign in, or a page that says why; a part where a script asks."""
    if isinstance(error, NotSignedIn | TokenRefused) and not request.url.path.startswith("/login"):
        return to_sign_in(request)
    message = "\n".join([str(error), *getattr(error, "__notes__", ())])
    template = "refusal_part.html" if request.headers.get("hx-request") else "refusal.html"
    values = {
        "assistant": console.instance.assistant,
        "theme": theme_of(request),
        "language": language.language_of(request),
        "message": message,
        "status": status,
        "old_form": isinstance(error, FormRefused),
    }
    return html(render(language.language_of(request), template, values, console.root), status)
