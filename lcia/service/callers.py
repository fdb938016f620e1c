"""Callers: owners of tokens and people who signed in; what they may do, and how often."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from components.audit.log import Actor
from components.errors import LciaError
from components.identity import people, tokens
from components.identity.access import Forbidden, Grant, Permission, need
from components.identity.appointments import grants_with
from components.identity.people import Person
from components.identity.tokens import Token, TokenRefused
from components.names import same_person
from components.storage.database import DatabaseUnavailable
from components.storage.objects import Json
from lcia.instance import Instance
from lcia.operations.params import Params
from lcia.operations.table import Operation
from lcia.service.denials import DENIALS
from lcia.service.limits import Rates

LOG = logging.getLogger(__name__)
PERSON, TOKEN, HOW = "person", "token", "how"
"""Keys of the session: who signed in, by which token if any, and in which other way."""


class NotSignedIn(LciaError):
    """The caller did not sign in."""


@dataclass(frozen=True)
class Caller:
    """Person or program that calls, known by a token or a sign-in."""

    person: Person
    how: str
    """Token or sign-in by which the person is known, as the log writes it."""
    only: Sequence[Permission] = ()
    """Permissions that the token is limited to; empty for all of the person's."""
    assured: bool = True
    """False for a token that its maker, somebody else, has held too."""
    foreign: bool = False
    """True for a token that another person made: it decides and administers nothing."""

    @classmethod
    def by_token(cls, person: Person, token: Token, prefix: str = "") -> "Caller":
        """Caller who shows a token; `prefix` says where, for the log."""
        assured = token.assured is not False
        return cls(person, f"{prefix}{token.words}", token.permissions, assured, token.foreign)

    @property
    def actor(self) -> Actor:
        """Caller as the log names them."""
        return Actor(self.person.name, assured=self.assured, how=self.how)

    @property
    def grants(self) -> tuple[Grant, ...]:
        """Roles of the person that count here; none after they were shut out."""
        return grants_with(self.person, foreign=self.foreign)

    def need(self, permission: Permission, sites: Collection[str] | str | None, *, everywhere: bool = False) -> None:
        """Refuse what the person or the token has no permission for; `sites` and `everywhere` as in `access.need`.

        Raises:
            Forbidden: names the roles that suffice.
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
        """Refuse a token with which its person may not make or revoke tokens.

        Raises:
            Forbidden: it is limited, or somebody else made it.
        """
        self.need("look", None)
        if self.only or self.foreign:
            why = f"limited to {', '.join(self.only)}" if self.only else "made by somebody else"
            raise Forbidden(
                f"this token of {self.person.name} is {why}, so it makes and ends no other; sign in yourself"
            )


def caller_of(request: Request, instance: Instance, rates: Rates, *, counted: bool = True) -> Caller:
    """Caller of a request. `counted` is False if the request is part of one that was counted already.

    Raises:
        NotSignedIn, TokenRefused, TooManyRequests.
    """
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    if kind:
        try:
            person, token = tokens.check(instance.db, text.strip() if kind.lower() == "bearer" else "")
        except TokenRefused:
            rates.count_failure(request)
            raise
        caller = Caller.by_token(person, token)
    else:
        name = request.scope.get("session", {}).get(PERSON)
        if not name:
            way = "sign in at /login, or " if instance.settings.serve.issuer else ""
            raise NotSignedIn(f"nobody is known to be calling; {way}send `Authorization: Bearer lcia_...`")
        caller = _signed_in(instance, name, request.scope["session"])
    if counted:
        rates.call(caller.person.name)
    return caller


def _signed_in(instance: Instance, name: str, session: Mapping[str, Any]) -> Caller:
    """Caller of a session; a session that began with a token ends with the token."""
    if session.get(TOKEN) is not None:
        try:
            person, token = tokens.standing(instance.db, session[TOKEN])
        except LciaError as error:
            raise NotSignedIn(f"the sign-in no longer counts: {error}") from error
        return Caller.by_token(person, token, "console, ")
    with instance.db.read() as connection:
        caller = Caller(people.get(connection, name), str(session.get(HOW, "console")))
    if caller.person.disabled_at is not None:
        raise NotSignedIn(f"{name} was shut out; an admin knows why")
    return caller


def perform(instance: Instance, operation: Operation, caller: Caller, params: Params) -> Json:
    """Do an operation if the caller may, under the policy in force now; a denial is entered in the log.

    Raises:
        Forbidden: they may not; and any error of the operation.
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
    """Enter in the log that a caller tried what they may not do. If the database fails, the refusal still stands."""
    try:
        DENIALS.add(instance.db, caller.actor, operation, permission, why)
    except DatabaseUnavailable as error:
        LOG.warning("a denial was not entered in the log: %s", error)
