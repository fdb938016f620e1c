"""The starting point of a tuning run: all that it reads of the version it learns on.

Two versions that agree on it give the same tuning, whatever else they hold. So a task that was tuned on a version which
people then passed over need not be tuned again, as long as its own group is what it was.
"""

from collections.abc import Collection
from typing import Any

from components.grouping.pool import GroupTask, Pool
from components.settings import Settings
from components.storage.objects import Json, ObjectStore
from components.tasks.snapshot import Snapshot


def starting_point(
    store: ObjectStore,
    settings: Settings,
    snapshot: Snapshot,
    pool: Pool,
    group_id: str | None,
    leave_out: Collection[str],
    parent: str | None,
) -> dict[str, Json]:
    """Plain facts for a key: equal ones mean equal tuning.

    `leave_out`: names of tasks that others replace, as `tune_task` takes them. `parent` is the version's digest: it
    matters as a whole where the champion answers unlabelled rows.
    """
    facts: dict[str, Any] = {"opens": group_id is None}
    if labels_rows(settings, snapshot):
        facts["labelled by"] = parent
    if group_id is not None:
        group = pool.group(group_id)
        standing = [entry for entry in group.tasks if entry.name not in leave_out]
        facts |= {"adapter": group.adapter, "curvature": group.curvature}
        facts["tasks"] = [_task(store, entry) for entry in standing]
    return facts


def adapters_read(settings: Settings, snapshot: Snapshot, pool: Pool, group_id: str | None) -> list[str]:
    """Adapters that a tuning run loads."""
    groups = pool.groups if labels_rows(settings, snapshot) else [pool.group(group_id)] if group_id else []
    return [group.adapter for group in groups]


def labels_rows(settings: Settings, snapshot: Snapshot) -> bool:
    """True if unlabelled rows of the task get labels, for which the whole version is read."""
    return settings.tuning.pseudo_labels.share > 0 and snapshot.unlabelled_split is not None


def _task(store: ObjectStore, entry: GroupTask) -> dict[str, Json]:
    """The parts of an earlier task that are rehearsed or recalled; rows that were erased since are not."""
    rows = {"rows": entry.kept_rows, "questions": entry.kept_questions}
    return {
        "task": entry.task,
        "instructions": list(entry.instructions),
        "has_inputs": entry.has_inputs,
        **{name: digest for name, digest in rows.items() if digest and store.why_erased(digest) is None},
    }
