"""`lcia sync`: deliver everything to MLflow, and undo what somebody changed there."""

from typing import Any

from components.audit.decisions import need_decision
from components.audit.log import Actor
from components.promotion.reconcile import reconcile
from components.storage import leases
from lcia.instance import Instance
from lcia.operations import delivery, relocation

LEFT = ("unknown", "experiment")
"""Differences that are reported and left alone; nothing is wrong with them."""


def sync(instance: Instance, actor: Actor) -> dict[str, Any]:
    """Correct the records of a moved state, deliver to MLflow, then repair differences; returns the fate of each.

    Raises:
        StateMoved: the files are elsewhere, and MLflow's records are not this state's alone.
        RegistryError: MLflow can't be reached.
        ChampionUnexplained: the log does not explain the champion; MLflow stays as it is.
    """
    instance.registry.ask_anew()
    with instance.db.read() as connection:
        need_decision(connection, instance.assistant)
    corrections = relocation.mend(instance, actor)
    deliveries = instance.tell_registry(retry=True)
    with instance.db.read() as connection:
        busy = leases.holder(connection, f"outbox:{instance.assistant}")
    repairs = [] if busy else reconcile(instance.promoter, instance.store, instance.registry, actor)
    if repairs and not all(one.ok for one in deliveries):  # what it failed for may be there again
        deliveries = [*(one for one in deliveries if one.ok), *instance.tell_registry(retry=True)]
        repairs += reconcile(instance.promoter, instance.store, instance.registry, actor)
    failures = [one.message for one in deliveries if not one.ok]
    wrong = [repair for repair in repairs if not repair.repaired and repair.difference.kind not in LEFT]
    standing = delivery.standing(instance)
    return {
        "ok": not failures and not wrong and not busy and standing["served"] and not standing["registry_untold"],
        "moved": corrections,
        "told": sum(one.ok for one in deliveries),
        "failed": failures,
        "busy": busy.owner if busy else None,
        "differences": [repair.to_json() for repair in repairs],
        "serves": instance.registry.champion(),
        "served": standing["served"],
        "registry_untold": standing["registry_untold"],
    }


def words(value: dict[str, Any]) -> str:
    """Deliveries, differences, and those that remain, for people."""
    lines = [
        f"the state was moved or copied from {one['from']}: {one['corrected']} records of {one['records']} corrected"
        for one in value["moved"]
    ]
    lines += [f"{value['told']} changes delivered to MLflow"] if value["told"] else []
    lines += [f"not delivered: {message}" for message in value["failed"]]
    if value["busy"]:
        lines.append(f"{value['busy']} is delivering to MLflow now; run `lcia sync` again")
    for one in value["differences"]:
        lines.append(f"{'repaired' if one['repaired'] else 'stays   '}  {one['words']}")
        if one["why_not"]:
            lines.append(f"          -> {one['why_not']}")
    if any(one["kind"] not in ("packing", "experiment") for one in value["differences"]):
        lines.append("somebody changed MLflow directly; it is in the log (`lcia audit show --kind registry`)")
    elif value["ok"]:
        lines.append("MLflow is in step")
    if not value["served"]:
        lines.append("MLflow does not serve the champion: run `lcia sync` again when the problems above are solved")
    return "\n".join(lines)
