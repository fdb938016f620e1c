"""Who calls: a token's owner or somebody who signed in; what they may do, and how often."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from components.audit.log import Actor
from components.errors import LciaError
from components.identity import people, tokens
from components.identity.access import Forbidden, Grant, Permission, need
from components.identity.appointments import POWER
from components.identity.people import Person
from components.identity.tokens import Token, TokenRefused
from components.names import same_person
from components.settings import ServeSettings
from components.storage.database import DatabaseUnavailable
from components.storage.objects import Json
from lcia.instance import Instance
from lcia.operations.params import Params
from lcia.operations.table import Operation
from lcia.service.addresses import Addresses, Failures
from lcia.service.denials import DENIALS

LOG = logging.getLogger(__name__)
PERSON, TOKEN, HOW = "person", "token", "how"
"""Keys of the session: who signed in, by which token where it was one, and by what otherwise."""


class NotSignedIn(LciaError):
    """Nobody is known to be calling."""


class TooManyRequests(LciaError):
    """Slower, please."""


@dataclass(frozen=True)
class Caller:
    """Somebody known."""

    person: Person
    how: str
    """By which token or which sign-in the person is known, as the log says it."""
    only: Sequence[Permission] = ()
    """What the token is limited to; empty for all the person may do."""
    assured: bool = True
    """False for a token that somebody else has held: its maker."""
    foreign: bool = False
    """The token was made by another person, so it decides and administers nothing."""

    @classmethod
    def by_token(cls, person: Person, token: Token, prefix: str = "") -> "Caller":
        """Somebody who shows a token; `prefix` is where."""
        assured = token.assured is not False
        return cls(person, f"{prefix}{token.words}", token.permissions, assured, token.foreign)

    @property
    def actor(self) -> Actor:
        """As the log names them."""
        return Actor(self.person.name, assured=self.assured, how=self.how)

    @property
    def grants(self) -> tuple[Grant, ...]:
        """Roles of the person that count here; none once shut out."""
        if self.person.disabled_at:
            return ()
        return tuple(one for one in self.person.grants if not (self.foreign and one.role in POWER))

    def need(self, permission: Permission, sites: Collection[str] | str | None, *, everywhere: bool = False) -> None:
        """Refuse what the person, or the token, does not give; `sites` and `everywhere` as in `access.need`.

        Raises:
            Forbidden: says what would do.
        """
        if self.only and permission not in self.only:
            only = ", ".join(self.only)
            raise Forbidden(f"this token of {self.person.name} is limited to {only}, not `{permission}`")
        try:
            need(self.person.name, self.grants, permission, sites, everywhere=everywhere)
        except Forbidden as why:
            if self.foreign:
                why.add_note(f"Roles that decide or administer do not count with {self.how}.")
            raise

    def need_own(self) -> None:
        """Refuse a token that may not speak for its person about tokens.

        Raises:
            Forbidden: it is limited, or somebody else made it.
        """
        self.need("look", None)
        if self.only or self.foreign:
            why = f"limited to {', '.join(self.only)}" if self.only else "made by somebody else"
            raise Forbidden(
                f"this token of {self.person.name} is {why}, so it makes and ends no other; sign in yourself"
            )


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


def caller_of(request: Request, instance: Instance, rates: Rates, *, counted: bool = True) -> Caller:
    """Who is calling; `counted` unless the call is part of one that was counted.

    Raises:
        NotSignedIn, TokenRefused, TooManyRequests.
    """
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    if kind:
        try:
            person, token = tokens.check(instance.db, text.strip() if kind.lower() == "bearer" else "")
        except TokenRefused:
            rates.failed(request)
            raise
        found = Caller.by_token(person, token)
    else:
        name = request.scope.get("session", {}).get(PERSON)
        if not name:
            way = "sign in at /login, or " if instance.settings.serve.issuer else ""
            raise NotSignedIn(f"nobody is known to be calling; {way}send `Authorization: Bearer lcia_...`")
        found = _signed_in(instance, name, request.scope["session"])
    if counted:
        rates.call(found)
    return found


def _signed_in(instance: Instance, name: str, session: Mapping[str, Any]) -> Caller:
    """Who a session speaks of; one that began with a token ends with it."""
    if session.get(TOKEN) is not None:
        try:
            person, token = tokens.standing(instance.db, session[TOKEN])
        except LciaError as error:
            raise NotSignedIn(f"the sign-in counts no more: {error}") from error
        return Caller.by_token(person, token, "console, ")
    with instance.db.read() as connection:
        found = Caller(people.get(connection, name), str(session.get(HOW, "console")))
    if found.person.disabled_at is not None:
        raise NotSignedIn(f"{name} was shut out; an admin knows why")
    return found


def perform(instance: Instance, operation: Operation, caller: Caller, params: Params) -> Json:
    """Do what the caller may do, under the policy in force now; what they may not is told the log, see `denials`.

    Raises:
        Forbidden: they may not; whatever else the operation raises.
    """
    instance = instance.current()
    try:
        about = operation.about(instance, params) if operation.about is not None else None
        if about is not None and same_person(about, caller.person.name):
            caller.need_own()
        else:
            caller.need(operation.permission, None)
            caller.need(operation.permission, operation.sites(instance, params), everywhere=operation.everywhere)
        return operation.run(instance, caller.actor, params)
    except Forbidden as why:
        log_denial(instance, caller, operation.name, operation.permission, why)
        raise


def log_denial(instance: Instance, caller: Caller, operation: str, permission: Permission, why: Forbidden) -> None:
    """Tell the log that somebody known tried what they may not do; the database's troubles don't hide the refusal."""
    try:
        DENIALS.add(instance.db, caller.actor, operation, permission, why)
    except DatabaseUnavailable as error:
        LOG.warning("a denial was not entered in the log: %s", error)
