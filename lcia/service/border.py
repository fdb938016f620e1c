"""The service's border: a path prefix that a reverse proxy puts in front, HEAD requests, and what nobody foresaw.

Inside, every address begins at `/`. Proxies differ in whether they take the prefix away; both ways come out the same
here, and what goes to the browser (redirects, cookies) gets the prefix back. Links in pages have it from `root`.
"""

from urllib.parse import quote, unquote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.errors import LciaError

REDIRECTS = ("location", "hx-redirect")
"""Headers with an address of this service."""


class AddressRefused(LciaError):
    """`serve.address` is no address that people could open."""


def root_of(address: str) -> str:
    """The path prefix of the address that people use: empty, or `/lcia` without a slash at its end.

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
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, root: str) -> None:
        """`root` is the prefix, see `root_of`."""
        self.app, self.root, self._decoded = app, root, unquote(root)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in without the prefix, and its answer out with it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"
        ended = False

        async def out(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                self._with_root(message)
                await send(message)
                if head:
                    await send({"type": "http.response.body", "body": b""})
                    ended = True
            elif not head:
                await send(message)

        async def into() -> Message:
            return {"type": "http.disconnect"} if ended else await receive()

        await self.app(self._inside(scope), into, out)

    def _inside(self, scope: Scope) -> Scope:
        """The request as the routes know it; HEAD is a GET of which only the headers are sent."""
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
