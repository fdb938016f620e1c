"""Server process: uvicorn runs the service, and a thread does the rounds."""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

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
from lcia.console.app import add_console
from lcia.instance import Instance
from lcia.operations import trials
from lcia.service import app as service
from lcia.service import patience
from lcia.service.denials import DENIALS
from lcia.service.listening import listening_at, log_plainly
from lcia.worker.rounds import Rounds

LOG = logging.getLogger("lcia.service")
EVERY = 30.0
"""Seconds between two rounds."""
FIRST_TOKEN = timedelta(days=30)


def bootstrap(instance: Instance, name: str, actor: Actor) -> str | None:
    """Make the first admin; returns a token for 30 days, or None if there is an admin already.

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
    """Make the API with the console's pages; see `service.app.make_app`."""
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
    config = uvicorn.Config(app, **patience.options())
    listening, where = listening_at(instance.settings.serve.host, instance.settings.serve.port, "serve")
    say(f"lcia serves {instance.assistant}: console and API on {where} (Ctrl-C ends it)")
    thread = rounds.start(lambda: tell(instance, ways, rounds), stop)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        stop.set()
        thread.join(timeout=60)
        DENIALS.close(everything=True)


ROUNDS = ("automatic", "trials", "mlflow", "served", "denials", "notices", "delivery")
"""Rounds, in order: promote what the policy leaves to no person, end trials that are over, update MLflow, check what it
serves, enter counts of denials, find notices, send them."""


class RoundUnfinished(LciaError):
    """Part of a round failed; the message is that of the first failure."""


def tell(instance: Instance, ways: Mapping[str, Channel], rounds: Rounds) -> None:
    """Do each round once; a failure of one does not stop the others."""
    instance = instance.current()
    rounds.run("automatic", lambda: _promote(instance))
    rounds.run("trials", lambda: trials.settle(instance))
    rounds.run(
        "mlflow", lambda: _need_none([one.message for one in instance.tell_registry() if not (one.ok or one.waits)])
    )
    rounds.run("served", lambda: _need_none(instance.serve_again()))
    rounds.run("denials", DENIALS.close)
    rounds.run("notices", lambda: _find(instance, ways))
    rounds.run("delivery", lambda: _need_none([one.message for one in _send(instance, ways) if not one.ok]))


def _promote(instance: Instance) -> None:
    for outcome in promote_waiting(
        instance.db, instance.promoter, instance.store, instance.assistant, instance.settings.policy
    ):
        LOG.info("%s", outcome.words)


def _need_none(messages: Sequence[str]) -> None:
    if messages:
        raise RoundUnfinished(f"{messages[0]}{f' (and {len(messages) - 1} more)' if messages[1:] else ''}")


def _find(instance: Instance, ways: Mapping[str, Channel]) -> None:
    settings, link = instance.settings, instance.settings.notify.link or instance.settings.serve.address
    with instance.db.begin() as connection:
        notices.collect(connection, instance.assistant, list(ways), link)
        notices.warn_of_refusals(connection, instance.assistant, list(ways), link)
        notices.warn_of_expiry(
            connection, instance.assistant, settings.policy.approval, settings.notify.expiry_hours, list(ways), link
        )
        seconds = settings.gateway.differs_seconds
        notices.warn_of_replicas(connection, instance.assistant, seconds, list(ways), link)


def _send(instance: Instance, ways: Mapping[str, Channel]) -> list[notices.Sent]:
    deliveries = notices.deliver(instance.db, instance.assistant, ways)
    for one in deliveries:
        if not one.ok:
            LOG.warning("notice not delivered by %s: %s", one.channel, one.message)
    return deliveries
