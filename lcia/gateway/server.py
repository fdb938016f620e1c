"""Gateway process: uvicorn runs the routes, and a task of the same loop follows decisions."""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from limits import parse

from components.audit.keys import read_public_key
from components.errors import LciaError
from components.model.base import locate, reader_and_settings, with_length
from components.model.prompts import Reader
from components.model.workbench import Workbench
from components.serving.bundle import Bundle
from components.serving.copies import Copies
from components.serving.embedded import EmbeddedEngine
from components.serving.engine import Engine
from components.serving.loaded import settings_of
from components.settings import BaseModelSettings, Settings
from lcia import client
from lcia.gateway import tracing
from lcia.gateway.answer_ids import SECRET, Seal
from lcia.gateway.app import make_app
from lcia.gateway.asking import Gateway, replica_name
from lcia.gateway.follower import Follower
from lcia.gateway.source import DecisionSource, ServerSource, StateSource
from lcia.instance import Instance
from lcia.service import patience
from lcia.service.listening import listening_at, log_plainly

LOG = logging.getLogger("lcia.gateway")


class GatewayRefused(LciaError):
    """Settings under which a gateway can't run."""


Facts = Callable[[], tuple[Reader, BaseModelSettings, str]]
"""Reader, settings and digest of the base model, once the engine has started."""


def serve(
    settings: Settings,
    open_state: Callable[[], Instance],
    environment: Mapping[str, str] = os.environ,
    say: Callable[[str], None] = print,
) -> None:
    """Answer until interrupted; then requests under way may still end.

    Raises:
        GatewayRefused, KeyUnusable: the settings do not fit, or the pinned key can't be read.
        PortTaken: something else listens there.
    """
    source = source_of(open_state, environment)
    tokens = need_settings(settings, source)
    log_plainly()
    server, listening, address = _server(settings, source, environment, tokens=tokens)
    who = "callers with a token that may ask" if tokens else "everybody on this machine"
    say(f"lcia gateway answers {who} on {address}/v1 (Ctrl-C ends it)")
    server.run(sockets=[listening])


@contextmanager
def in_background(settings: Settings, source: DecisionSource, *, tokens: bool = False) -> Iterator[tuple[str, Gateway]]:
    """A gateway that answers from a thread of this process, on any free port; its address, and itself."""
    section = settings.gateway.model_copy(update={"host": "127.0.0.1", "port": 0})
    own = settings.model_copy(update={"gateway": section})
    server, listening, address = _server(own, source, {}, tokens=tokens)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield address, server.gateway
    finally:
        server.should_exit = True
        thread.join()


class _Server(uvicorn.Server):
    """Server with the gateway that it runs."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self.gateway = gateway


def _server(
    settings: Settings, source: DecisionSource, environment: Mapping[str, str], *, tokens: bool
) -> tuple[_Server, socket.socket, str]:
    gateway, follower = make_gateway(settings, source, environment)
    replica = replica_name(environment, socket.gethostname())
    app = make_app(gateway, lambda: follower.run(lambda: gateway.report(replica)), tokens=tokens)
    options = {**patience.options(), "timeout_graceful_shutdown": int(settings.gateway.drain_seconds)}
    listening, address = listening_at(settings.gateway.host, settings.gateway.port, "gateway")
    return _Server(uvicorn.Config(app, **options), gateway), listening, address


def make_gateway(
    settings: Settings, source: DecisionSource, environment: Mapping[str, str]
) -> tuple[Gateway, Follower]:
    """Gateway over a source of decisions; nothing is loaded yet."""
    follower = Follower(settings, source, lambda bundle: prepare(settings, bundle))
    return Gateway(settings, follower, Seal(environment.get(SECRET)), tracing.tracer_of(environment)), follower


def prepare(settings: Settings, bundle: Bundle | None) -> tuple[Engine, Facts]:
    """Engine for a version's base model, and where its facts come from; see `follower.Prepare`."""
    own = settings_of(bundle, settings)
    if settings.gateway.engine == "vllm":
        from components.serving.vllm_engine import VllmEngine

        def facts() -> tuple[Reader, BaseModelSettings, str]:
            models = Path(own.storage.models)
            reader, base, _ = reader_and_settings(own.base_model, models)
            return reader, base, locate(base, models)[1]

        return VllmEngine(own.gateway), facts
    engine = EmbeddedEngine(lambda: Workbench.load(own, announce=LOG.info))
    return engine, lambda: (engine.bench.base.reader, engine.bench.base.settings, engine.bench.base.digest)


def vllm_command(settings: Settings, open_state: Callable[[], Instance], environment: Mapping[str, str]) -> str:
    """Command line that starts a vLLM server for this gateway.

    Raises:
        NotAbleTo: vLLM can't serve adapters of this shape.
        LciaError: the decision can't be read.
    """
    from components.serving.vllm import gateway_command

    source = source_of(open_state, environment)
    champion = source.perform("serving", {})["champion"]
    bundle = Copies(Path(settings.gateway.cache), source.part).bundle(champion["digest"]) if champion else None
    own = settings_of(bundle, settings)
    models = Path(own.storage.models)
    folder, digest = locate(own.base_model, models)
    own = own.model_copy(update={"base_model": with_length(own.base_model, folder)})
    return gateway_command(own, digest, models, len(bundle.pool.groups) if bundle else 0)


def source_of(open_state: Callable[[], Instance], environment: Mapping[str, str]) -> DecisionSource:
    """DecisionSource of decisions: the service, if LCIA_SERVER names one, else the state here."""
    return ServerSource() if environment.get(client.SERVER) else StateSource(open_state)


def need_settings(settings: Settings, source: DecisionSource) -> bool:
    """Check what a gateway needs; returns whether callers need a token.

    Raises:
        GatewayRefused: vLLM without an address, no tokens where others reach it, or a rate that is none.
        KeyUnusable: the key that decisions must be signed with is not on this machine.
    """
    section = settings.gateway
    if section.engine == "vllm" and not section.vllm:
        raise GatewayRefused("gateway.engine is vllm, and gateway.vllm names no server; name at least one address")
    try:
        parse(section.rate)
    except ValueError as error:
        raise GatewayRefused(
            f"gateway.rate is {section.rate!r}, expected a number of requests and a time, such as 600/minute"
        ) from error
    if not source.local:
        read_public_key(Path(settings.audit.public_key))
    open_ = source.local and client.is_local(section.host)
    if section.tokens is False and not client.is_local(section.host):
        raise GatewayRefused(
            f"gateway.tokens is false, and gateway.host {section.host} is reached from elsewhere; set tokens to true, "
            "or host to 127.0.0.1"
        )
    return not open_ if section.tokens == "auto" else section.tokens
