"""Trial on a gateway's traffic: who is answered by the candidate, what is compared, and the counts for the service."""

import asyncio
import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from components.promotion.trial_counts import BUCKETS
from components.serving.loaded import Loaded
from components.storage.objects import Json

MIRRORED = 8
"""Requests that are mirrored at the same time; more are answered without being mirrored."""
KEPT = 20
"""Changed answers that are sent with one report."""

Mask = Callable[[str], str]
Arm = Literal["champion", "candidate"]


@dataclass(frozen=True)
class Observation:
    """One answer, as far as trials count it."""

    failed: bool
    seconds: float
    none_routed: bool
    text: str = ""


class TrialTraffic:
    """One trial, counted since this gateway began it."""

    def __init__(self, trial: int, kind: str, share: float, candidate: Loaded, slow_seconds: float) -> None:
        self.id, self.kind, self.share, self.candidate = trial, kind, share, candidate
        self._slow = slow_seconds
        self._counts: dict[str, Counter[str]] = {"champion": Counter(), "candidate": Counter()}
        self._latency = {arm: [0] * len(BUCKETS) for arm in self._counts}
        self._pairs: Counter[str] = Counter()
        self._changed: list[dict[str, str]] = []
        self._rated: set[str] = set()
        self._running: set[asyncio.Task[None]] = set()

    def picks(self, caller: str) -> bool:
        """True if the candidate answers this caller: always the same callers, `share` of all."""
        digest = hashlib.sha256(f"{self.id}/{caller}".encode()).digest()
        return self.kind == "canary" and int.from_bytes(digest[:8]) < self.share * 2**64

    def mirrors(self, request: str) -> bool:
        """True if a request, by its id, is to be mirrored."""
        digest = hashlib.sha256(request.encode()).digest()
        return self.kind == "shadow" and int.from_bytes(digest[:8]) < self.share * 2**64

    def count(self, arm: Arm, outcome: Observation) -> None:
        """Count an answer of one arm."""
        counts = self._counts[arm]
        counts["requests"] += 1
        counts.update({name: int(bad) for name, bad in self._bad(outcome).items()})
        self._latency[arm][bisect_left(BUCKETS[:-1], outcome.seconds)] += 1

    def rate(self, arm: Arm, answer: str, *, good: bool) -> None:
        """Count feedback on an answer of one arm; the first verdict on it counts, for all that come."""
        counts = self._counts[arm]
        if answer not in self._rated and counts["rated"] < counts["requests"]:
            self._rated.add(answer)
            counts.update({"rated": 1, "complaints": int(not good)})

    def mirror(
        self, identity: str, champion: Observation, ask: Callable[[], Awaitable[Observation]], mask: Mask | None
    ) -> None:
        """Ask the candidate too, in the background, and compare; `mask` makes texts fit to be kept, None keeps none."""
        if len(self._running) >= MIRRORED:
            return

        async def compare() -> None:
            self._pair(identity, champion, await ask(), mask)

        task = asyncio.create_task(compare())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def report(self) -> dict[str, Json]:
        """The counts for the service; changed answers are handed over once."""
        texts, self._changed = self._changed[:KEPT], self._changed[KEPT:]
        names = ("requests", "errors", "slow", "none_routed", "rated", "complaints")
        counts: dict[str, Any] = {arm: {name: counts[name] for name in names} for arm, counts in self._counts.items()}
        pairs: dict[str, Any] | None = None
        if self.kind == "shadow":
            pairs = {name: self._pairs[name] for name in ("compared", "agreed")}
            for rule in ("errors", "slow", "none_routed"):
                pairs[rule] = [self._pairs[f"{rule} candidate"], self._pairs[f"{rule} champion"]]
        return {"id": self.id, "counts": counts, "pairs": pairs, "latency": dict(self._latency), "changed": texts}

    def end(self) -> None:
        """Stop what runs in the background."""
        for task in self._running:
            task.cancel()

    def _pair(
        self, identity: str, champion: Observation, candidate: Observation, mask: Callable[[str], str] | None
    ) -> None:
        self.count("champion", champion)
        self.count("candidate", candidate)
        same = champion.text == candidate.text
        self._pairs.update({"compared": 1, "agreed": int(same)})
        for rule, bad in self._bad(candidate).items():
            before = self._bad(champion)[rule]
            if bad != before:
                self._pairs[f"{rule} {'candidate' if bad else 'champion'}"] += 1
        if mask and not same and len(self._changed) < 10 * KEPT:
            texts = {"champion": mask(champion.text), "candidate": mask(candidate.text)}
            self._changed.append({"id": identity, **texts})

    def _bad(self, outcome: Observation) -> dict[str, bool]:
        """Badness of an answer, by rule."""
        return {
            "errors": outcome.failed,
            "slow": outcome.seconds > self._slow,
            "none_routed": outcome.none_routed,
        }
