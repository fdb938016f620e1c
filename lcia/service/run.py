"""Running the service: uvicorn, and what a server does besides answering."""

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
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
from lcia import failures
from lcia.service.app import make_app
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
    app = make_app(place, environment)
    ways = channels(place.assistant, place.settings.notify, environment)
    with place.db.begin() as connection:
        policy.install(connection, place.assistant, place.settings.policy, actor=SYSTEM)
    stop = threading.Event()
    rounds = threading.Thread(target=_rounds, args=(place, ways, stop), daemon=True)
    log_plainly()
    config = uvicorn.Config(app, log_config=None, log_level="warning", server_header=False, proxy_headers=False)
    listening = _listen(place.settings.serve)
    host, port = listening.getsockname()[:2]
    where = f"[{host}]" if ":" in host else host
    say(f"lcia serves {place.assistant}: console and API on http://{where}:{port} (Ctrl-C ends it)")
    rounds.start()
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        stop.set()
        rounds.join(timeout=60)


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


def tell(place: Workplace, ways: Mapping[str, Channel]) -> None:
    """One round: what policy promotes without a person, MLflow's outbox, then people's notices."""
    place = place.current()
    for outcome in promote_waiting(place.db, place.promoter, place.store, place.assistant, place.settings.policy):
        LOG.info("%s", outcome.words)
    place.tell_registry()
    settings, link = place.settings, place.settings.notify.link or place.settings.serve.address
    with place.db.begin() as connection:
        notices.collect(connection, place.assistant, list(ways), link)
        notices.warn_of_refusals(connection, place.assistant, list(ways), link)
        notices.warn_of_expiry(
            connection, place.assistant, settings.policy.approval, settings.notify.expiry_hours, list(ways), link
        )
    for sent in notices.deliver(place.db, place.assistant, ways):
        if not sent.ok:
            LOG.warning("notice not delivered by %s: %s", sent.channel, sent.message)


def _rounds(place: Workplace, ways: Mapping[str, Channel], stop: threading.Event) -> None:
    while not stop.wait(EVERY):
        try:
            tell(place, ways)
        except LciaError as error:  # the database is away: the next round tells
            LOG.warning("a round was not finished: %s", error)
        except Exception as error:  # noqa: BLE001 - whatever it is, later rounds have other things to tell
            failures.noted(error, place.home, "a round of telling MLflow and people")


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
