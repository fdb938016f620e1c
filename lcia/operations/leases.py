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
        held = leases.break_lease(connection, lease, force=force)
        stood: dict[str, Json] = {
            "owner": held.owner,
            "silent_seconds": None if held.silent is None else round(held.silent),
            "lost": held.is_lost,
        }
        append(connection, "lease.broken", actor, held.name, {**stood, "reason": reason, "forced": force})
    return {"lease": held.name, **stood, "words": held.words}
