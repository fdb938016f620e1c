"""Wordings of a version's tasks, completed: versions of earlier releases know the instructions of rows alone."""

from dataclasses import replace

from components.grouping.pool import GroupTask, Pool
from components.storage.objects import ObjectStore
from components.tasks.snapshot import load_snapshot
from components.tasks.task_file import Task


def wordings_of(task: Task) -> tuple[str, ...]:
    """The ways to ask for a task besides the instructions of its rows: its description, and its owner's wordings."""
    return tuple(dict.fromkeys((task.description, *task.wordings)))


def with_wordings(store: ObjectStore, pool: Pool) -> Pool:
    """The pool with the wordings of all tasks whose object is still there; those that have some keep them."""

    def complete(entry: GroupTask) -> GroupTask:
        if entry.wordings or not store.exists(entry.task):
            return entry
        return replace(entry, wordings=wordings_of(load_snapshot(store, entry.task).task))

    groups = [replace(group, tasks=tuple(map(complete, group.tasks))) for group in pool.groups]
    return replace(pool, groups=tuple(groups))
