"""Signing in with OpenID Connect (authorization code flow with PKCE); the session is a signed cookie."""

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
from components.identity import people
from components.identity.people import Person, PersonRefused
from lcia.service.callers import PERSON, NotSignedIn, Rates
from lcia.workplace import Workplace

SESSION_SECRET, CLIENT_SECRET = "LCIA_SESSION_SECRET", "LCIA_OIDC_SECRET"
"""Environment variables; the first signs sessions, the second is the identity provider's client secret."""
LEAST_SECRET = 32
SIGN_IN = Actor("lcia", assured=True, how="sign-in")


class ServeRefused(LciaError):
    """The service can't start as it is set up."""


def add_sign_in(app: FastAPI, place: Workplace, rates: Rates, environment: Mapping[str, str]) -> None:
    """Where the settings name an identity provider: sessions, and the routes /login, /login/callback and /logout.

    Raises:
        ServeRefused: a secret is missing or too short.
    """
    settings = place.settings.serve
    if settings.issuer is None:
        return
    secret = environment.get(SESSION_SECRET, "")
    if len(secret) < LEAST_SECRET:
        raise ServeRefused(
            f"{SESSION_SECRET} has {len(secret)} characters, expected at least {LEAST_SECRET} random ones; "
            "make them with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )
    app.add_middleware(
        SessionMiddleware,
        secret_key=secret,
        session_cookie="lcia_session",
        max_age=int(settings.session_hours * 3600),
        same_site="lax",
        https_only=settings.https_only,
    )
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
        rates.may_try(_address(request))
        callback = f"{settings.address.rstrip('/')}/login/callback"
        try:
            found: Response = await oauth.idp.authorize_redirect(request, callback)
        except (HTTPError, OAuthError) as error:
            raise NotSignedIn(f"the identity provider does not answer ({type(error).__name__}); try again") from error
        return found

    @app.get("/login/callback", include_in_schema=False)
    async def signed_in(request: Request) -> Response:
        rates.may_try(_address(request))
        try:
            token = await oauth.idp.authorize_access_token(request)
        except (HTTPError, OAuthError, JoseError, ValueError) as error:
            rates.failed(_address(request))
            why = getattr(error, "error", type(error).__name__)
            raise NotSignedIn(f"the identity provider refused the sign-in ({why}); begin again at /login") from error
        person = await run_in_threadpool(_known, place, token.get("userinfo") or {})
        request.session.clear()  # nothing from before the sign-in is carried over
        request.session[PERSON] = person.name
        return RedirectResponse("/", 303)

    @app.post("/logout", include_in_schema=False)
    def logout(request: Request) -> Response:
        request.session.clear()
        return Response(status_code=204)


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
        append(connection, "person.signed_in", Actor(person.name, assured=True, how="console"), person.name, {})
    return person


def _address(request: Request) -> str:
    return request.client.host if request.client else "?"
