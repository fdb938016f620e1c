"""Callers of the gateway: owners of tokens with the permission `answer`, checked without database or service."""

import hmac
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from components.errors import LciaError
from components.identity.tokens import PREFIX
from components.settings import GatewaySettings
from components.storage.objects import digest_of

SHARE = 4
"""One caller may take at most one part in so many of the places for requests under way."""


class CallerUnknown(LciaError):
    """The request shows no token that may ask."""


class TooBusy(LciaError):
    """Too many requests are under way, of one caller or of all."""


class TooOften(LciaError):
    """A caller asks more often than the settings allow."""


@dataclass(frozen=True)
class Asker:
    """Caller of the gateway."""

    id: str
    """Id of the token; `local` where none is asked for."""
    tries: bool
    """True if versions besides the champion may be asked."""


LOCAL = Asker("local", tries=True)


def asker_of(authorization: str | None, tokens: Mapping[str, Mapping[str, Any]]) -> Asker:
    """Caller behind an `Authorization` header; `tokens` by id, as the service told them.

    Raises:
        CallerUnknown: no token, or none that is valid and may ask; the message never repeats it.
    """
    scheme, _, text = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise CallerUnknown("no token came, expected `Authorization: Bearer lcia_...`; an admin makes one that may ask")
    identity, _, secret = text.strip().removeprefix(PREFIX).partition("_")
    token = tokens.get(identity)
    check = digest_of(secret.encode())
    if not hmac.compare_digest(str(token["check"]) if token else "", check) or token is None:
        raise CallerUnknown(
            "the token is unknown or may not ask; an admin makes one for somebody with the role answer "
            "(`lcia tokens create`), and a gateway takes it within seconds"
        )
    if datetime.now(UTC) >= datetime.fromisoformat(token["expires_at"]):
        raise CallerUnknown(f"the token has expired at {token['expires_at'][:16]}; an admin makes a new one")
    return Asker(identity, "try" in token["permissions"])


class Admission:
    """Limits to how often callers ask, and to requests under way."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._limiter, self._rate = MovingWindowRateLimiter(MemoryStorage()), parse(settings.rate)
        self._most = settings.waiting
        self.running: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Requests under way."""
        return self.running.total()

    @contextmanager
    def place(self, asker: Asker) -> Iterator[None]:
        """A place for one request.

        Raises:
            TooOften, TooBusy.
        """
        if not self._limiter.hit(self._rate, asker.id):
            raise TooOften(f"too many requests; at most {self._rate} a token (gateway.rate), wait and ask again")
        if self.total >= self._most:
            raise TooBusy(f"{self._most} requests are under way already (gateway.waiting); wait and ask again")
        if asker.id != LOCAL.id and self.running[asker.id] >= max(1, self._most // SHARE):
            raise TooBusy(
                f"{self.running[asker.id]} requests of this token are under way already, one {SHARE}th of "
                "gateway.waiting; wait and ask again"
            )
        self.running[asker.id] += 1
        try:
            yield
        finally:
            self.running[asker.id] -= 1
            if not self.running[asker.id]:
                del self.running[asker.id]
