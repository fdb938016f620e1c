"""Estimated and actual costs of learning runs."""

from functools import lru_cache
from typing import Any

from components.storage.objects import ObjectStore
from components.tasks.queue import QueueItem
from lcia.instance import Instance


def costs_of(instance: Instance, item: QueueItem | None) -> dict[str, Any] | None:
    """Estimate and actual cost of a task's last learning run; None where none was recorded, or it was erased."""
    digest = item.reports.get("cost") if item else None
    if digest is None or not instance.store.exists(digest):
        return None
    return {name: _record(instance.store, digest)[name] for name in ("estimate", "actual")}


def actual_cost(instance: Instance, item: QueueItem) -> dict[str, Any] | None:
    """CPU hours, GPU hours, money and its currency of a task's last learning run; None as in `costs_of`."""
    costs = costs_of(instance, item)
    return costs and {name: costs["actual"][name] for name in ("cpu_hours", "gpu_hours", "money", "currency")}


@lru_cache(maxsize=50_000)
def _record(store: ObjectStore, digest: str) -> dict[str, Any]:
    """A record that never changes; whether it is still there is asked each time."""
    record: dict[str, Any] = store.get_json(digest)
    return record
