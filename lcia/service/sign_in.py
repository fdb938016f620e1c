"""Signing in: OpenID Connect (authorization code flow with PKCE) or a token; the session is a signed cookie."""

import secrets
from collections.abc import Mapping
from typing import Any

from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import OAuth
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response
from httpx2 import HTTPError
from joserfc.errors import JoseError
from starlette.middleware.sessions import SessionMiddleware

from components.audit.log import Actor, append
from components.errors import LciaError
from components.identity import people, tokens
from components.identity.people import Person, PersonRefused
from components.identity.tokens import TokenRefused
from lcia.service.border import root_of
from lcia.service.callers import PERSON, TOKEN, NotSignedIn, Rates
from lcia.service.sessions import KeptSessions
from lcia.workplace import Workplace

SESSION_SECRET, CLIENT_SECRET = "LCIA_SESSION_SECRET", "LCIA_OIDC_SECRET"
"""Environment variables; the first signs sessions, the second is the identity provider's client secret."""
LEAST_SECRET = 32
NEXT, CSRF = "next", "csrf"
"""Keys of the session: where somebody was going when they had to sign in, and what forms have to bring back."""
SIGN_IN = Actor("lcia", assured=True, how="sign-in")


class ServeRefused(LciaError):
    """The service can't start as it is set up."""


def add_sign_in(app: FastAPI, place: Workplace, rates: Rates, environment: Mapping[str, str]) -> None:
    """Sessions and /logout; where the settings name an identity provider, /login and /login/callback.

    Raises:
        ServeRefused: a secret is missing or too short.
    """
    settings = place.settings.serve
    app.add_middleware(KeptSessions, db=place.db, hours=settings.session_hours)
    app.add_middleware(
        SessionMiddleware,
        secret_key=_session_secret(environment, needed=settings.issuer is not None),
        session_cookie="lcia_session",
        path=root_of(settings.address) or "/",
        max_age=int(settings.session_hours * 3600),
        same_site="lax",
        https_only=settings.https_only,
    )

    @app.post("/logout", include_in_schema=False)
    def logout(request: Request) -> Response:
        request.session.clear()
        return Response(status_code=204)

    if settings.issuer is None:
        return
    if not environment.get(CLIENT_SECRET):
        raise ServeRefused(f"serve.issuer is set, but {CLIENT_SECRET} is not; the identity provider gives it")
    oauth = OAuth()
    oauth.register(
        "idp",
        server_metadata_url=f"{settings.issuer.rstrip('/')}/.well-known/openid-configuration",
        client_id=settings.client_id,
        client_secret=environment[CLIENT_SECRET],
        client_kwargs={"scope": "openid email profile", "code_challenge_method": "S256", "timeout": 20},
    )

    @app.get("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        callback = f"{settings.address.rstrip('/')}/login/callback"
        try:
            found: Response = await oauth.idp.authorize_redirect(request, callback)
        except (HTTPError, OAuthError) as error:
            raise NotSignedIn(f"the identity provider does not answer ({type(error).__name__}); try again") from error
        return found

    @app.get("/login/callback", include_in_schema=False)
    async def signed_in(request: Request) -> Response:
        try:
            token = await oauth.idp.authorize_access_token(request)
        except (HTTPError, OAuthError, JoseError, ValueError) as error:
            rates.failed(request)
            why = getattr(error, "error", type(error).__name__)
            raise NotSignedIn(f"the identity provider refused the sign-in ({why}); begin again at /login") from error
        person = await run_in_threadpool(_known, place, token.get("userinfo") or {})
        return begin_session(request, person)


def begin_session(request: Request, person: Person, token: str | None = None) -> Response:
    """Who signed in is known from here on; sends them to where they were going."""
    onwards = request.session.get(NEXT, "/")
    request.session.clear()  # nothing from before the sign-in is carried over
    request.session[PERSON], request.session[CSRF] = person.name, new_csrf()
    if token is not None:
        request.session[TOKEN] = token
    return RedirectResponse(onwards, 303)


def new_csrf() -> str:
    """What the forms of one session bring back, so that no other site can send them."""
    return secrets.token_urlsafe(32)


def sign_in_with_token(request: Request, place: Workplace, rates: Rates, text: str) -> Response:
    """A session for the owner of a token, for as long as the token counts.

    Raises:
        TokenRefused, TooManyRequests.
    """
    try:
        person, token = tokens.check(place.db, text.strip())
    except TokenRefused:
        rates.failed(request)
        raise
    log_sign_in(place, person)
    return begin_session(request, person, token.id)


def log_sign_in(place: Workplace, person: Person) -> None:
    """Enter in the log that somebody signed in."""
    with place.db.begin() as connection:
        append(connection, "person.signed_in", Actor(person.name, assured=True, how="console"), person.name, {})


def _session_secret(environment: Mapping[str, str], *, needed: bool) -> str:
    """The secret that sessions are signed with; one of this process alone where none is given and none is needed."""
    secret = environment.get(SESSION_SECRET, "")
    if not secret and not needed:
        return secrets.token_urlsafe(48)
    if len(secret) < LEAST_SECRET:
        raise ServeRefused(
            f"{SESSION_SECRET} has {len(secret)} characters, expected at least {LEAST_SECRET} random ones; "
            "make them with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )
    return secret


def _known(place: Workplace, claims: Mapping[str, Any]) -> Person:
    """The person that the claims speak of; somebody new is recorded without a role.

    Raises:
        NotSignedIn: no usable name, or the name belongs to somebody else.
    """
    subject = f"{claims.get('iss', '')}|{claims.get('sub', '')}"
    name = str(claims.get("preferred_username") or claims.get("email") or claims.get("sub") or "")
    with place.db.begin() as connection:
        person = people.by_subject(connection, subject)
        if person is None:
            try:
                person = people.add(connection, name, subject=subject, actor=SIGN_IN)
            except (PersonRefused, LciaError) as error:
                raise NotSignedIn(f"the identity provider's name can't be used: {error}") from error
            if person.subject != subject:
                raise NotSignedIn(
                    f"the name {name!r} is recorded here without an account of the identity provider; an admin has "
                    "to connect the two with `lcia people add`"
                )
        if person.disabled_at is not None:
            raise NotSignedIn(f"{person.name} was shut out; an admin knows why")
    log_sign_in(place, person)
    return person
