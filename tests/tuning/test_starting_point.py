"""What a tuning run reads of the version it learns on names its result, and nothing else of that version does."""

from dataclasses import replace
from pathlib import Path

from components.grouping.pool import Group, GroupTask, Pool
from components.settings import Settings
from components.storage.objects import ObjectStore
from components.tasks.snapshot import Snapshot, SplitRef
from components.tasks.task_file import Task
from components.tuning.starting_point import adapters_read, starting_point

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def pool(kept: str | None = None) -> Pool:
    old = GroupTask(B, "old", ("Say it.",), kept)
    return Pool("x", C, groups=(Group("g1", A, None, (old,)), Group("g2", B, None, (replace(old, task=C, name="o"),))))


def snapshot(store: ObjectStore, *, unlabelled: bool = False) -> Snapshot:
    task = Task.model_construct(name="new", version="1")
    return Snapshot(A, task, {}, store, SplitRef(B, 5) if unlabelled else None)


def facts(store: ObjectStore, pool: Pool, group: str | None, parent: str = A, **options: bool) -> dict:
    settings = Settings.model_validate({"tuning": {"pseudo_labels": {"share": 0.2 if options else 0.0}}})
    return starting_point(store, settings, snapshot(store, **options), pool, group, (), parent)


def test_another_group_and_another_version_do_not_matter(tmp_path: Path) -> None:
    store, before = ObjectStore(f"file://{tmp_path}"), pool()
    after = replace(before, groups=(before.groups[0], replace(before.groups[1], adapter=C)))
    assert facts(store, before, "g1", A) == facts(store, after, "g1", B)
    assert facts(store, before, "g2") != facts(store, after, "g2")
    moved = replace(before, groups=(replace(before.groups[0], id="g7"),))
    assert facts(store, before, "g1") == facts(store, moved, "g7"), "the number of a group is a name"


def test_what_is_kept_and_not_replaced_matters(tmp_path: Path) -> None:
    store = ObjectStore(f"file://{tmp_path}")
    rows = store.put_lines([{"id": "1"}])
    assert facts(store, pool(rows), "g1") != facts(store, pool(), "g1")
    other = starting_point(store, Settings(), snapshot(store), pool(), "g1", ("old",), A)
    assert other != facts(store, pool(), "g1")
    store.erase(rows, "asked to")
    assert facts(store, pool(rows), "g1") == facts(store, pool(), "g1"), "erased rows are not rehearsed"


def test_labels_by_the_champion_read_the_whole_version(tmp_path: Path) -> None:
    store = ObjectStore(f"file://{tmp_path}")
    assert facts(store, pool(), None, A) == facts(store, pool(), None, B)
    assert facts(store, pool(), None, A, unlabelled=True) != facts(store, pool(), None, B, unlabelled=True)
    assert adapters_read(Settings(), snapshot(store), pool(), "g1") == [A]
    assert adapters_read(Settings(), snapshot(store), pool(), None) == []
