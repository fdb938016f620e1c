"""API tokens: kept as hashes, limited to some permissions, expiring, revocable.

A token is `lcia_<id>_<secret>` with 256 random bits of secret, so a plain sha256 is as good as a slow hash: nobody can
guess it. The secret is shown once.
"""

import hmac
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args

from sqlalchemy import Connection, RowMapping, insert, select, update

from components.audit.log import Actor, append
from components.audit.state import token_check
from components.errors import LciaError
from components.identity import people
from components.identity.access import Forbidden, Permission, permits
from components.identity.appointments import grants_with, has_power
from components.identity.people import OPERATOR, Person
from components.names import fold, same_person
from components.storage.database import Database, is_ahead, now
from components.storage.objects import digest_of
from components.storage.tables import tokens

PREFIX = "lcia_"
LONGEST = timedelta(days=366)
USED_EVERY = timedelta(minutes=1)
"""Precision of `last_used_at`: a write per request would make readers wait for each other."""


class TokenRefused(LciaError):
    """The token is malformed, unknown, expired or revoked, or its owner is shut out."""


class TokenUnknown(LciaError):
    """There is no token with this id."""


@dataclass(frozen=True)
class Token:
    """A token on record, without its secret."""

    id: str
    person: str
    label: str
    permissions: tuple[Permission, ...]
    """Permissions that limit it; empty means all that its person has."""
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None
    made_by: str | None = None
    """Person who made it; None if an earlier release did not record that."""
    how: str | None = None
    """`Actor.how` of that person."""
    assured: bool | None = None
    """True if its owner made it while signed in, so that nobody else ever held it; None as above."""

    @property
    def foreign(self) -> bool:
        """True if somebody other than its owner made it while signed in: such a token can't decide.

        A token that an operator made on the server's machine acts for its owner, but proves nothing about who uses it.
        """
        if self.made_by is None or self.how in OPERATOR:
            return False
        return not same_person(self.made_by, self.person)

    @property
    def words(self) -> str:
        """`Actor.how` of its user, for the log."""
        other = self.made_by is not None and not same_person(self.made_by, self.person)
        return f"token {self.id}, made by {self.made_by}" if other else f"token {self.id}"


@dataclass(frozen=True)
class TokenCheck:
    """A token that counts, with the hash that its secret is checked by where the service is not asked."""

    token: Token
    check: str
    """sha256 of the secret."""
    permissions: tuple[Permission, ...]
    """Permissions that were asked about and that it gives."""


def create(
    connection: Connection,
    person: str,
    label: str,
    lifetime: timedelta,
    permissions: Iterable[str] = (),
    *,
    actor: Actor,
) -> tuple[Token, str]:
    """Make a token; returns it with its text, which can't be shown again.

    Raises:
        PersonUnknown; TokenRefused: an unknown permission, no label, or a lifetime beyond a year.
        Forbidden: its owner decides or administers, and somebody else who signed in makes it.
    """
    owner = people.get(connection, person)
    own = same_person(owner.name, actor.name)
    if not own and actor.how not in OPERATOR and has_power(owner):
        raise Forbidden(
            f"{owner.name} decides or administers, so nobody else may hold a token of theirs: {owner.name} signs in "
            "and makes it (`lcia tokens create` with an own token, or the page People), or whoever runs the server "
            "makes the first one on its machine"
        )
    limits = tuple(dict.fromkeys(permissions))
    unknown = sorted(set(limits) - set(get_args(Permission)))
    if unknown:
        raise TokenRefused(f"{unknown[0]!r} is no permission; they are {', '.join(get_args(Permission))}")
    if not timedelta(0) < lifetime <= LONGEST:
        raise TokenRefused(f"a token lives {lifetime.days} days, expected more than 0 and at most {LONGEST.days}")
    if not label.strip():
        raise TokenRefused("a token needs a label that says what it is for; give one with --label")
    identity, secret, moment = secrets.token_hex(6), secrets.token_urlsafe(32), now(connection)
    expires = moment + lifetime
    digest = digest_of(secret.encode())
    values = {
        "id": identity,
        "secret": digest,
        "person": owner.name,
        "label": label,
        "permissions": list(limits),
        "created_at": moment,
        "expires_at": expires,
        "made_by": actor.name,
        "how": actor.how,
        "assured": own and actor.assured and actor.how not in OPERATOR,
    }
    connection.execute(insert(tokens).values(**values))
    details = {"id": identity, "label": label, "permissions": list(limits), "assured": values["assured"]}
    details["check"] = token_check(digest)
    append(connection, "token.created", actor, owner.name, {**details, "expires_at": expires.isoformat()})
    return get(connection, identity), f"{PREFIX}{identity}_{secret}"


def check(db: Database, text: str) -> tuple[Person, Token]:
    """Check the text of a token; returns its owner and the token.

    Raises:
        TokenRefused: it is not valid; the message never repeats it.
    """
    identity, _, secret = text.removeprefix(PREFIX).partition("_")
    if not text.startswith(PREFIX) or not secret:
        raise TokenRefused("this is no token; one looks like lcia_<id>_<secret>")
    with db.read() as connection:
        row = connection.execute(select(tokens).where(tokens.c.id == identity)).mappings().one_or_none()
        moment = now(connection)
        digest = row["secret"] if row is not None else ""
        if not hmac.compare_digest(digest, digest_of(secret.encode())) or row is None:
            raise TokenRefused("the token is unknown; an admin makes one with `lcia tokens create`")
    person, token = standing(db, identity)
    if token.last_used_at is None or moment - token.last_used_at > USED_EVERY:
        with db.begin() as connection:
            connection.execute(update(tokens).where(tokens.c.id == token.id).values(last_used_at=moment))
    return person, token


def standing(db: Database, identity: str) -> tuple[Person, Token]:
    """The owner of a token that is still valid, and the token, for a session that showed its text before.

    Raises:
        TokenRefused: it was revoked, has expired, or its owner was shut out.
        TokenUnknown: there is none.
    """
    with db.read() as connection:
        token, moment = get(connection, identity), now(connection)
        person = people.get(connection, token.person)
    reason = _refusal(person, token, moment)
    if reason is not None:
        raise TokenRefused(reason)
    return person, token


def _refusal(person: Person, token: Token, moment: datetime) -> str | None:
    """Reason why a token does not count, as a sentence; None if it does."""
    name = f"token {token.id} ({token.label})"
    if token.revoked_at is not None or moment >= token.expires_at:
        reason = "was revoked" if token.revoked_at is not None else f"expired at {token.expires_at:%Y-%m-%d %H:%M} UTC"
        return f"{name} {reason}; an admin makes a new one"
    if is_ahead(token.created_at, moment):
        return (
            f"{name} was made at {token.created_at:%Y-%m-%d %H:%M} UTC, which is still to come: set the database's "
            "clock right, or an admin makes a new one"
        )
    return f"the owner of token {token.id} was shut out" if person.disabled_at is not None else None


def checks(connection: Connection, permissions: Collection[Permission]) -> list[TokenCheck]:
    """Tokens that count and give at least one of the permissions, by id; a token's limits and maker count as ever."""
    moment = now(connection)
    query = select(tokens).where(tokens.c.revoked_at.is_(None), tokens.c.expires_at > moment).order_by(tokens.c.id)
    rows = connection.execute(query).mappings().all()
    owners = people.among(connection, {row["person"] for row in rows})
    result = []
    for row in rows:
        token, owner = _token(row), owners.get(fold(row["person"]))
        if owner is None:  # recorded before names were folded by width: nobody signs in as them any more
            continue
        grants = grants_with(owner, foreign=token.foreign)
        gives = tuple(
            one for one in permissions if permits(grants, one) and (not token.permissions or one in token.permissions)
        )
        if gives and _refusal(owner, token, moment) is None:
            result.append(TokenCheck(token, row["secret"], gives))
    return result


def revoke(connection: Connection, identity: str, *, actor: Actor, reason: str) -> Token:
    """End a token; ending it twice changes nothing.

    Raises:
        TokenUnknown: there is none.
    """
    token = get(connection, identity)
    if token.revoked_at is None:
        connection.execute(update(tokens).where(tokens.c.id == identity).values(revoked_at=now(connection)))
        append(connection, "token.revoked", actor, token.person, {"id": identity, "reason": reason})
    return get(connection, identity)


def get(connection: Connection, identity: str) -> Token:
    """A token by id.

    Raises:
        TokenUnknown: there is none.
    """
    row = connection.execute(select(tokens).where(tokens.c.id == identity)).mappings().one_or_none()
    if row is None:
        raise TokenUnknown(f"no token has the id {identity!r}; `lcia tokens` lists them")
    return _token(row)


def every(connection: Connection) -> list[Token]:
    """Every token, newest first."""
    return [_token(row) for row in connection.execute(select(tokens).order_by(tokens.c.created_at.desc())).mappings()]


def makers(connection: Connection, names: Iterable[str]) -> set[str]:
    """People who made tokens for the people in `names`, and so may have acted under these names; owners excluded."""
    keys = {fold(name) for name in names}
    rows = connection.execute(select(tokens.c.person, tokens.c.made_by).where(tokens.c.made_by.is_not(None)))
    return {made_by for person, made_by in rows if fold(person) in keys and not same_person(person, made_by)}


def _token(row: RowMapping) -> Token:
    values = {name: row[name] for name in row if name not in ("secret", "permissions")}
    return Token(**values, permissions=tuple(row["permissions"]))
