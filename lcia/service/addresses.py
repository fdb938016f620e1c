"""The network address that a request comes from, and how often addresses failed to say who they are.

Behind a proxy every request comes from the proxy. It writes into a header whom it had it from; that header counts only
where the request comes from an address that the settings trust, and in it only what trusted ones wrote: it is read
from the right, up to the first address that is not trusted.
"""

import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from fastapi import Request
from limits import parse

from components.settings import ServeSettings

Address = IPv4Address | IPv6Address
MOST = 10_000
"""Addresses whose failures are remembered; beyond, those that failed longest ago are forgotten."""
HOST_BITS = 64
"""Bits of an IPv6 address that one customer chooses freely."""
_FOR = re.compile(r'(?:^|[;,])\s*for=("[^"]*"|[^;,\s]*)', re.IGNORECASE)


class Addresses:
    """Whom requests come from, as the settings say."""

    def __init__(self, settings: ServeSettings) -> None:
        """`settings.trusted_proxies` are networks."""
        self._trusted = [ip_network(one, strict=False) for one in settings.trusted_proxies]
        self._header = settings.proxy_header

    def of(self, request: Request) -> str:
        """What failures are counted by: an IPv4 address, or the network of an IPv6 one; `?` where there is neither."""
        found = _address(request.client.host if request.client else "")
        for told in self._told(request):
            if found is None or not self._is_trusted(found):
                break
            before = _address(told)
            if before is None:  # whatever stands there, it is not an address that was vouched for
                break
            found = before
        if found is None:
            return request.client.host if request.client else "?"
        return str(ip_network((found, HOST_BITS), strict=False)) if isinstance(found, IPv6Address) else str(found)

    def _told(self, request: Request) -> Iterator[str]:
        """Addresses that proxies wrote, the nearest first."""
        lines = ", ".join(request.headers.getlist(self._header))
        parts = lines.split(",") if self._header == "x-forwarded-for" else [one[1] for one in _FOR.finditer(lines)]
        yield from reversed([part.strip().strip('"') for part in parts])

    def _is_trusted(self, address: Address) -> bool:
        return any(address.version == one.version and address in one for one in self._trusted)


def _address(text: str) -> Address | None:
    """An address with or without port and brackets; None if it is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


class Failures:
    """Failed sign-ins and tokens by address, in bounded memory."""

    def __init__(self, rate: str, most: int = MOST) -> None:
        """`rate` as `20/minute`."""
        item = parse(rate)
        self._amount, self._seconds, self._most = item.amount, item.get_expiry(), most
        self._known: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def hit(self, address: str) -> bool:
        """Count a failure; true while the address stays within the rate."""
        moment = time.monotonic()
        with self._lock:
            times = self._known.setdefault(address, deque(maxlen=self._amount + 1))
            self._known.move_to_end(address)
            times.append(moment)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
            return len(times) <= self._amount or moment - times[0] > self._seconds
