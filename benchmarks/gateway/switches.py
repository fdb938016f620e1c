"""Switches between two versions under load: requests that fail, answers of no version, seconds until the last replica."""

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from benchmarks.gateway.installation import Installation, Program, decide, served
from benchmarks.gateway.load import FAILURES, Reply, machine_load, quantile, under_load, wait_for
from lcia.operations.serving import serving

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

    def __init__(self, replicas: Sequence[Program]) -> None:
        self._stop = threading.Event()
        self.changes: dict[str, list[tuple[float, float, int | None]]] = {each.address: [] for each in replicas}
        """By address: time of the wall clock, of the monotonic clock, number."""
        self._threads = [threading.Thread(target=self._look, args=(each.address,), daemon=True) for each in replicas]
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
    """Move the champion to and fro while clients ask three gateways."""
    replicas = [system.gateway(f"replica-{n}", poll_seconds=poll_seconds) for n in range(REPLICAS)]
    for each in replicas:
        each.wait("/health/ready")
    instance = system.open()
    bodies = system.questions()
    expected = system.expected(bodies, PAIR, replicas[0].address)
    telling = [n for n in range(len(bodies)) if expected["2"][n] != expected["3"][n]]
    watch, undone = Watch(replicas), 0
    delays: list[float] = []
    began, loads = time.monotonic(), [machine_load()]
    windows: list[tuple[float, int]] = []
    try:
        with under_load([each.address for each in replicas], bodies, CLIENTS, system.tokens["application"]) as load:
            for turn in range(switches):
                number = PAIR[turn % 2]
                decide(instance, number)
                decided = datetime.fromisoformat(serving(instance)["champion"]["at"]).timestamp()
                if not wait_for(lambda number=number: watch.all_serve(number), 60, pause=0.01):
                    undone += 1
                    continue
                last = max(seen[-1][0] for seen in watch.changes.values())
                delays.append(last - decided)
                windows.append((time.monotonic(), number))
                loads.append(machine_load())
                time.sleep(SETTLED_SECONDS)
    finally:
        watch.end()
        for each in replicas:
            each.kill()
    replies = load.replies
    mixed = stray(replies, expected)
    for reply in mixed[:5]:
        print(f"matches no version: {reply}")
    for reply in [each for each in replies if not each.ok][:5]:
        print(f"failed: {reply}")
    return {
        "switches": switches,
        "poll_seconds": poll_seconds,
        "replicas": REPLICAS,
        "clients": CLIENTS,
        "seconds": round(time.monotonic() - began, 1),
        "requests": len(replies),
        "failed": sum(not reply.ok for reply in replies),
        "match_no_version": len(mixed),
        "late": _late(replies, windows),
        "of_version": dict(Counter(reply.version for reply in replies)),
        "questions": len(bodies),
        "questions_that_tell_versions_apart": len(telling),
        "not_followed_in_60_s": undone,
        "decision_to_last_replica_s": {"p50": _p(delays, 0.5), "p99": _p(delays, 0.99), "max": _p(delays, 1)},
        "answer_s": {
            "p50": _p([r.ended - r.began for r in replies], 0.5),
            "p99": _p([r.ended - r.began for r in replies], 0.99),
        },
        "load": [min(loads), max(loads)],
    }


def _late(replies: Sequence[Reply], windows: Sequence[tuple[float, int]]) -> int:
    """Requests that began after every replica served a version, before the next decision, and that another answered."""
    late = 0
    for moment, number in windows:
        asked = (reply for reply in replies if reply.ok and moment <= reply.began < moment + SETTLED_SECONDS)
        late += sum(reply.version != str(number) for reply in asked)
    return late


def _p(values: Sequence[float], share: float) -> float:
    return round(quantile(values, share), 3)
