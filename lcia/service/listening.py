"""Listening of the processes that answer requests: the socket, and a log whose lines no request can forge."""

import logging
import socket
from typing import Any

from components.errors import LciaError
from components.visible import indent, visible


class PortTaken(LciaError):
    """The address to listen on is taken or can't be used."""


def listening_at(host: str, port: int, section: str) -> tuple[socket.socket, str]:
    """Socket that listens, and its address as http://...; `section` names the settings `host` and `port` are from.

    Raises:
        PortTaken: something else listens there.
    """
    plain = host.removeprefix("[").removesuffix("]")
    try:
        family, *_, address = socket.getaddrinfo(plain, port, type=socket.SOCK_STREAM)[0]
        both = plain == "::" and socket.has_dualstack_ipv6()
        listening = socket.create_server(address, family=family, dualstack_ipv6=both)
    except OSError as error:
        raise PortTaken(
            f"{section}.host {host} and {section}.port {port} can't be listened on ({error.strerror}); is another "
            f"`lcia {section}` running? Choose another {section}.port, or 0 for a free one"
        ) from error
    name, number = listening.getsockname()[:2]
    return listening, f"http://{f'[{name}]' if ':' in name else name}:{number}"


class _Lines(logging.Formatter):
    """Log record in one line with hidden characters spelt out; a traceback below it, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 - logging's
        return indent(f"  {super().formatException(ei)}")


def log_plainly() -> None:
    """Log to standard error, so that no text of a request or package can forge a line."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("lcia", "uvicorn"):  # ZenML, once imported, silences the root logger
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for every request that we send
    logging.getLogger("lcia.gateway").setLevel(logging.INFO)  # a switch of versions is worth a line
