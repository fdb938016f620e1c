"""Overhead measured before a real vLLM on the CPU: on a tiny model, where little else takes time, and on the demo's."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway import equality
from benchmarks.gateway.installation import RATE, Installation, Program, decide
from benchmarks.gateway.kills import vllm_settings
from benchmarks.gateway.overhead import WARMING, Way, latency, saturation, ways
from benchmarks.gateway.switches import PAIR
from components.model.base import load_reader, locate
from components.settings import Settings
from components.settings.loading import load_settings
from lcia.instance import Instance
from tests.support.vllm_servers import VllmProcess


@dataclass(frozen=True)
class Size:
    """Length of a measurement."""

    requests: int
    """Of one client, by each way."""
    clients: tuple[int, ...]
    seconds: float
    """Of many clients, by each way and round."""
    rounds: int


def on_tiny(system: Installation, size: Size) -> dict[str, Any]:
    """Overhead on the tiny model of an installation."""
    settings, instance = vllm_settings(system), system.open()
    champion = instance.champion()
    if champion is None or champion.number != PAIR[1]:  # other parts may have left the version without written answers
        decide(instance, PAIR[1])
    with _server(system.folder / "vllm-alone", settings) as address:
        options = {"engine": "vllm", "vllm": [address], "new_tokens": settings.gateway.new_tokens}
        gateway = system.gateway("gateway", **options)
        try:
            gateway.wait("/health/ready")
            rows, token = system.questions(), system.tokens["application"]
            return _measure(ways(instance, rows, address, gateway.address, token), gateway, size)
        finally:
            gateway.kill()


def on_demo(state: Path, folder: Path, size: Size) -> dict[str, Any]:
    """Overhead on the champion of a state, as the demo leaves it; its gateway follows the state itself."""
    settings = load_settings(None, (), {}, state)
    instance = Instance.open(state, settings)
    reader = load_reader(settings.base_model, Path(settings.storage.models))
    rows = [question.body for question in equality.questions(instance, reader, 40)]
    with _server(folder / "vllm-demo", settings) as address:
        sections = {"engine": "vllm", "vllm": [address], "cache": str(folder / "cache"), "rate": RATE}
        environment = {f"LCIA__GATEWAY__{name.upper()}": json.dumps(value) for name, value in sections.items()}
        environment["LCIA_HOME"] = str(state)
        gateway = Program(folder, "gateway-demo", ["gateway"], "gateway", environment)
        gateway.begin()
        try:
            gateway.wait("/health/ready")
            return _measure(ways(instance, rows, address, gateway.address, ""), gateway, size)
        finally:
            gateway.kill()


def _measure(asked: dict[str, Way], gateway: Program, size: Size) -> dict[str, Any]:
    before = gateway.cpu_seconds
    one = latency(asked, size.requests)
    through = sum(way.address == gateway.address for way in asked.values()) * (size.requests + WARMING)
    one["gateway_cpu_ms"] = round(1000 * (gateway.cpu_seconds - before) / through, 1)
    print(json.dumps(one), flush=True)
    many = [saturation(asked, clients, size.seconds, size.rounds) for clients in size.clients]
    return {"one_client": one, "saturation": many}


@contextmanager
def _server(folder: Path, settings: Settings) -> Iterator[str]:
    """A vLLM server; its address."""
    digest = locate(settings.base_model, Path(settings.storage.models))[1]
    server = VllmProcess(folder, settings, digest)
    try:
        server.begin()
        server.wait()
        yield server.address
    finally:
        server.kill()
