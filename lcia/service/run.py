"""Running the service: uvicorn, and what a server does besides answering."""

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import uvicorn

from components.audit.log import SYSTEM, Actor
from components.errors import LciaError
from components.identity import appointments, people, tokens
from components.promotion import notices, policy
from components.promotion.automatic import promote_waiting
from components.promotion.channels import channels
from components.promotion.notices import Channel
from components.settings import ServeSettings
from components.visible import visible
from lcia.rounds import Rounds
from lcia.service import patience
from lcia.service.app import make_app
from lcia.service.denials import DENIALS
from lcia.terminal import indented
from lcia.workplace import Workplace

LOG = logging.getLogger("lcia.service")
EVERY = 30.0
"""Seconds between two rounds of telling MLflow and people what they have not been told."""
FIRST_TOKEN = timedelta(days=30)


class PortTaken(LciaError):
    """The address to listen on is not to be had."""


def bootstrap(place: Workplace, name: str, actor: Actor) -> str | None:
    """Make the first admin and a token for 30 days; None where there is an admin already.

    Raises:
        PersonRefused, ActorUnnamed: the name can't be used.
    """
    with place.db.begin() as connection:
        if people.admins(connection):
            return None
        people.add(connection, name, actor=actor)
        appointments.appoint(connection, name, "admin", actor=actor)
        _, text = tokens.create(connection, name, "bootstrap", FIRST_TOKEN, actor=actor)
        return text


def serve(place: Workplace, environment: Mapping[str, str] = os.environ, say: Callable[[str], None] = print) -> None:
    """Answer until interrupted.

    Raises:
        ServeRefused, ChannelMissing: a secret that the settings ask for is not in the environment.
        PortTaken: something else listens there.
    """
    rounds = Rounds(place.db, place.home, "service", EVERY, ROUNDS)
    app = make_app(place, environment, rounds)
    ways = channels(place.assistant, place.settings.notify, environment)
    with place.db.begin() as connection:
        policy.install(connection, place.assistant, place.settings.policy, actor=SYSTEM)
    stop = threading.Event()
    log_plainly()
    plain = {"log_config": None, "log_level": "warning", "server_header": False, "proxy_headers": False}
    config = uvicorn.Config(app, **plain, **patience.options())
    listening = _listen(place.settings.serve)
    host, port = listening.getsockname()[:2]
    where = f"[{host}]" if ":" in host else host
    say(f"lcia serves {place.assistant}: console and API on http://{where}:{port} (Ctrl-C ends it)")
    thread = rounds.start(lambda: tell(place, ways, rounds), stop)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        stop.set()
        thread.join(timeout=60)
        DENIALS.close(everything=True)


def _listen(settings: ServeSettings) -> socket.socket:
    host = settings.host.removeprefix("[").removesuffix("]")
    try:
        family, *_, address = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)[0]
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, dualstack_ipv6=both)
    except OSError as error:
        raise PortTaken(
            f"serve.host {settings.host} and serve.port {settings.port} can't be listened on ({error.strerror}); is "
            "another `lcia serve` running? Choose another serve.port, or 0 for a free one"
        ) from error


ROUNDS = ("automatic", "mlflow", "served", "denials", "notices", "delivery")
"""What is done every `EVERY` seconds: promoting what policy leaves to no person, telling MLflow, looking at what it
serves, entering how often something was denied, finding and sending notices."""


class RoundUnfinished(LciaError):
    """Something of a round was left, in the words of the first."""


def tell(place: Workplace, ways: Mapping[str, Channel], rounds: Rounds) -> None:
    """One time of each round; what fails in one keeps no other from being done."""
    place = place.current()
    rounds.run("automatic", lambda: _promote(place))
    rounds.run("mlflow", lambda: _finished([one.message for one in place.tell_registry() if not (one.ok or one.waits)]))
    rounds.run("served", lambda: _finished(place.serve_again()))
    rounds.run("denials", DENIALS.close)
    rounds.run("notices", lambda: _find(place, ways))
    rounds.run("delivery", lambda: _finished([one.message for one in _send(place, ways) if not one.ok]))


def _promote(place: Workplace) -> None:
    for outcome in promote_waiting(place.db, place.promoter, place.store, place.assistant, place.settings.policy):
        LOG.info("%s", outcome.words)


def _finished(left: Sequence[str]) -> None:
    if left:
        raise RoundUnfinished(f"{left[0]}{f' (and {len(left) - 1} more)' if left[1:] else ''}")


def _find(place: Workplace, ways: Mapping[str, Channel]) -> None:
    settings, link = place.settings, place.settings.notify.link or place.settings.serve.address
    with place.db.begin() as connection:
        notices.collect(connection, place.assistant, list(ways), link)
        notices.warn_of_refusals(connection, place.assistant, list(ways), link)
        notices.warn_of_expiry(
            connection, place.assistant, settings.policy.approval, settings.notify.expiry_hours, list(ways), link
        )


def _send(place: Workplace, ways: Mapping[str, Channel]) -> list[notices.Sent]:
    sent = notices.deliver(place.db, place.assistant, ways)
    for one in sent:
        if not one.ok:
            LOG.warning("notice not delivered by %s: %s", one.channel, one.message)
    return sent


class _Lines(logging.Formatter):
    """A record in one line, its words visible; a traceback below it, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 - logging's
        return indented(f"  {super().formatException(ei)}")


def log_plainly() -> None:
    """Log to standard error, so that no word of a request or package forges a line."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("lcia", "uvicorn"):  # ZenML, once imported, has the root logger say next to nothing
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
