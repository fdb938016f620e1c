"""Order in which a version learnt its tasks, across groups."""

from components.grouping.pool import Pool
from components.storage.objects import ObjectMissing, ObjectStore


def learnt_order(store: ObjectStore, pool: Pool) -> tuple[str, ...]:
    """Names of a pool's tasks, oldest first.

    Versions of earlier releases don't say: there each ancestor's manifest names the task that it learnt. Tasks whose
    version is gone come first, in the order of the pool.
    """
    learnt = pool.router.get("learnt")
    if learnt is not None:
        return tuple(learnt)
    names = {entry.task: entry.name for entry in pool.tasks()}
    newest_first: dict[str, None] = {}
    ancestor: Pool | None = pool
    while ancestor is not None:
        if ancestor.task in names:
            newest_first.setdefault(names[ancestor.task])
        ancestor = _parent(store, ancestor)
    rest = [name for name in names.values() if name not in newest_first]
    return (*rest, *reversed(newest_first))


def _parent(store: ObjectStore, pool: Pool) -> Pool | None:
    """The version before; of one that learnt everything again on another base model, the lesson before."""
    try:
        return Pool.from_manifest(store.get_json(pool.parents[-1])) if pool.parents else None
    except ObjectMissing:
        return None
