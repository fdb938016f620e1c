"""Wordings of tasks: in task.yaml, in the snapshot, and in versions that earlier releases made."""

import json

import pytest

from components.grouping.pool import GroupTask, Pool
from components.grouping.router import Router, extend
from components.settings import GroupingSettings
from components.storage.objects import ObjectStore
from components.tasks.package import read_package
from components.tasks.problems import PackageError
from components.tasks.snapshot import load_snapshot, take_snapshot
from components.tasks.wordings import with_wordings, wordings_of

WORDINGS = ["How did they like it?", "thumbs up or down?"]


def test_task_yaml_takes_wordings_and_the_snapshot_keeps_them(tmp_path, make_package):
    store = ObjectStore(f"file://{tmp_path / 'objects'}")
    plain = take_snapshot(read_package(make_package("plain")), store)
    worded = take_snapshot(read_package(make_package("worded", {"wordings": WORDINGS})), store)
    assert load_snapshot(store, worded.digest).task.wordings == tuple(WORDINGS)
    assert wordings_of(worded.task) == (worded.task.description, *WORDINGS)
    assert worded.digest != plain.digest
    assert "wordings" not in store.get_json(plain.digest)  # digests of earlier releases stand


@pytest.mark.parametrize(
    ("wordings", "what"), [("just a text", "wordings"), ([""], "empty text"), (["a" * 1001], "1000"), ([7], "string")]
)
def test_wordings_that_are_none_are_refused(make_package, wordings, what):
    with pytest.raises(PackageError, match=what):
        read_package(make_package(header={"wordings": wordings}))


def test_versions_without_wordings_get_the_descriptions_with_the_next_task(tmp_path, make_package):
    store = ObjectStore(f"file://{tmp_path / 'objects'}")
    snapshot = take_snapshot(read_package(make_package()), store)
    settings = GroupingSettings()
    entry = GroupTask(snapshot.digest, snapshot.task.name, snapshot.instructions())
    erased = GroupTask("e" * 64, "erased", ("Sort the words.",))
    pool = Pool.empty("assistant", "b" * 64)
    for one in (entry, erased):
        pool = extend(
            pool, one, group=None, adapter="f" * 64, curvature=None, parent=None, config="c" * 64, settings=settings
        )
    old = Pool.from_manifest(json.loads(json.dumps(pool.to_manifest())))
    complete = with_wordings(store, old)
    assert [entry.wordings for entry in complete.tasks()] == [(snapshot.task.description,), ()]
    assert with_wordings(store, complete) == complete
    assert not Router.of(old).route(snapshot.task.description).exact
