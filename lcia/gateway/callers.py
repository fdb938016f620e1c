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
"""One caller may take at most one part in so many of the places for answers under way."""


class CallerUnknown(LciaError):
    """The request shows no token that may ask."""


class TooBusy(LciaError):
    """Too many answers are under way, of one caller or of all."""


class TooManyAnswers(LciaError):
    """A request for more answers than one caller may ever have under way."""


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
    """Limits to how often callers ask, and to answers under way."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._limiter, self._rate = MovingWindowRateLimiter(MemoryStorage()), parse(settings.rate)
        self._most = settings.waiting
        self.running: Counter[str] = Counter()
        self.reading: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Answers under way."""
        return self.running.total()

    @contextmanager
    def body(self, asker: Asker) -> Iterator[None]:
        """Room for the body of a request while it comes, so that slow ones do not fill the memory.

        Raises:
            TooBusy.
        """
        most = self._most if asker.id == LOCAL.id else max(1, self._most // SHARE)
        if self.reading.total() >= self._most or self.reading[asker.id] >= most:
            raise TooBusy(f"{self.reading.total()} requests are being sent already (gateway.waiting); ask again later")
        with _count(self.reading, asker.id, 1):
            yield

    @contextmanager
    def place(self, asker: Asker, answers: int = 1) -> Iterator[None]:
        """Places for one request, one for each of its answers: each takes memory and time of its own.

        Raises:
            TooOften, TooBusy, TooManyAnswers.
        """
        share = self._most if asker.id == LOCAL.id else max(1, self._most // SHARE)
        if not self._limiter.hit(self._rate, asker.id):
            raise TooOften(f"too many requests; at most {self._rate} a token (gateway.rate), wait and ask again")
        if answers > share:
            raise TooManyAnswers(f"n is {answers}, expected at most {share}, as gateway.waiting is {self._most}")
        if self.total + answers > self._most:
            raise TooBusy(
                f"{self.total} answers are under way, at most {self._most} (gateway.waiting); ask again later"
            )
        if self.running[asker.id] + answers > share:
            raise TooBusy(
                f"{self.running[asker.id]} answers of this token are under way, at most {share}, one {SHARE}th of "
                "gateway.waiting; ask again later"
            )
        with _count(self.running, asker.id, answers):
            yield


@contextmanager
def _count(counts: Counter[str], name: str, number: int) -> Iterator[None]:
    """Count something while it lasts; names that are not in use are forgotten."""
    counts[name] += number
    try:
        yield
    finally:
        counts[name] -= number
        if not counts[name]:
            del counts[name]
