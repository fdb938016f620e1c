"""Who calls: a token's owner or somebody who signed in; what they may do, and how often."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from components.audit.log import Actor, append
from components.errors import LciaError
from components.identity import people, tokens
from components.identity.access import Forbidden, Grant, Permission, need
from components.identity.people import Person
from components.identity.tokens import TokenRefused
from components.settings import ServeSettings
from components.storage.objects import Json
from lcia.operations import Operation
from lcia.service.addresses import Addresses, Failures
from lcia.shapes import Params
from lcia.workplace import Workplace

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
        self._calls, self._failure_rate = parse(settings.rate), settings.failure_rate
        self._addresses, self._failures = Addresses(settings), Failures(settings.failure_rate)

    def call(self, caller: Caller) -> None:
        """Count a call.

        Raises:
            TooManyRequests: too many of this caller.
        """
        self._hit(self._calls, f"person {caller.person.name}")

    def failed(self, request: Request) -> None:
        """Count a failure of the address that a request comes from; who says who they are is never asked about it.

        Raises:
            TooManyRequests: it fails too often, and hears nothing else any more.
        """
        if not self._failures.hit(self._addresses.of(request)):
            raise TooManyRequests(
                f"too many failed sign-ins; at most {self._failure_rate} an address, wait and try again"
            )

    def _hit(self, rate: RateLimitItem, key: str) -> None:
        if not self._limiter.hit(rate, key):
            raise TooManyRequests(f"too many requests; at most {rate} a caller, wait and try again")


def caller_of(request: Request, place: Workplace, rates: Rates, *, counted: bool = True) -> Caller:
    """Who is calling; `counted` unless the call is part of one that was counted.

    Raises:
        NotSignedIn, TokenRefused, TooManyRequests.
    """
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    if kind:
        try:
            person, token = tokens.check(place.db, text.strip() if kind.lower() == "bearer" else "")
        except TokenRefused:
            rates.failed(request)
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
    """Do what the caller may do, under the policy in force now; what they may not is entered in the log.

    Raises:
        Forbidden: they may not; whatever else the operation raises.
    """
    place = place.current()
    try:
        caller.need(operation.permission, None)
        caller.need(operation.permission, operation.site(place, params))
    except Forbidden as why:
        log_denial(place, caller, operation.name, why)
        raise
    return operation.run(place, caller.actor, params)


def log_denial(place: Workplace, caller: Caller, operation: str, why: Forbidden) -> None:
    """Enter a denial in the log: somebody known tried what they may not do."""
    with place.db.begin() as connection:
        append(connection, "access.denied", caller.actor, operation, {"reason": str(why)})
