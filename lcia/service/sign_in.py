"""Sign-in with OpenID Connect (authorization code flow with PKCE) or a token; the session is a signed cookie."""

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import OAuth
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response
from httpx2 import HTTPError
from joserfc.errors import JoseError
from sqlalchemy import Connection
from starlette.middleware.sessions import SessionMiddleware

from components.audit.log import Actor, append, newest
from components.errors import LciaError
from components.identity import people, tokens
from components.identity.access import Grant
from components.identity.people import Person
from components.identity.tokens import TokenRefused
from components.settings import ServeSettings
from components.storage.database import now
from lcia.instance import Instance
from lcia.service.border import root_of
from lcia.service.callers import HOW, PERSON, TOKEN, Caller, NotSignedIn
from lcia.service.limits import Rates
from lcia.service.sessions import KeptSessions

SESSION_SECRET, CLIENT_SECRET = "LCIA_SESSION_SECRET", "LCIA_OIDC_SECRET"
"""Environment variables; the first signs sessions, the second is the identity provider's client secret."""
LEAST_SECRET = 32
LONGEST_HOW = 200
"""Characters that the log keeps of how somebody signed in."""
NEXT, CSRF = "next", "csrf"
"""Keys of the session: the page to show after the sign-in, and the text that forms have to send back."""
AGAIN = timedelta(minutes=10)
"""Sign-ins of one person within this time give one entry, so that nobody fills the log with them."""
SIGN_IN = Actor("lcia", assured=True, how="sign-in")


class ServeRefused(LciaError):
    """The service can't start with its settings."""


def add_sign_in(app: FastAPI, instance: Instance, rates: Rates, environment: Mapping[str, str]) -> None:
    """Add sessions and /logout; if the settings name an identity provider, also /login and /login/callback.

    Raises:
        ServeRefused: a secret is missing or too short.
    """
    settings = instance.settings.serve
    app.add_middleware(KeptSessions, db=instance.db, hours=settings.session_hours)
    app.add_middleware(
        SessionMiddleware,
        secret_key=_session_secret(environment, must_exist=settings.issuer is not None),
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
        client_kwargs={"scope": settings.scopes, "code_challenge_method": "S256", "timeout": 20},
    )

    @app.get("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        callback = f"{settings.address.rstrip('/')}/login/callback"
        try:
            redirect: Response = await oauth.idp.authorize_redirect(request, callback)
        except (HTTPError, OAuthError) as error:
            raise NotSignedIn(f"the identity provider does not answer ({type(error).__name__}); try again") from error
        return redirect

    @app.get("/login/callback", include_in_schema=False)
    async def signed_in(request: Request) -> Response:
        try:
            token = await oauth.idp.authorize_access_token(request)
        except (HTTPError, OAuthError, JoseError, ValueError) as error:
            rates.count_failure(request)
            why = getattr(error, "error", type(error).__name__)
            raise NotSignedIn(f"the identity provider refused the sign-in ({why}); begin again at /login") from error
        person = await run_in_threadpool(_person, instance, token.get("userinfo") or {})
        return begin_session(request, person, how=f"signed in at {settings.issuer}"[:LONGEST_HOW])


def begin_session(request: Request, person: Person, token: str | None = None, how: str = "console") -> Response:
    """Begin the session of a person, and send them to the page they wanted."""
    onwards = request.session.get(NEXT, "/")
    request.session.clear()  # nothing from before the sign-in is carried over
    request.session[PERSON], request.session[CSRF], request.session[HOW] = person.name, new_csrf(), how
    if token is not None:
        request.session[TOKEN] = token
    return RedirectResponse(onwards, 303)


def new_csrf() -> str:
    """Text that the forms of a session send back, so that no other site can send them."""
    return secrets.token_urlsafe(32)


def sign_in_with_token(request: Request, instance: Instance, rates: Rates, text: str) -> Response:
    """Begin a session for the owner of a token; it ends when the token does.

    Raises:
        TokenRefused, TooManyRequests.
    """
    try:
        person, token = tokens.check(instance.db, text.strip())
    except TokenRefused:
        rates.count_failure(request)
        raise
    log_sign_in(instance, Caller.by_token(person, token, "console, ").actor)
    return begin_session(request, person, token.id)


def log_sign_in(instance: Instance, who: Actor) -> None:
    """Enter in the log that somebody signed in; further sign-ins within ten minutes give no entry."""
    with instance.db.begin() as connection:
        last = next(newest(connection, ["person.signed_in"], who.name), None)
        if last is not None and abs(now(connection) - datetime.fromisoformat(last.at)) < AGAIN:
            return
        append(connection, "person.signed_in", who, who.name, {})


def _session_secret(environment: Mapping[str, str], *, must_exist: bool) -> str:
    """Secret that signs sessions; a random one, which dies with this process, if none is given and none must exist."""
    secret = environment.get(SESSION_SECRET, "")
    if not secret and not must_exist:
        return secrets.token_urlsafe(48)
    if len(secret) < LEAST_SECRET:
        raise ServeRefused(
            f"{SESSION_SECRET} has {len(secret)} characters, expected at least {LEAST_SECRET} random ones; "
            "make them with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )
    return secret


def _person(instance: Instance, claims: Mapping[str, Any]) -> Person:
    """Person whom the claims describe, with the roles of their groups; a new one is recorded.

    A name that another account has gets a number behind it: roles are granted to accounts, not to names.

    Raises:
        NotSignedIn: no usable name, or one of somebody whom an admin recorded without an account.
    """
    issuer, settings = str(claims.get("iss", "")), instance.settings.serve
    subject = f"{issuer}|{claims.get('sub', '')}"
    name = str(claims.get("preferred_username") or claims.get("email") or claims.get("sub") or "")
    with instance.db.begin() as connection:
        person = people.by_subject(connection, subject)
        if person is None:
            try:
                person = people.add(connection, _name(connection, name, subject), subject=subject, actor=SIGN_IN)
            except NotSignedIn:
                raise
            except LciaError as error:
                raise NotSignedIn(f"the identity provider's name can't be used: {error}") from error
        if person.disabled_at is not None:
            raise NotSignedIn(f"{person.name} was shut out; an admin knows why")
        person = people.follow_groups(connection, person.name, _roles(settings, claims), actor=SIGN_IN)
    log_sign_in(instance, Actor(person.name, assured=True, how=f"signed in at {issuer}"[:LONGEST_HOW]))
    return person


def _name(connection: Connection, name: str, subject: str) -> str:
    """Free name for a new account.

    Raises:
        NotSignedIn: an admin recorded somebody of this name without an account; it may be the same person.
    """
    namesakes = people.among(connection, [name])
    if any(person.subject is None for person in namesakes.values()):
        raise NotSignedIn(
            f"the name {name!r} is recorded here without an account of the identity provider; if that is you, an admin "
            f"connects the two with `lcia people add '{name}' --subject '{subject}'`"
        )
    return people.free_name(connection, name) if namesakes else name


def _roles(settings: ServeSettings, claims: Mapping[str, Any]) -> dict[Grant, str]:
    """Roles by the settings' groups, each with the first group that gives it."""
    claim = claims.get(settings.groups_claim) or []
    groups = [claim] if isinstance(claim, str) else [str(one) for one in claim] if isinstance(claim, list) else []
    roles: dict[Grant, str] = {}
    for group in groups:
        for one in settings.groups.get(group, ()):
            roles.setdefault(Grant(one.role, one.site), group)
    return roles
