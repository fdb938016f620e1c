import json

import pytest

from components.grouping.pool import GroupTask, Pool, PoolError, distinct_instructions

BASE, CONFIG, PARENT, FOLDER = "b" * 64, "c" * 64, "e" * 64, "f" * 64


def task(digit: str, *instructions: str) -> GroupTask:
    return GroupTask(digit * 64, f"task{digit}", instructions or (f"Do {digit}.",), "a" * 64)


def learn(pool: Pool, entry: GroupTask, group: str | None) -> Pool:
    return pool.with_task(
        entry, group=group, adapter=FOLDER, curvature=None, parent=PARENT, config=CONFIG, router={"x": 1}
    )


def test_manifest_round_trip_and_shape():
    pool = learn(learn(Pool.empty("assistant", BASE), task("1"), None), task("2"), None)
    manifest = json.loads(json.dumps(pool.to_manifest()))
    assert Pool.from_manifest(manifest) == pool
    assert manifest["kind"] == "pool"
    assert manifest["parents"] == [PARENT]
    assert manifest["task"] == "2" * 64
    assert [group["id"] for group in manifest["groups"]] == ["g1", "g2"]
    assert manifest["groups"][0]["tasks"][0] == {
        "task": "1" * 64, "name": "task1", "instructions": ["Do 1."], "kept_rows": "a" * 64,
    }  # fmt: skip
    assert Pool.from_manifest(Pool.empty("assistant", BASE).to_manifest()) == Pool.empty("assistant", BASE)


def test_with_task_changes_one_group_and_leaves_the_old_pool_alone():
    first = learn(Pool.empty("assistant", BASE), task("1"), None)
    grown = first.with_task(
        task("2"), group="g1", adapter="9" * 64, curvature="8" * 64, parent=PARENT, config=CONFIG, router={},
        overrides=["tuning.ema.rule", "grouping.rule", "grouping.rule"],
    )  # fmt: skip
    assert len(first.groups[0].tasks) == 1
    assert grown.groups[0].adapter == "9" * 64
    assert [entry.name for entry in grown.tasks()] == ["task1", "task2"]
    assert grown.group_of("2" * 64) is grown.group("g1")
    assert grown.group_of("3" * 64) is None
    assert grown.overrides == ("grouping.rule", "tuning.ema.rule")


def test_what_does_not_hold_together_is_refused():
    first = learn(Pool.empty("assistant", BASE), task("1"), None)
    with pytest.raises(PoolError, match="occurs twice"):
        learn(first, task("1"), None)
    with pytest.raises(PoolError, match="no group 'g7'"):
        learn(first, task("2"), "g7")
    with pytest.raises(PoolError, match="sha256"):
        GroupTask("short", "task", ("Do.",))
    with pytest.raises(PoolError, match="at least one"):
        task("1", "Do.", "Do.")
    with pytest.raises(PoolError, match="schema"):
        Pool.from_manifest({**first.to_manifest(), "schema": 2})
    with pytest.raises(PoolError, match="expected the keys"):
        Pool.from_manifest({**first.to_manifest(), "note": ""})


def test_distinct_instructions_do_not_depend_on_row_order():
    assert distinct_instructions(["b", "a", "b"]) == distinct_instructions(["a", "b"]) == ("a", "b")
