"""Leases of processes that are gone."""

from components.audit.log import Actor, append
from components.promotion.reasons import need_reason
from components.storage import leases
from components.storage.objects import Json
from lcia.instance import Instance


def break_lease(instance: Instance, actor: Actor, lease: str, reason: str, *, force: bool = False) -> Json:
    """Free a lease whose owner is gone, or with `force` one that hangs; the log keeps who did it and why."""
    need_reason(reason)
    with instance.keeper.begin() as connection:
        lease_before = leases.break_lease(connection, lease, force=force)
        state_before: dict[str, Json] = {
            "owner": lease_before.owner,
            "silent_seconds": None if lease_before.silent is None else round(lease_before.silent),
            "lost": lease_before.is_lost,
        }
        append(
            connection, "lease.broken", actor, lease_before.name, {**state_before, "reason": reason, "forced": force}
        )
    return {"lease": lease_before.name, **state_before, "words": lease_before.words}
