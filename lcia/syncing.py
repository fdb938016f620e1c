"""`lcia sync`: MLflow told everything, and brought back to it where somebody changed it."""

from typing import Any

from components.audit.log import Actor
from components.promotion.reconcile import reconcile
from components.storage import leases
from lcia.workplace import Workplace


def sync(place: Workplace, actor: Actor) -> dict[str, Any]:
    """Deliveries, then differences with what became of them.

    Raises:
        RegistryError: MLflow can't be reached.
    """
    told = place.tell_registry()
    with place.db.read() as connection:
        busy = leases.holder(connection, f"outbox:{place.assistant}")
    repairs = [] if busy else reconcile(place.promoter, place.store, place.registry, actor)
    if repairs and not all(delivery.ok for delivery in told):  # what it failed for may be there again
        told = [*(delivery for delivery in told if delivery.ok), *place.tell_registry()]
        repairs += reconcile(place.promoter, place.store, place.registry, actor)
    failed = [delivery.message for delivery in told if not delivery.ok]
    wrong = [repair for repair in repairs if not repair.repaired and repair.difference.kind != "unknown"]
    return {
        "ok": not failed and not wrong and not busy,
        "told": sum(delivery.ok for delivery in told),
        "failed": failed,
        "busy": busy.owner if busy else None,
        "differences": [repair.to_json() for repair in repairs],
        "serves": place.registry.champion(),
    }


def words(value: dict[str, Any]) -> str:
    """What was told, what differed, what stays."""
    lines = [f"{value['told']} changes were told to MLflow"] if value["told"] else []
    lines += [f"not told: {message}" for message in value["failed"]]
    if value["busy"]:
        lines.append(f"{value['busy']} tells MLflow something at this moment; run `lcia sync` again")
    for one in value["differences"]:
        lines.append(f"{'repaired' if one['repaired'] else 'stays   '}  {one['words']}")
        if one["why_not"]:
            lines.append(f"          -> {one['why_not']}")
    if value["differences"]:
        lines.append("somebody changed MLflow directly; it is in the log (`lcia audit show --kind registry`)")
    elif value["ok"]:
        lines.append("MLflow is in step")
    return "\n".join(lines)
