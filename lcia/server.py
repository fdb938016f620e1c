"""Running the service: uvicorn, and what a server does besides answering."""

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import uvicorn
from fastapi import FastAPI

from components.audit.log import SYSTEM, Actor
from components.errors import LciaError
from components.identity import appointments, people, tokens
from components.notices import notices
from components.notices.channels import channels
from components.notices.notices import Channel
from components.promotion import policy
from components.promotion.automatic import promote_waiting
from components.settings import ServeSettings
from components.visible import indent, visible
from lcia.console.app import add_console
from lcia.instance import Instance
from lcia.service import app as service
from lcia.service import patience
from lcia.service.denials import DENIALS
from lcia.worker.rounds import Rounds

LOG = logging.getLogger("lcia.service")
EVERY = 30.0
"""Seconds between two rounds of telling MLflow and people what they have not been told."""
FIRST_TOKEN = timedelta(days=30)


class PortTaken(LciaError):
    """The address to listen on is not to be had."""


def bootstrap(instance: Instance, name: str, actor: Actor) -> str | None:
    """Make the first admin and a token for 30 days; None where there is an admin already.

    Raises:
        PersonRefused, ActorUnnamed: the name can't be used.
    """
    with instance.db.begin() as connection:
        if people.admins(connection):
            return None
        people.add(connection, name, actor=actor)
        appointments.appoint(connection, name, "admin", actor=actor)
        _, text = tokens.create(connection, name, "bootstrap", FIRST_TOKEN, actor=actor)
        return text


def make_app(instance: Instance, environment: Mapping[str, str], rounds: Rounds | None = None) -> FastAPI:
    """The API with the console's pages; see `service.make_app`."""
    return service.make_app(instance, environment, add_console, rounds)


def serve(instance: Instance, environment: Mapping[str, str] = os.environ, say: Callable[[str], None] = print) -> None:
    """Answer until interrupted.

    Raises:
        ServeRefused, ChannelMissing: a secret that the settings ask for is not in the environment.
        PortTaken: something else listens there.
    """
    rounds = Rounds(instance.db, instance.home, "service", EVERY, ROUNDS)
    app = make_app(instance, environment, rounds)
    ways = channels(instance.assistant, instance.settings.notify, environment)
    with instance.db.begin() as connection:
        policy.install(connection, instance.assistant, instance.settings.policy, actor=SYSTEM)
    stop = threading.Event()
    log_plainly()
    plain = {"log_config": None, "log_level": "warning", "server_header": False, "proxy_headers": False}
    config = uvicorn.Config(app, **(plain | patience.options()))
    listening = _listen(instance.settings.serve)
    host, port = listening.getsockname()[:2]
    where = f"[{host}]" if ":" in host else host
    say(f"lcia serves {instance.assistant}: console and API on http://{where}:{port} (Ctrl-C ends it)")
    thread = rounds.start(lambda: tell(instance, ways, rounds), stop)
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


def tell(instance: Instance, ways: Mapping[str, Channel], rounds: Rounds) -> None:
    """One time of each round; what fails in one keeps no other from being done."""
    instance = instance.current()
    rounds.run("automatic", lambda: _promote(instance))
    rounds.run(
        "mlflow", lambda: _finished([one.message for one in instance.tell_registry() if not (one.ok or one.waits)])
    )
    rounds.run("served", lambda: _finished(instance.serve_again()))
    rounds.run("denials", DENIALS.close)
    rounds.run("notices", lambda: _find(instance, ways))
    rounds.run("delivery", lambda: _finished([one.message for one in _send(instance, ways) if not one.ok]))


def _promote(instance: Instance) -> None:
    for outcome in promote_waiting(
        instance.db, instance.promoter, instance.store, instance.assistant, instance.settings.policy
    ):
        LOG.info("%s", outcome.words)


def _finished(left: Sequence[str]) -> None:
    if left:
        raise RoundUnfinished(f"{left[0]}{f' (and {len(left) - 1} more)' if left[1:] else ''}")


def _find(instance: Instance, ways: Mapping[str, Channel]) -> None:
    settings, link = instance.settings, instance.settings.notify.link or instance.settings.serve.address
    with instance.db.begin() as connection:
        notices.collect(connection, instance.assistant, list(ways), link)
        notices.warn_of_refusals(connection, instance.assistant, list(ways), link)
        notices.warn_of_expiry(
            connection, instance.assistant, settings.policy.approval, settings.notify.expiry_hours, list(ways), link
        )


def _send(instance: Instance, ways: Mapping[str, Channel]) -> list[notices.Sent]:
    sent = notices.deliver(instance.db, instance.assistant, ways)
    for one in sent:
        if not one.ok:
            LOG.warning("notice not delivered by %s: %s", one.channel, one.message)
    return sent


class _Lines(logging.Formatter):
    """A record in one line, its words visible; a traceback below it, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 - logging's
        return indent(f"  {super().formatException(ei)}")


def log_plainly() -> None:
    """Log to standard error, so that no word of a request or package forges a line."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("lcia", "uvicorn"):  # ZenML, once imported, has the root logger say next to nothing
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
