"""`lcia status`: champion, queue, candidates, log and MLflow at a glance."""

from typing import Any

from components.audit import log
from components.promotion import candidates, champion, policy
from components.registry.outbox import backlog
from components.tasks import queue
from lcia.instance import Instance
from lcia.operations import delivery, relocation
from lcia.operations.versions import _in_order, _of_pending


def status(instance: Instance) -> dict[str, Any]:
    """Champion, queue, candidates and log, as `docs/json.md` describes."""
    with instance.db.read() as connection:
        now = champion.current(connection, instance.assistant)
        decided = champion.lineage(connection, instance.assistant)
        items = queue.items(connection, instance.assistant)
        counts = queue.counts(connection, instance.assistant)
        found = candidates.versions(connection, instance.assistant)
        head = log.head(connection)
        waiting = backlog(connection, instance.assistant)
        rules = policy.standing(connection, instance.assistant, instance.settings.policy)
        void = {one.digest: _of_pending(connection, one, rules) for one in found if one.state == "pending"}
    shown = None
    if now is not None:
        version = next(c for c in found if c.digest == now.version)
        pool = instance.pool(now.version)
        shown = {
            "version": version.number,
            "digest": now.version,
            "epoch": now.epoch,
            "served": delivery.seen_served(instance, now),
            "groups": [{"id": g.id, "tasks": [t.name for t in g.tasks], "adapter": g.adapter} for g in pool.groups],
            "tasks": [entry.name for entry in _in_order(instance, version)],
            "marks": decided[-1].marks,
        }
    return {
        "assistant": instance.assistant,
        "champion": shown,
        "queue": {**counts, "items": [item.to_json() for item in items]},
        "candidates": [{**one.to_json(), "not_counted": void.get(one.digest, [])} for one in found],
        "audit": {"entries": head.entries, "head": head.root},
        "registry": {
            "pending": len(waiting),
            "parked": [row.to_json() for row in waiting if row.parked_at is not None],
            "moved": relocation.moved(instance),
            "empty": shown is not None and relocation.mlflow_empty(instance),
            "links": relocation.links(instance.home, instance.settings),
        },
    }
