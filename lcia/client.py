"""Client of a server's operations over HTTP: LCIA_SERVER names the server, LCIA_TOKEN identifies the caller."""

import ipaddress
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2

from components.errors import LciaError

SERVER, TOKEN = "LCIA_SERVER", "LCIA_TOKEN"
PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})
"""Variables that name a proxy, in upper or lower case."""
SECONDS = 300.0
"""Limit to the wait for an answer; a promotion updates MLflow before it answers."""


class ServerUnreachable(LciaError):
    """The server does not answer, or is no lcia service."""


class NotOnServer(LciaError):
    """A request that a server does not serve to its clients."""


class Refused(LciaError):
    """The server refused; the message and the exit code are its own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def perform(
    operation: str,
    params: Mapping[str, Any],
    name: str | None,
    overrides: list[str] | None,
    seconds: float = SECONDS,
) -> Any:  # noqa: ANN401 - any JSON value
    """Do an operation on the server; its JSON answer, which may take so many seconds.

    Raises:
        Refused, ServerUnreachable, NotOnServer.
    """
    from lcia.operations.table import OPERATIONS

    need_plain(name, overrides)
    action = OPERATIONS[operation]
    content = action.check(params).model_dump(mode="json", exclude_none=True)
    if action.method == "POST":
        return _answer("POST", operation, seconds, json=content)
    return _answer("GET", operation, seconds, params=content)


def part(version: str, digest: str) -> bytes:
    """Bytes of one part of a version, as the server sent them.

    Raises:
        Refused, ServerUnreachable.
    """
    return _send("GET", "part", params={"version": version, "digest": digest}).content


def submit(package: Path, name: str | None) -> Any:  # noqa: ANN401 - any JSON value
    """Send a package; a folder is packed first.

    Raises:
        Refused, ServerUnreachable, NotOnServer; PackageError: the package can't even be packed.
    """
    from components.tasks.containers import pack

    need_plain(name, None)
    content, kind = pack(package)
    return _answer("POST", "submit", content=content, headers={"content-type": kind})


def need_plain(name: str | None, overrides: list[str] | None) -> None:
    """Refuse options that only work on a state of this machine.

    Raises:
        NotOnServer: a name is asserted, or settings are overridden.
    """
    if name is not None:
        raise NotOnServer(f"--as {name!r} asserts a name, but a server knows who asks by {TOKEN}; leave --as out")
    if overrides:
        raise NotOnServer(f"--set {overrides[0]!r} changes settings, but a server's are its own; leave --set out")


def _answer(
    method: str,
    operation: str,
    seconds: float = SECONDS,
    *,
    headers: Mapping[str, str] | None = None,
    **content: Any,  # noqa: ANN401 - passed on
) -> Any:  # noqa: ANN401 - any JSON value
    return _json(_send(method, operation, seconds, headers=headers, **content))


def _send(
    method: str,
    operation: str,
    seconds: float = SECONDS,
    *,
    headers: Mapping[str, str] | None = None,
    **content: Any,  # noqa: ANN401 - passed on
) -> httpx2.Response:
    """A reply that is no refusal."""
    server = os.environ[SERVER].rstrip("/")
    token = os.environ.get(TOKEN, "")
    if not token:
        raise Refused(f"{SERVER} is set, but {TOKEN} is not; an admin makes a token with `lcia tokens create`", 1)
    heads = {"authorization": f"Bearer {token}", **(headers or {})}
    try:
        with _client(server, seconds) as client:
            response = client.request(method, f"{server}/v1/{operation}", headers=heads, **content)
    except (httpx2.HTTPError, httpx2.InvalidURL, ImportError, ValueError) as error:
        raise ServerUnreachable(_unreachable(server, error)) from error
    if response.is_success:
        return response
    value = _json(response)
    if not isinstance(value, dict) or "message" not in value:
        raise ServerUnreachable(f"{SERVER}={server} answered {response.status_code}; is it lcia's service?")
    raise Refused(str(value["message"]), int(value.get("exit_code", 1)))


def _json(response: httpx2.Response) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return response.json()
    except ValueError as error:
        raise ServerUnreachable(
            f"{SERVER}={os.environ[SERVER]} answered {response.status_code} with something that is no JSON; is it "
            "lcia's service?"
        ) from error


def _client(server: str, seconds: float) -> httpx2.Client:
    """HTTP client that uses the proxy of the environment, except for this machine itself."""
    # A transport of its own reads certificates from the environment, and no proxies.
    transport = httpx2.HTTPTransport() if is_local(httpx2.URL(server).host) else None
    return httpx2.Client(transport=transport, timeout=seconds)


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
        setting = f"{SERVER}={server!r}" + (f" or a proxy's address ({proxies})" if proxies else "")
        return f"{setting} can't be used ({error}); expected http(s)://HOST[:PORT][/PREFIX]"
    way = f" The request goes through the proxy of {proxies}; NO_PROXY names hosts that need none." if proxies else ""
    return f"{SERVER}={server} does not answer ({type(error).__name__}); is `lcia serve` running there?{way}"


def export(path: Path) -> dict[str, Any]:
    """Write the server's log to a file, with its signed head beside it, as `operations.audit.export` does.

    Raises:
        Refused: the caller is no auditor, or the log is shorter than its head says.
    """
    from components.audit import log

    head = perform("head", {}, None, None)

    def content() -> Iterator[bytes]:
        start = 0
        while start < head["entries"]:
            params = {"start": start, "limit": min(1000, head["entries"] - start)}
            page = perform("lines", params, None, None)["lines"]
            if not page:
                raise Refused(f"the server's log ends at entry {start}, its head says {head['entries']}", 1)
            yield from (f"{line}\n".encode() for line in page)
            start += len(page)

    log.write_export(path, content())
    log.write_head(path, head["signed"].encode())
    return {"file": str(path), "head_file": str(log.head_path(path)), "entries": head["entries"], "head": head["head"]}
