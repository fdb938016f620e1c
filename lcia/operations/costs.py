"""Estimated and actual costs of learning runs."""

from typing import Any

from components.storage.objects import ObjectMissing
from components.tasks.queue import QueueItem
from lcia.instance import Instance


def costs_of(instance: Instance, item: QueueItem | None) -> dict[str, Any] | None:
    """Estimate and actual cost of a task's last learning run; None where none was recorded."""
    digest = item.reports.get("cost") if item else None
    try:
        record: dict[str, Any] | None = instance.store.get_json(digest) if digest else None
    except ObjectMissing:
        return None
    return {name: record[name] for name in ("estimate", "actual")} if record else None
