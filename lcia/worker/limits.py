"""Limits on what a site's tasks may cost in a month, from the prices in the settings."""

from components.storage.database import now
from components.tasks import queue
from components.tasks.queue import QueueItem
from lcia.instance import Instance
from lcia.operations.costs import costs_of
from lcia.worker import estimates


def over_limit(instance: Instance, item: QueueItem, assessment: str | None) -> str | None:
    """A sentence with the figures if learning a task would go beyond its site's limit; None if it may be learnt.

    `assessment` is its record, None for a change that learns nothing.
    """
    prices = instance.settings.prices
    limit = prices.month_limits.get(item.owner, prices.month_limits.get("*"))
    if limit is None or assessment is None:
        return None
    forecast = estimates.estimate(instance, instance.store.get_json(assessment)["estimate"])["money"]
    if forecast is None:
        return None
    so_far = _money_so_far(instance, item.owner)
    if so_far + forecast <= limit:
        return None
    return (
        f"{item.owner} has spent {so_far:.2f} of {limit:.2f} {prices.currency} this month (prices.month_limits), and "
        f"this task would cost about {forecast:.2f}; `lcia release {item.id} --reason ...` learns it all the same"
    )


def _money_so_far(instance: Instance, owner: str) -> float:
    """Money that a site's tasks took in this month of the calendar."""
    with instance.db.read() as connection:
        today = now(connection)
        items = queue.items(connection, instance.assistant)
    mine = (one for one in items if one.owner == owner and "cost" in one.reports)
    this_month = (one for one in mine if (one.changed_at.year, one.changed_at.month) == (today.year, today.month))
    costs = (costs_of(instance, one) for one in this_month)
    return sum(float(one["actual"]["money"] or 0.0) for one in costs if one)
