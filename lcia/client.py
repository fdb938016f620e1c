"""A server's operations, asked for over HTTP: LCIA_SERVER names it, LCIA_TOKEN says who asks."""

import ipaddress
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2

from components.errors import LciaError

SERVER, TOKEN = "LCIA_SERVER", "LCIA_TOKEN"
PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})
"""Variables that name a proxy, in capitals or not."""
SECONDS = 300.0
"""How long an answer may take: a promotion tells MLflow before it answers."""


class ServerUnreachable(LciaError):
    """The server does not answer, or is none of ours."""


class NotOnServer(LciaError):
    """Something that a server does not do for its clients."""


class Refused(LciaError):
    """The server refused; the message and the exit code are its own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def perform(operation: str, params: Mapping[str, Any], name: str | None, overrides: list[str] | None) -> Any:  # noqa: ANN401
    """Ask the server.

    Raises:
        Refused, ServerUnreachable, NotOnServer.
    """
    from lcia.operations.table import OPERATIONS

    need_plain(name, overrides)
    found = OPERATIONS[operation]
    content = found.check(params).model_dump(mode="json", exclude_none=True)
    if found.changes:
        return _answer("POST", operation, json=content)
    return _answer("GET", operation, params=content)


def submit(package: Path, name: str | None) -> Any:  # noqa: ANN401 - any JSON value
    """Send a package; a folder is packed first.

    Raises:
        Refused, ServerUnreachable, NotOnServer; PackageError: the package can't even be packed.
    """
    from components.tasks.containers import packed

    need_plain(name, None)
    content, kind = packed(package)
    return _answer("POST", "submit", content=content, headers={"content-type": kind})


def need_plain(name: str | None, overrides: list[str] | None) -> None:
    """Refuse what only a state of this machine can be told.

    Raises:
        NotOnServer: a name is asserted, or settings are overridden.
    """
    if name is not None:
        raise NotOnServer(f"--as {name!r} asserts a name, but a server knows who asks by {TOKEN}; leave --as out")
    if overrides:
        raise NotOnServer(f"--set {overrides[0]!r} changes settings, but a server's are its own; leave --set out")


def _answer(method: str, operation: str, *, headers: Mapping[str, str] | None = None, **sent: Any) -> Any:  # noqa: ANN401
    server = os.environ[SERVER].rstrip("/")
    token = os.environ.get(TOKEN, "")
    if not token:
        raise Refused(f"{SERVER} is set, but {TOKEN} is not; an admin makes a token with `lcia tokens create`", 1)
    heads = {"authorization": f"Bearer {token}", **(headers or {})}
    try:
        with _client(server) as client:
            got = client.request(method, f"{server}/v1/{operation}", headers=heads, **sent)
    except (httpx2.HTTPError, httpx2.InvalidURL, ImportError, ValueError) as error:
        raise ServerUnreachable(_unreachable(server, error)) from error
    try:
        value = got.json()
    except ValueError as error:
        raise ServerUnreachable(
            f"{SERVER}={server} answered {got.status_code} with something that is no JSON; is it lcia's service?"
        ) from error
    if got.is_success:
        return value
    if not isinstance(value, dict) or "message" not in value:
        raise ServerUnreachable(f"{SERVER}={server} answered {got.status_code}; is it lcia's service?")
    raise Refused(str(value["message"]), int(value.get("exit_code", 1)))


def _client(server: str) -> httpx2.Client:
    """A client that goes through the proxy of the environment, but never to this machine itself."""
    # A transport of its own reads certificates from the environment, and no proxies.
    transport = httpx2.HTTPTransport() if is_local(httpx2.URL(server).host) else None
    return httpx2.Client(transport=transport, timeout=SECONDS)


def is_local(host: str) -> bool:
    """True for this machine by its usual names and addresses."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _unreachable(server: str, error: Exception) -> str:
    proxies = ", ".join(sorted(name for name in os.environ if name.upper() in PROXIES))
    if isinstance(error, ImportError):
        return f"{proxies} names a SOCKS proxy, which needs `pip install socksio`; or name the server in NO_PROXY"
    if isinstance(error, ValueError | httpx2.InvalidURL):
        seen = f"{SERVER}={server!r}" + (f" or a proxy's address ({proxies})" if proxies else "")
        return f"{seen} can't be used ({error}); expected http(s)://HOST[:PORT][/PREFIX]"
    way = f" The way there is the proxy of {proxies}; NO_PROXY names what needs none." if proxies else ""
    return f"{SERVER}={server} does not answer ({type(error).__name__}); is `lcia serve` running there?{way}"


def export(path: Path) -> dict[str, Any]:
    """The server's log in a file with its signed head beside it, as `auditing.export` writes them.

    Raises:
        Refused: the asker is no auditor, or the log is shorter than its head says.
    """
    from components.audit import log

    head = perform("head", {}, None, None)

    def content() -> Iterator[bytes]:
        start = 0
        while start < head["entries"]:
            asked = {"start": start, "limit": min(1000, head["entries"] - start)}
            page = perform("lines", asked, None, None)["lines"]
            if not page:
                raise Refused(f"the server's log ends at entry {start}, its head says {head['entries']}", 1)
            yield from (f"{line}\n".encode() for line in page)
            start += len(page)

    log.write_export(path, content())
    log.write_head(path, head["signed"].encode())
    return {"file": str(path), "head_file": str(log.head_path(path)), "entries": head["entries"], "head": head["head"]}
