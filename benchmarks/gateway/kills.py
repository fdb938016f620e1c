"""Kill matrix: each process ends without warning while clients ask two gateways before two vLLM servers."""

import json
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.gateway.installation import Installation, Program, decide, served, state_of
from benchmarks.gateway.load import Client, Load, Reply, machine_load, quantile, under_load, wait_for
from benchmarks.gateway.switches import CLIENTS, PAIR, stray
from components.model.base import locate
from components.settings import Settings, load_settings
from tests.support.vllm_servers import PYTHON, VllmProcess

NEW_TOKENS = 64
"""Room of answers: with that of prompts it fits into the tiny model's context of 512."""
DOWN_SECONDS = 12.0
"""Time for which service, database and MLflow stay away."""
CALM_SECONDS = 4.0
"""Load before a process is killed, and after everything is as before."""


@dataclass
class Scene:
    """Processes that can be killed, and what tells that all is well again."""

    system: Installation
    gateways: list[Program]
    servers: list[VllmProcess]
    bodies: list[dict[str, Any]]
    expected: dict[str, list[str]] = field(default_factory=dict)
    number: int = PAIR[1]
    """Version that was decided last."""
    spans: list[tuple[float, float, int]] = field(default_factory=list)
    """Times between two decisions, begin and end by the monotonic clock, with the version that both gateways served."""

    def other(self) -> int:
        """The other one of the two versions."""
        return PAIR[0] if self.number == PAIR[1] else PAIR[1]

    def follow(self) -> bool:
        """Decide for the other version; True if both gateways serve it within a minute."""
        self.settle(time.monotonic())
        self.number = self.other()
        thread = threading.Thread(target=lambda: decide(self.system.open(), self.number), daemon=True)
        thread.start()
        good = wait_for(lambda: all(served(each.address) == self.number for each in self.gateways), 60)
        self.spans.append((time.monotonic(), math.inf, self.number))
        thread.join()
        return good

    def settle(self, moment: float) -> None:
        """End the present span."""
        begin, _, number = self.spans.pop()
        self.spans.append((begin, moment, number))

    def wrong(self, replies: Sequence[Reply]) -> list[Reply]:
        """Answers to requests that began between two decisions, by another version than the one served then."""
        return [
            reply
            for begin, end, number in self.spans
            for reply in replies
            if reply.ok and begin <= reply.began and reply.ended < end and reply.version != str(number)
        ]

    def agree(self) -> bool:
        """True if both gateways reach the service and serve what was decided."""
        return all(not state_of(each.address)["differs"] for each in self.gateways)

    def differ(self) -> bool:
        """True if both gateways say that something is wrong."""
        return all(state_of(each.address)["differs"] for each in self.gateways)


@dataclass
class Deed:
    """Way of killing one part: what is done while it is away, and after."""

    kill: Callable[[], None]
    start: Callable[[], None]
    well: Callable[[], bool]
    """True once everything is as before."""
    down: float = 0.0
    """Seconds for which it stays away."""
    meanwhile: Callable[[], bool] = lambda: True
    """Test of what has to hold while it is away."""
    after: Callable[[], bool] = lambda: True
    """Test of what has to work afterwards."""


def measure(system: Installation, only: Sequence[str] = ()) -> dict[str, Any]:
    """Results by the part that is killed, `only` some of them; a part that is not here is left out, visibly."""
    settings = vllm_settings(system)
    digest = locate(settings.base_model, Path(settings.storage.models))[1]
    servers = [VllmProcess(system.folder / f"vllm-{n}", settings, digest) for n in (0, 1)]
    try:
        for server in servers:
            server.begin()
        for server in servers:
            server.wait()
        addresses = [server.address for server in servers]
        options = {"engine": "vllm", "vllm": addresses, "poll_seconds": 1.0, "new_tokens": NEW_TOKENS}
        gateways = [system.gateway("gateway", **options) for _ in (0, 1)]
        for gateway in gateways:
            gateway.wait("/health/ready")
        scene = Scene(system, gateways, servers, system.questions())
        scene.number = int(served(gateways[0].address) or 0)
        scene.bodies = _steady(scene)
        scene.expected = system.expected(scene.bodies, PAIR, gateways[0].address)
        deeds = _deeds(scene)
        return {name: _one(scene, name, deeds[name]) for name in only or deeds}
    finally:
        for server in servers:
            server.kill()
        for gateway in system.gateways:
            gateway.kill()


def vllm_settings(system: Installation) -> Settings:
    """Settings of an installation with which its base model fits into vLLM."""
    settings = load_settings(system.loop.config, home_folder=system.loop.home)
    gateway = settings.gateway.model_copy(update={"new_tokens": NEW_TOKENS})
    return settings.model_copy(update={"gateway": gateway})


def _steady(scene: Scene) -> list[dict[str, Any]]:
    """Questions whose answers stay the same whatever else vLLM computes at the time: near-ties may not."""
    addresses = [each.address for each in scene.gateways]
    kept: list[dict[str, Any]] = []
    texts: dict[int, set[str]] = {}
    for number in PAIR:
        bodies = [{**body, "model": f"assistant@{number}"} for body in scene.bodies]
        with under_load(addresses, bodies, CLIENTS, scene.system.tokens["engineer"]) as load:
            wait_for(lambda load=load, bodies=bodies: len(load.replies) >= 4 * len(bodies), 120)
        for reply in load.replies:
            texts.setdefault(1000 * number + reply.question, set()).add(reply.text)
    for place, body in enumerate(scene.bodies):
        if all(len(texts.get(1000 * number + place, set())) == 1 for number in PAIR):
            kept.append(body)
    print(f"{len(kept)} of {len(scene.bodies)} questions have the same answer in every batch", flush=True)
    return kept


def _deeds(scene: Scene) -> dict[str, Deed]:
    system, (first, _), (server, _) = scene.system, scene.gateways, scene.servers
    service = system.service

    def both() -> None:
        service.kill()
        first.kill()

    def again() -> None:
        first.begin()

    deeds = {
        "gateway, one of two": Deed(first.kill, first.begin, lambda: first.answers("/health/ready")),
        "vLLM, one of two": Deed(server.kill, server.begin, lambda: _has_adapters(server.address), down=3.0),
        "service": Deed(service.kill, service.begin, scene.agree, DOWN_SECONDS, scene.differ, scene.follow),
        "gateway while the service is away": Deed(
            both, again, lambda: first.answers("/health/ready"), after=lambda: _back(service, scene)
        ),
        "MLflow": Deed(system.mlflow.kill, system.mlflow.start, scene.agree, DOWN_SECONDS, scene.follow, scene.follow),
    }
    if system.cluster is None:
        print("the database is not killed: there is no PostgreSQL here")
        return deeds
    deeds["database"] = Deed(
        system.cluster.kill, system.cluster.start, scene.agree, DOWN_SECONDS, scene.differ, scene.follow
    )
    return deeds


def _back(service: Program, scene: Scene) -> bool:
    service.begin()
    return wait_for(scene.agree) and scene.follow()


def _has_adapters(address: str) -> bool:
    """True if a vLLM server has adapters again."""
    client = Client(address)
    try:
        models = json.loads(client.send("/v1/models")[2])["data"]
        return len(models) > 2
    finally:
        client.close()


def _one(scene: Scene, name: str, deed: Deed) -> dict[str, Any]:
    """Kill one part under load."""
    scene.spans = [(0.0, math.inf, scene.number)]
    addresses = [each.address for each in scene.gateways]
    with under_load(addresses, scene.bodies, CLIENTS, scene.system.tokens["application"]) as load:
        time.sleep(CALM_SECONDS)
        killed = time.monotonic()
        deed.kill()
        time.sleep(deed.down)
        meanwhile = deed.meanwhile()
        started = time.monotonic()
        deed.start()
        well = wait_for(deed.well, 240)
        recovered = time.monotonic()
        after = deed.after()
        time.sleep(CALM_SECONDS)
    result = _result(load, scene, killed, recovered)
    for reply in [each for each in load.replies if not each.ok][:3]:
        print(f"{name}: {reply.status} {reply.text[:200]}")
    return {
        "killed": name,
        **result,
        "away_s": round(started - killed, 1),
        "recovered_s_after_its_start": round(recovered - started, 1) if well else None,
        "as_expected_while_away": meanwhile,
        "as_expected_after": after,
    }


def _result(load: Load, scene: Scene, killed: float, recovered: float) -> dict[str, Any]:
    replies = load.replies
    good = sorted(reply.ended for reply in replies if reply.ok)
    wrong, mixed = scene.wrong(replies), stray(replies, scene.expected)
    for reply in [*wrong, *mixed][:3]:
        print(f"wrong: {reply}")
    return {
        "requests": len(replies),
        "failed": sum(not reply.ok for reply in replies),
        "failed_after_one_retry_elsewhere": sum(not reply.ok for reply in load.again),
        "longest_pause_s": round(max((b - a for a, b in pairwise(good)), default=0.0), 2),
        "answer_p50_s": _p50(replies, 0, killed),
        "answer_p50_meanwhile_s": _p50(replies, killed, recovered),
        "wrong_version": len(wrong),
        "match_no_version": len(mixed),
        "load": machine_load(),
    }


def _p50(replies: Sequence[Reply], begin: float, end: float) -> float:
    times = [reply.ended - reply.began for reply in replies if reply.ok and begin <= reply.began < end]
    return round(quantile(times, 0.5), 3)


def can_run() -> bool:
    """True if there is a vLLM to kill."""
    return bool(os.environ.get(PYTHON))
