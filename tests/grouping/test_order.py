"""Order in which tasks were learnt, of versions that say it and of those that don't."""

from dataclasses import replace

from components.grouping.order import learnt_order
from components.grouping.pool import GroupTask, Pool
from components.storage.objects import ObjectStore


def _versions(store: ObjectStore) -> list[Pool]:
    """g1 learns first and third, g2 second; no version says in which order."""
    pool, parent, versions = Pool.empty("assistant", "b" * 64), None, []
    for number, group in enumerate((None, None, "g1"), 1):
        entry = GroupTask(str(number) * 64, f"task{number}", (f"do {number}",))
        pool = pool.with_task(
            entry, group=group, adapter="a" * 64, curvature=None, parent=parent, config="c" * 64, router={}
        )
        parent = store.put_json(pool.to_manifest())
        versions.append(pool)
    return versions


def test_ancestors_say_it_where_the_version_does_not(store: ObjectStore) -> None:
    newest = _versions(store)[-1]
    assert [entry.name for entry in newest.tasks()] == ["task1", "task3", "task2"]
    assert learnt_order(store, newest) == ("task1", "task2", "task3")


def test_a_version_that_says_it_is_believed(store: ObjectStore) -> None:
    newest = replace(_versions(store)[-1], router={"learnt": ["task3", "task1", "task2"]})
    assert learnt_order(store, newest) == ("task3", "task1", "task2")


def test_tasks_of_versions_that_are_gone_come_first(store: ObjectStore) -> None:
    newest = replace(_versions(store)[-1], parents=("0" * 64,))
    assert learnt_order(store, newest) == ("task1", "task2", "task3")
    assert learnt_order(store, Pool.empty("assistant", "b" * 64)) == ()
