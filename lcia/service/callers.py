"""Who calls: a token's owner or somebody who signed in; what they may do, and how often."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from components.audit.log import Actor
from components.errors import LciaError
from components.identity import people, tokens
from components.identity.access import Forbidden, Grant, Permission, need
from components.identity.people import Person
from components.identity.tokens import TokenRefused
from components.settings import ServeSettings
from components.storage.database import DatabaseUnavailable
from components.storage.objects import Json
from lcia.operations import Operation
from lcia.service.denials import DENIALS
from lcia.shapes import Params
from lcia.workplace import Workplace

LOG = logging.getLogger(__name__)
PERSON, TOKEN = "person", "token"
"""Keys of the session: who signed in, and by which token where it was one."""


class NotSignedIn(LciaError):
    """Nobody is known to be calling."""


class TooManyRequests(LciaError):
    """Slower, please."""


@dataclass(frozen=True)
class Caller:
    """Somebody known."""

    person: Person
    how: str
    """`token` or `console`."""
    only: Sequence[Permission] = ()
    """What the token is limited to; empty for all the person may do."""

    @property
    def actor(self) -> Actor:
        """As the log names them."""
        return Actor(self.person.name, assured=True, how=self.how)

    @property
    def grants(self) -> tuple[Grant, ...]:
        """Roles of the person; none once shut out."""
        return () if self.person.disabled_at else self.person.grants

    def need(self, permission: Permission, site: str | None) -> None:
        """Refuse what the person, or the token, does not give.

        Raises:
            Forbidden: says what would do.
        """
        if self.only and permission not in self.only:
            only = ", ".join(self.only)
            raise Forbidden(f"this token of {self.person.name} is limited to {only}, not `{permission}`")
        need(self.person.name, self.grants, permission, site)


class Rates:
    """How often one caller may ask, and how often one address may fail to say who it is; per process."""

    def __init__(self, settings: ServeSettings) -> None:
        """Counts in memory: a restart forgets them."""
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._calls, self._failures = parse(settings.rate), parse(settings.failure_rate)

    def call(self, caller: Caller) -> None:
        """Count a call.

        Raises:
            TooManyRequests: too many of this caller.
        """
        self._hit(self._calls, f"person {caller.person.name}")

    def may_try(self, address: str) -> None:
        """Refuse an address that guessed too often.

        Raises:
            TooManyRequests: it did.
        """
        if not self._limiter.test(self._failures, f"address {address}"):
            raise TooManyRequests(f"too many failed sign-ins; at most {self._failures} an address, wait and try again")

    def failed(self, address: str) -> None:
        """Count a failure."""
        self._limiter.hit(self._failures, f"address {address}")

    def _hit(self, rate: RateLimitItem, key: str) -> None:
        if not self._limiter.hit(rate, key):
            raise TooManyRequests(f"too many requests; at most {rate} a caller, wait and try again")


def caller_of(request: Request, place: Workplace, rates: Rates, *, counted: bool = True) -> Caller:
    """Who is calling; `counted` unless the call is part of one that was counted.

    Raises:
        NotSignedIn, TokenRefused, TooManyRequests.
    """
    address = request.client.host if request.client else "?"
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    if kind:
        rates.may_try(address)
        try:
            person, token = tokens.check(place.db, text.strip() if kind.lower() == "bearer" else "")
        except TokenRefused:
            rates.failed(address)
            raise
        found = Caller(person, "token", token.permissions)
    else:
        name = request.scope.get("session", {}).get(PERSON)
        if not name:
            way = "sign in at /login, or " if place.settings.serve.issuer else ""
            raise NotSignedIn(f"nobody is known to be calling; {way}send `Authorization: Bearer lcia_...`")
        found = _signed_in(place, name, request.scope["session"].get(TOKEN))
    if counted:
        rates.call(found)
    return found


def _signed_in(place: Workplace, name: str, token: str | None) -> Caller:
    """Who a session speaks of; one that began with a token ends with it."""
    only: Sequence[Permission] = ()
    if token is not None:
        try:
            only = tokens.standing(place.db, token)[1].permissions
        except LciaError as error:
            raise NotSignedIn(f"the sign-in counts no more: {error}") from error
    with place.db.read() as connection:
        found = Caller(people.get(connection, name), "console", only)
    if found.person.disabled_at is not None:
        raise NotSignedIn(f"{name} was shut out; an admin knows why")
    return found


def perform(place: Workplace, operation: Operation, caller: Caller, params: Params) -> Json:
    """Do what the caller may do, under the policy in force now; what they may not is told the log, see `denials`.

    Raises:
        Forbidden: they may not; whatever else the operation raises.
    """
    place = place.current()
    try:
        caller.need(operation.permission, None)
        caller.need(operation.permission, operation.site(place, params))
    except Forbidden as why:
        log_denial(place, caller, operation.name, operation.permission, why)
        raise
    return operation.run(place, caller.actor, params)


def log_denial(place: Workplace, caller: Caller, operation: str, permission: Permission, why: Forbidden) -> None:
    """Tell the log that somebody known tried what they may not do; the database's troubles don't hide the refusal."""
    try:
        DENIALS.add(place.db, caller.actor, operation, permission, why)
    except DatabaseUnavailable as error:
        LOG.warning("a denial was not entered in the log: %s", error)
