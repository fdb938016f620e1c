"""Switches between two versions under load: failed requests, answers of no version, seconds until the last replica.

They are measured twice: `measure` has real decisions in a whole installation, `measure_signed` signed decisions without
a promotion, which come as fast as the gateways follow.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.gateway.decided import SignedSource
from benchmarks.gateway.installation import RATE, Installation, decide, questions, served
from benchmarks.gateway.load import FAILURES, Client, Reply, machine_load, quantile, under_load, wait_for
from components.model import workbench
from lcia.gateway.server import in_background
from lcia.instance import Instance
from lcia.operations.serving import serving
from tests.support.small_loop import SmallLoop

CLIENTS = 8
REPLICAS = 3
PAIR = (2, 3)
"""Numbers of the two versions."""
SETTLED_SECONDS = 0.3
"""Time for which the new version is asked before the next decision."""
LOOK_SECONDS = 0.03
"""Pause between two looks at what a replica serves."""


class Watch:
    """Follows what each replica serves, and since when by the wall clock."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._stop = threading.Event()
        self.changes: dict[str, list[tuple[float, float, int | None]]] = {each: [] for each in addresses}
        """By address: time of the wall clock, of the monotonic clock, number."""
        self._threads = [threading.Thread(target=self._look, args=(each,), daemon=True) for each in addresses]
        for thread in self._threads:
            thread.start()

    def _look(self, address: str) -> None:
        seen = self.changes[address]
        while not self._stop.wait(LOOK_SECONDS):
            with suppress(*FAILURES, ValueError):
                number = served(address)
                if not seen or seen[-1][2] != number:
                    seen.append((time.time(), time.monotonic(), number))

    def all_serve(self, number: int) -> bool:
        """True if every replica serves a version."""
        return all(seen and seen[-1][2] == number for seen in self.changes.values())

    def end(self) -> None:
        """Look no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def stray(replies: Sequence[Reply], expected: Mapping[str, Sequence[str]]) -> list[Reply]:
    """Answers that are not word by word those of the version that they name."""
    return [
        reply
        for reply in replies
        if reply.ok and (reply.version not in expected or expected[reply.version][reply.question] != reply.text)
    ]


def measure(system: Installation, switches: int, poll_seconds: float) -> dict[str, Any]:
    """Move the champion of an installation to and fro while clients ask three gateways, each a process of its own."""
    replicas = [system.gateway("replica", poll_seconds=poll_seconds) for _ in range(REPLICAS)]
    for each in replicas:
        each.wait("/health/ready")
    instance, bodies = system.open(), system.questions()
    addresses = [each.address for each in replicas]
    expected = system.expected(bodies, PAIR, addresses[0])

    def move(number: int) -> float:
        decide(instance, number)
        return datetime.fromisoformat(serving(instance)["champion"]["at"]).timestamp()

    try:
        result = _run(addresses, bodies, expected, move, switches, system.tokens["application"])
    finally:
        for each in replicas:
            each.kill()
    return {"decisions": "promotions and rollbacks through the service", "poll_seconds": poll_seconds, **result}


def measure_signed(loop: SmallLoop, switches: int, poll_seconds: float) -> dict[str, Any]:
    """Signed decisions without a promotion; the three gateways are threads of this process, each with its own model."""
    instance = loop.open()
    source = SignedSource(instance, instance.store)
    digests = {number: _digest(instance, number) for number in PAIR}
    bodies = questions(loop)
    with ExitStack() as stack:
        addresses = []
        source.decide(PAIR[1], digests[PAIR[1]])
        for _ in range(REPLICAS):
            # else the engines of one process share a model, and its one adapter slot
            workbench._load.cache_clear()  # noqa: SLF001
            cache = stack.enter_context(TemporaryDirectory())
            changes = {"cache": cache, "poll_seconds": poll_seconds, "rate": RATE}
            gateway = instance.settings.gateway.model_copy(update=changes)
            settings = instance.settings.model_copy(update={"gateway": gateway})
            address, running = stack.enter_context(in_background(settings, source))
            addresses.append(address)
            # one after another: transformers can't load two models at the same time in one process
            if not wait_for(lambda follower=running.follower: follower.ready):
                raise RuntimeError(running.follower.problem)
        expected = {}
        for number in PAIR:
            source.decide(number, digests[number])
            if not wait_for(lambda number=number: all(served(each) == number for each in addresses)):
                raise RuntimeError(f"the gateways do not serve version {number}")
            client = Client(addresses[0])
            expected[str(number)] = [client.ask(place, body).text for place, body in enumerate(bodies)]
            client.close()

        def move(number: int) -> float:
            source.decide(number, digests[number])
            return time.time()

        result = _run(addresses, bodies, expected, move, switches)
    return {"decisions": "signed, without a promotion", "poll_seconds": poll_seconds, **result}


def _digest(instance: Instance, number: int) -> str:
    version = instance.version(number)
    assert version is not None
    return version.digest


def _run(
    addresses: Sequence[str],
    bodies: Sequence[Mapping[str, Any]],
    expected: Mapping[str, Sequence[str]],
    move: Callable[[int], float],
    switches: int,
    token: str = "",
) -> dict[str, Any]:
    """Switch to and fro under load; `move` decides for a version and tells when, by the wall clock."""
    watch, delays, unfollowed = Watch(addresses), [], 0
    began, loads = time.monotonic(), [machine_load()]
    settled: list[tuple[float, int]] = []
    try:
        with under_load(addresses, bodies, CLIENTS, token) as load:
            for turn in range(switches):
                number = PAIR[turn % 2]
                decided = move(number)
                if not wait_for(lambda number=number: watch.all_serve(number), 60, pause=0.01):
                    unfollowed += 1
                    continue
                delays.append(max(seen[-1][0] for seen in watch.changes.values()) - decided)
                settled.append((time.monotonic(), number))
                loads.append(machine_load())
                time.sleep(SETTLED_SECONDS)
    finally:
        watch.end()
    replies = load.replies
    mixed = stray(replies, expected)
    for reply in [*mixed, *(each for each in replies if not each.ok)][:5]:
        print(f"failed, or matches no version: {reply}")
    one, other = (expected[str(number)] for number in PAIR)
    times = [reply.ended - reply.began for reply in replies]
    return {
        "switches": switches,
        "replicas": len(addresses),
        "clients": CLIENTS,
        "seconds": round(time.monotonic() - began, 1),
        "requests": len(replies),
        "failed": sum(not reply.ok for reply in replies),
        "match_no_version": len(mixed),
        "late": _late(replies, settled),
        "of_version": dict(Counter(reply.version for reply in replies)),
        "questions": len(bodies),
        "questions_that_tell_versions_apart": sum(a != b for a, b in zip(one, other, strict=True)),
        "not_followed_in_60_s": unfollowed,
        "decision_to_last_replica_s": {"p50": _p(delays, 0.5), "p99": _p(delays, 0.99), "max": _p(delays, 1)},
        "answer_s": {"p50": _p(times, 0.5), "p99": _p(times, 0.99)},
        "load": [min(loads), max(loads)],
    }


def _late(replies: Sequence[Reply], settled: Sequence[tuple[float, int]]) -> int:
    """Requests that began after every replica served a version, before the next decision, and that another answered."""
    late = 0
    for moment, number in settled:
        asked = (reply for reply in replies if reply.ok and moment <= reply.began < moment + SETTLED_SECONDS)
        late += sum(reply.version != str(number) for reply in asked)
    return late


def _p(values: Sequence[float], share: float) -> float:
    return round(quantile(values, share), 3)
