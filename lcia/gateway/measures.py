"""Numbers of the gateway, for Prometheus and for the reports to the service; none holds a text or a name."""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client import Counter as Total

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asks for
SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
RECENT = 1000
"""Newest answers that quantiles are of."""
BASE = "none"
"""Group of answers by the base model alone."""


class Meter:
    """Counts of one gateway process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Total(
            "lcia_gateway_requests", "Requests by group and outcome.", ["group", "outcome"], registry=self.registry
        )
        self.routes = Total("lcia_gateway_routes", "Requests by route.", ["route"], registry=self.registry)
        self.tokens = Total("lcia_gateway_tokens", "Tokens read and output.", ["kind"], registry=self.registry)
        self.first = Histogram(
            "lcia_gateway_first_token_seconds", "Seconds to the first token.", buckets=SECONDS, registry=self.registry
        )
        self.whole = Histogram(
            "lcia_gateway_request_seconds", "Seconds to the end of an answer.", buckets=SECONDS, registry=self.registry
        )
        self.speed = Histogram(
            "lcia_gateway_tokens_per_second",
            "Tokens per second of an answer.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
            registry=self.registry,
        )
        self.ratings = Total("lcia_gateway_ratings", "Feedback by verdict.", ["verdict"], registry=self.registry)
        self.running = Gauge("lcia_gateway_running", "Answers under way or waiting.", registry=self.registry)
        self.ready = Gauge("lcia_gateway_ready", "1 if requests are answered.", registry=self.registry)
        self.version = Gauge("lcia_gateway_version", "Version that is served.", registry=self.registry)
        self.decided = Gauge("lcia_gateway_decided_version", "Version that was decided.", registry=self.registry)
        self.groups: dict[str, Counter[str]] = {}
        self._first: deque[float] = deque(maxlen=RECENT)
        self._whole: deque[float] = deque(maxlen=RECENT)

    def count_answer(
        self, group: str | None, route: str, seconds: float, first: float | None, prompt: int, output: int
    ) -> None:
        """Count an answer that came to its end; `prompt` and `output` are tokens."""
        self._count(group, "ok")
        self.routes.labels(route).inc()
        self.tokens.labels("prompt").inc(prompt)
        self.tokens.labels("answer").inc(output)
        self.whole.observe(seconds)
        self._whole.append(seconds)
        if first is not None:
            self.first.observe(first)
            self._first.append(first)
        if output and seconds > 0:
            self.speed.observe(output / seconds)

    def count_failure(self, group: str | None, outcome: str) -> None:
        """Count a request without an answer."""
        self._count(group, outcome)

    def page(self, *, running: int, ready: bool, version: int | None, target: int | None) -> bytes:
        """Text for Prometheus."""
        self.running.set(running)
        self.ready.set(ready)
        self.version.set(version or 0)
        self.decided.set(target or 0)
        return bytes(generate_latest(self.registry))

    def report(self) -> dict[str, Any]:
        """Traffic and latency for the service."""
        traffic = {
            group: {"requests": counts.total(), "errors": counts["error"]} for group, counts in self.groups.items()
        }
        return {"traffic": traffic, "latency": self._latency()}

    def _latency(self) -> Mapping[str, float | None]:
        return {
            "p50": _quantile(self._whole, 0.5),
            "p99": _quantile(self._whole, 0.99),
            "first_token_p50": _quantile(self._first, 0.5),
        }

    def _count(self, group: str | None, outcome: str) -> None:
        self.requests.labels(group or BASE, outcome).inc()
        self.groups.setdefault(group or BASE, Counter())[outcome] += 1


def _quantile(values: "deque[float]", share: float) -> float | None:
    """Nearest-rank quantile in seconds; None without any value."""
    ranks = sorted(values)
    return round(ranks[min(len(ranks) - 1, int(share * len(ranks)))], 4) if ranks else None
