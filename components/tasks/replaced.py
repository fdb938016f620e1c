"""Tasks that later ones replace: nothing protects or rehearses them, and what both have in common goes to the newer.

A package says so with `supersedes` in task.yaml, which counts if both tasks have one owner; otherwise a person has to
declare it, or a site could take another's task out of the gate. See docs/decisions/0016 and 0038.
"""

import contextlib
from collections.abc import Iterable, Mapping

from components.grouping.pool import Pool
from components.storage.objects import ObjectMissing, ObjectStore
from components.tasks.snapshot import load_snapshot
from components.tasks.task_file import Task


def replaced_tasks(
    store: ObjectStore, pool: Pool, declarations: Mapping[str, str], learning: Task | None = None
) -> dict[str, str]:
    """Names in the pool of replaced tasks -> `name@version` of what replaces them.

    `learning` is a task that the pool doesn't have yet: it may replace one, too. `declarations` are those of people.
    """
    tasks = {}
    for entry in pool.tasks():
        with contextlib.suppress(ObjectMissing):  # withdrawn
            tasks[entry.name] = load_snapshot(store, entry.task).task
    labels = replacements([*tasks.values(), *([learning] if learning else [])], declarations)
    return {name: labels[task.label] for name, task in tasks.items() if task.label in labels}


def replacements(tasks: Iterable[Task], declarations: Mapping[str, str]) -> dict[str, str]:
    """`name@version` of every replaced task -> that of its replacement; both have to be among `tasks`."""
    by_label = {task.label: task for task in tasks}
    successors = {old: new for old, new in declarations.items() if old in by_label and new in by_label}
    for task in by_label.values():
        old = by_label.get(task.supersedes or "")
        if old is not None and old.owner == task.owner and not reaches(successors, task.label, old.label):
            successors.setdefault(old.label, task.label)
    return successors


def reaches(successors: Mapping[str, str], start: str, end: str) -> bool:
    """True if following replacements from `start` leads to `end`."""
    at: str | None = start
    for _ in range(len(successors) + 1):
        if at == end:
            return True
        at = successors.get(at) if at else None
    return False
