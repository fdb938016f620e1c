"""Network address that a request comes from, and counts of failed sign-ins per address.

Behind a proxy every request comes from the proxy, which writes the client's address into a header. The header counts
only if the request comes from an address that the settings trust, and only the part that trusted proxies wrote: it is
read from the right, up to the first address that is not trusted.
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
"""Addresses whose failures are remembered; beyond that, those that failed longest ago are forgotten."""
HOST_BITS = 64
"""Bits of an IPv6 address that one customer can choose freely."""
_FOR = re.compile(r'(?:^|[;,])\s*for=("[^"]*"|[^;,\s]*)', re.IGNORECASE)


class Addresses:
    """Addresses of clients, found as the settings say."""

    def __init__(self, settings: ServeSettings) -> None:
        """`settings.trusted_proxies` are networks."""
        self._trusted = [ip_network(one, strict=False) for one in settings.trusted_proxies]
        self._header = settings.proxy_header

    def of(self, request: Request) -> str:
        """Key for counting failures: an IPv4 address, or the network of an IPv6 address; `?` if there is neither."""
        address = _address(request.client.host if request.client else "")
        for text in self._proxy_addresses(request):
            if address is None or not self._is_trusted(address):
                break
            before = _address(text)
            if before is None:  # no address, so nobody vouches for it
                break
            address = before
        if address is None:
            return request.client.host if request.client else "?"
        return str(ip_network((address, HOST_BITS), strict=False)) if isinstance(address, IPv6Address) else str(address)

    def _proxy_addresses(self, request: Request) -> Iterator[str]:
        """Addresses that proxies wrote, the nearest first."""
        lines = ", ".join(request.headers.getlist(self._header))
        parts = lines.split(",") if self._header == "x-forwarded-for" else [one[1] for one in _FOR.finditer(lines)]
        yield from reversed([part.strip().strip('"') for part in parts])

    def _is_trusted(self, address: Address) -> bool:
        return any(address.version == one.version and address in one for one in self._trusted)


def _address(text: str) -> Address | None:
    """Address in a text with or without port and brackets; None if it holds none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Failures:
    """Failed sign-ins and tokens by address, in bounded memory."""

    def __init__(self, rate: str, most: int = MOST) -> None:
        """`rate` as `20/minute`."""
        item = parse(rate)
        self._amount, self._seconds, self._most = item.amount, item.get_expiry(), most
        self._times: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def hit(self, address: str) -> bool:
        """Count a failure; true while the address stays within the rate."""
        moment = time.monotonic()
        with self._lock:
            times = self._times.setdefault(address, deque(maxlen=self._amount + 1))
            self._times.move_to_end(address)
            times.append(moment)
            if len(self._times) > self._most:
                self._times.popitem(last=False)
            return len(times) <= self._amount or moment - times[0] > self._seconds
