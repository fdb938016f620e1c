"""Border of the service: the path prefix of a reverse proxy, and HEAD requests.

Inside, every address begins at `/`. Some proxies remove the prefix and some don't; the border removes it if it is
there. Redirects and cookies get it back on their way to the browser; links in pages have it from `root`.
"""

from urllib.parse import quote, unquote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.errors import LciaError

REDIRECTS = ("location", "hx-redirect")
"""Response headers that hold an address of this service."""


class AddressRefused(LciaError):
    """`serve.address` is no address that a browser can open."""


def root_of(address: str) -> str:
    """Path prefix of the address that people use: empty, or such as `/lcia`, without a slash at its end.

    Raises:
        AddressRefused: it is no http(s) address, or has more than a path.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise AddressRefused(
            f"serve.address is {address!r}, expected http(s)://HOST[:PORT][/PREFIX], as people and programs open it"
        )
    return quote(unquote(parts.path)).rstrip("/")


class Border:
    """ASGI middleware outside all others but `Bodies`."""

    def __init__(self, app: ASGIApp, root: str) -> None:
        """`root` is the prefix, see `root_of`."""
        self.app, self.root, self._decoded = app, root, unquote(root)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the prefix off a request, and put it on the answer's addresses."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"
        over = False

        async def out(message: Message) -> None:
            nonlocal over
            if message["type"] == "http.response.start":
                self._with_root(message)
                await send(message)
                if head:
                    await send({"type": "http.response.body", "body": b""})
                    over = True
            elif not head:
                await send(message)

        async def into() -> Message:
            return {"type": "http.disconnect"} if over else await receive()

        await self.app(self._inside(scope), into, out)

    def _inside(self, scope: Scope) -> Scope:
        """Request as the routes know it; HEAD becomes a GET of which only the headers are sent."""
        path, changes = str(scope["path"]), {}
        if self.root and (path == self._decoded or path.startswith(f"{self._decoded}/")):
            raw = bytes(scope.get("raw_path") or quote(path).encode())
            changes = {"path": path[len(self._decoded) :] or "/", "raw_path": raw[len(self.root) :] or b"/"}
        if scope["method"] == "HEAD":
            changes["method"] = "GET"
        return {**scope, **changes}

    def _with_root(self, start: Message) -> None:
        headers = MutableHeaders(raw=list(start.get("headers", [])))
        for name in REDIRECTS:
            address = headers.get(name, "")
            if self.root and address.startswith("/") and not address.startswith("//"):
                headers[name] = self.root + address
        start["headers"] = headers.raw
