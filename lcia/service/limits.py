"""Limits of the service: requests of one caller, failed sign-ins of one address."""

from fastapi import Request
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from components.errors import LciaError
from components.settings import ServeSettings
from lcia.service.addresses import Addresses, Failures


class TooManyRequests(LciaError):
    """The caller sends more requests than the settings allow."""


class Rates:
    """Limits to the requests of one caller and to the failed sign-ins of one address; counted per process."""

    def __init__(self, settings: ServeSettings) -> None:
        """Start counting in memory; a restart forgets the counts."""
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._calls, self._failure_rate = parse(settings.rate), settings.failure_rate
        self._addresses, self._failures = Addresses(settings), Failures(settings.failure_rate)

    def call(self, person: str) -> None:
        """Count a call of a person.

        Raises:
            TooManyRequests: too many of this person.
        """
        self._hit(self._calls, f"person {person}")

    def count_failure(self, request: Request) -> None:
        """Count a failed sign-in of the address that a request comes from; a valid sign-in is never refused for it.

        Raises:
            TooManyRequests: the address failed too often.
        """
        if not self._failures.hit(self._addresses.of(request)):
            raise TooManyRequests(
                f"too many failed sign-ins; at most {self._failure_rate} an address, wait and try again"
            )

    def _hit(self, rate: RateLimitItem, key: str) -> None:
        if not self._limiter.hit(rate, key):
            raise TooManyRequests(f"too many requests; at most {rate} a caller, wait and try again")
