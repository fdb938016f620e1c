"""Retention and withdrawal on a small real instance: what goes, what stays, and what works afterwards."""

import json
import os
import shutil
import sqlite3
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import traces
from small_loop import OPS, TASKS, Learnt, SmallLoop, learn, promote, write_package

from components.audit.keys import read_public_key
from components.audit.verify import verify_export
from components.retention.rules import snapshots, to_erase
from components.retention.sweep import Books
from components.retention.withdrawal import TaskUnknown, WithdrawalRefused
from components.storage.objects import ObjectErased
from components.storage.reach import Index
from components.tasks.snapshot import load_snapshot
from lcia.cli.text import retention as retention_text
from lcia.inference import ask
from lcia.instance import Instance
from lcia.lineage import LineageBusy, hold_lineage
from lcia.operations import audit, decisions, diff, figures, flips, retention, status, tasks, versions

MOVIE, PRODUCT, PASSIVE = TASKS
NO_GRACE = "retention.grace_hours=0"
REFUSE = "retention.withdrawn_adapters=refuse"


def test_looking_changes_nothing(learnt: Learnt) -> None:
    instance = learnt.loop.open(NO_GRACE)
    before = _stored(instance), status.status(instance)
    found = retention.look(instance)
    assert (_stored(instance), status.status(instance)) == before
    assert found["dropped"]["objects"] > 0
    assert found["kept"]["objects"] + found["erased"]["objects"] + found["dropped"]["objects"] == len(before[0])
    assert "`lcia sweep` deletes it" in retention_text.retention(found)


def test_after_a_sweep_everything_works_and_a_second_finds_nothing(own: SmallLoop, learnt: Learnt) -> None:
    instance = own.open(NO_GRACE)
    told = retention.look(instance)
    swept = retention.clean(instance, OPS)
    assert swept["going"] == told["going"]
    assert _stored(instance) == {one["digest"] for one in told["staying"]}
    again = retention.clean(instance, OPS)
    assert not again["going"]
    assert again["results"] == again["leftovers"]["files"] == 0
    assert audit.verify(instance).ok
    assert flips.look(instance, "2", OPS)
    for number in ("1", "2", "3"):
        assert ask.ask(instance, "Turn the sentence into passive voice.", "She read it.", number, base=False)
        assert versions.show(instance, number)["evidence"]
    decisions.rollback(instance, "1", OPS, "tried")
    assert instance.champion().digest == learnt.digests[0]
    decisions.approve(instance, "3", OPS, "and forward again")
    assert instance.champion().digest == learnt.digests[2]
    assert ask.reevaluate(instance, None)["ok"]
    assert learn(instance, write_package(own.packages / "more", PRODUCT, first=40, version="2"))["state"] == "candidate"


def test_what_nothing_refers_to_stays_for_the_grace_period(own: SmallLoop) -> None:
    instance = own.open("retention.grace_hours=1")
    digest = instance.store.put(b"of a run that has just begun")
    assert digest not in {one["digest"] for one in retention.clean(instance, OPS)["going"]}
    path = own.home / "objects" / "sha256" / digest[:2] / digest
    os.utime(path, (time.time() - 7200,) * 2)
    instance.store.put(b"of a run that has just begun")
    assert digest not in {one["digest"] for one in retention.clean(instance, OPS)["going"]}, (
        "stored again is as good as new"
    )
    os.utime(path, (time.time() - 7200,) * 2)
    assert digest in {one["digest"] for one in retention.clean(instance, OPS)["going"]}
    assert not instance.store.exists(digest)


def test_nothing_is_swept_or_withdrawn_while_a_worker_is_at_work(own: SmallLoop) -> None:
    instance = own.open(NO_GRACE)
    before = _stored(instance)
    with hold_lineage(instance.db, instance.assistant, "worker"):
        with pytest.raises(LineageBusy, match="is at work"):
            retention.clean(instance, OPS)
        with pytest.raises(LineageBusy, match="is at work"):
            retention.withdraw(instance, MOVIE, OPS, "no licence")
    assert _stored(instance) == before
    assert status.status(instance)["queue"]["withdrawn"] == 0


def test_a_withdrawn_task_leaves_no_trace_where_versions_are_given_up(own: SmallLoop) -> None:
    wanted = _only_of(own, PASSIVE)
    instance = own.open(REFUSE)
    assert {Path(name).parts[0] for name in traces.search(own.home, wanted)} >= {
        "objects",
        "mlflow-artifacts",
        "zenml",
    }, "before, the search finds it in every store"
    with pytest.raises(WithdrawalRefused, match="lcia rollback 2"):
        retention.withdraw(instance, PASSIVE, OPS, "no licence")
    decisions.rollback(instance, "2", OPS, "its rows go")
    said = retention.withdraw(instance, PASSIVE, OPS, "no licence")
    assert (said["tuned"], said["stay"], said["not_compacted"], said["registry_untold"]) == ([3], [], [], [])
    assert sorted(traces.search(own.home, wanted)) == []
    assert audit.verify(own.open()).ok
    with pytest.raises(Exception, match="erased"):
        decisions.rollback(instance, "3", OPS, "can't")
    assert ask.reevaluate(instance, None)["ok"]


def test_a_version_that_stays_keeps_the_instructions_alone(own: SmallLoop) -> None:
    instance = own.open()
    said = retention.withdraw(instance, f"{MOVIE}@1", OPS, "no licence")
    assert said["stay"] == [1, 2, 3]
    assert "marked" in retention_text.withdrawal(said)
    found = traces.search(own.home, _only_of(own, MOVIE))
    instructions = traces.shingles(row["instruction"] for row in _rows(own, MOVIE))
    assert set().union(*found.values()) <= instructions
    manifests = {c["digest"] for c in status.status(instance)["candidates"]}
    assessed = {versions.show(instance, "1")["evidence"]["assessment"]}
    assert {Path(name).name for name in found} == manifests | assessed | {"manifest.json"}
    marks = {tuple(c["marks"][-1:]) for c in status.status(instance)["candidates"]}
    assert marks == {("tuned on rows of movie_sentiment@1, withdrawn since",)}


def test_the_next_task_is_learnt_without_the_withdrawn_rows(own: SmallLoop) -> None:
    instance = own.open()
    retention.withdraw(instance, MOVIE, OPS, "no licence")
    for number in ("1", "2", "3"):
        assert figures.matrix(instance, number)["matrix"][0][0] is None
    assert versions.show(instance, "2")["matrix"]["matrix"][1] == [
        None,
        figures.matrix(instance, "2")["matrix"][1][1],
    ]
    assert next(task["anchor"] for task in tasks.tasks(instance)["tasks"]) is None
    assert diff.diff(instance, "1", "3")
    assert not [flip for flip in flips.look(instance, "3", OPS)[1].rows if flip.task == MOVIE]
    assert ask.reevaluate(instance, None)["tasks"] == 2
    learn(instance, write_package(own.packages / "more", PRODUCT, first=50, version="2"))
    rules = {row["task"]: row["rule"] for row in versions.show(instance, "4")["gate"]["rows"] if row["task"]}
    assert rules[MOVIE] == "not measurable"
    assert promote(instance) == instance.champion().digest
    assert status.status(instance)["registry"]["pending"] == 0
    assert audit.verify(instance).ok


def test_the_tombstone_is_signed_and_its_head_verifies_elsewhere(own: SmallLoop, tmp_path: Path) -> None:
    instance = own.open()
    said = retention.withdraw(instance, "1", OPS, "no licence")
    export = tmp_path / "log.jsonl"
    audit.export(instance, export)
    key = read_public_key(own.home / "keys" / "audit-key.pub.pem")
    assert verify_export(export, key, Path(said["head"])).ok
    [entry] = audit.entries(instance, kind="task.withdrawn")["entries"]
    assert (entry["actor"]["name"], entry["subject"]) == ("ops", "movie_sentiment@1")
    assert entry["details"]["answers"] == {"versions": [1, 2, 3], "withdrawn": "keep"}
    lines = export.read_bytes().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if b"task.withdrawn" in line)
    export.write_bytes(b"".join(lines[:at]))
    assert not verify_export(export, key, Path(said["head"])).ok, "without the tombstone the log is cut short"


def test_withdrawing_again_finishes_what_a_crash_left(own: SmallLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = own.open()
    erase, count = type(instance.store).erase, 0

    def dies(store: Any, digest: str, why: str | None) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        erase(store, digest, why)

    with monkeypatch.context() as patched:
        patched.setattr(type(instance.store), "erase", dies)
        with pytest.raises(KeyboardInterrupt):
            retention.withdraw(instance, MOVIE, OPS, "no licence")
    said = retention.withdraw(own.open(), MOVIE, OPS, "no licence")
    assert said["known"]
    with instance.db.read() as connection:
        from components.tasks.queue import item

        first = item(connection, 1)
    index = Index.of(instance.store)
    rows = {split["object"] for task in snapshots(index, first).values() for split in task["splits"].values()}
    for digest in rows:
        with pytest.raises(ObjectErased, match="withdrawn"):
            instance.store.get(digest)
    assert set().union(*traces.search(own.home, _only_of(own, MOVIE)).values()) <= traces.shingles(
        row["instruction"] for row in _rows(own, MOVIE)
    )


def test_rows_stay_as_their_owner_says(own: SmallLoop) -> None:
    instance = own.open(NO_GRACE)
    until = "2099-12-31"
    learn(instance, write_package(own.packages / "a", "booking_slot", retention={"train_rows": 8, "until": until}))
    promote(instance)
    learn(instance, write_package(own.packages / "b", "grammar_check", retention={"evaluation_rows": False}))
    promote(instance)
    retention.clean(instance, OPS)
    pool = instance.pool(instance.champion().digest)
    slot, grammar = (next(e for e in pool.tasks() if e.name == name) for name in ("booking_slot", "grammar_check"))
    here = {
        name: [
            split
            for split, ref in load_snapshot(instance.store, entry.task).splits.items()
            if _has(instance, ref.object)
        ]
        for name, entry in (("slot", slot), ("grammar", grammar))
    }
    assert here == {"slot": ["validation", "test"], "grammar": []}
    assert len(instance.store.get_lines(slot.kept_rows)) == 8
    assert grammar.kept_rows is None
    assert not [why for why in _going(instance, date(2099, 12, 31)).values() if "booking_slot" in why]
    over = _going(instance, date(2100, 1, 1))
    gone = {ref.object for split, ref in load_snapshot(instance.store, slot.task).splits.items() if split != "train"}
    assert {*gone, slot.kept_rows} <= over.keys()
    assert over[slot.kept_rows] == f"rows of booking_slot@1: retention.until {until} has passed"
    record = learn(instance, write_package(own.packages / "c", PRODUCT, first=40, version="2"))
    assert record["state"] == "candidate"
    evaluation = instance.store.get_json(instance.evidence(instance.version("6"))["evaluation"])
    assert evaluation["not_measurable"] == ["grammar_check"]
    assert "booking_slot" in evaluation["predictions"]


def test_a_sweep_killed_anywhere_is_finished_by_the_next(
    own: SmallLoop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = own.copy(tmp_path / "other")
    retention.clean(own.open(NO_GRACE), OPS)
    left = _stored(own.open(NO_GRACE))
    instance = other.open(NO_GRACE)
    erase, calls, deadly = type(instance.store).erase, 0, {1, 4, 9}

    def dies(store: Any, digest: str, why: str | None) -> None:
        nonlocal calls
        calls += 1
        if calls in deadly:
            raise KeyboardInterrupt
        erase(store, digest, why)

    with monkeypatch.context() as patched:
        patched.setattr(type(instance.store), "erase", dies)
        for _ in deadly:
            with pytest.raises(KeyboardInterrupt):
                retention.clean(instance, OPS)
            assert audit.verify(instance).ok
        retention.clean(instance, OPS)
    assert _stored(instance) == left
    assert not retention.look(instance)["going"]


def test_a_task_that_is_not_there_is_named(own: SmallLoop) -> None:
    with pytest.raises(TaskUnknown, match="no task of assistant"):
        retention.withdraw(own.open(), "nothing", OPS, "no licence")


def _has(instance: Instance, digest: str) -> bool:
    return instance.store.exists(digest)


def _going(instance: Instance, today: date) -> dict[str, str]:
    """What may not be kept on a day, and why."""
    with instance.db.read() as connection:
        books = Books.read(connection)
    return to_erase(Index.of(instance.store), books.items, books.versions, today)


def _rows(loop: SmallLoop, name: str) -> list[dict[str, str]]:
    files = sorted(loop.package(name).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def _only_of(loop: SmallLoop, name: str) -> set[bytes]:
    """Shingles of a task's rows that no other task has, nor its own description, which is no row."""
    texts = {each: [value for row in _rows(loop, each) for value in row.values() if value] for each in TASKS}
    header = (loop.package(name) / "task.yaml").read_text(encoding="utf-8")
    wanted = traces.shingles(texts.pop(name), [*[text for rows in texts.values() for text in rows], header])
    assert len(wanted) > 500
    return wanted


def _stored(instance: Instance) -> set[str]:
    return {file.name for file in instance.store.objects()}


def test_what_of_the_quarantine_could_not_be_erased_is_said(own: SmallLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = own.open(NO_GRACE, "retention.quarantine_days=0")
    theirs = own.home.parent / "theirs"
    theirs.mkdir()
    (theirs / "rows.jsonl").write_text("theirs")
    folder = own.home / "quarantine"
    folder.mkdir(exist_ok=True)
    (folder / "old").symlink_to(theirs)
    assert retention.clean(instance, OPS)["exit_code"] == 0
    assert not (folder / "old").is_symlink()
    assert (theirs / "rows.jsonl").exists()

    (folder / "report").mkdir()
    remove = shutil.rmtree

    def refuse(path: Path, **options: Any) -> None:
        if "quarantine" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    swept = retention.clean(instance, OPS)
    assert (swept["exit_code"], swept["quarantine"]) == (1, 0)
    assert "quarantine/report can't be deleted" in retention_text.retention(swept)
    said = retention.withdraw(instance, PASSIVE, OPS, "no licence")
    assert said["exit_code"] == 1
    assert "every checkpoint and quarantine report" not in retention_text.withdrawal(said)
    assert "quarantine can't be deleted" in retention_text.withdrawal(said)


def test_a_damaged_database_of_zenml_stops_nothing_else(own: SmallLoop) -> None:
    database = own.home / "zenml" / "local_stores" / "default_zen_store" / "zenml.db"
    whole = database.read_bytes()
    database.write_bytes(os.urandom(len(whole)))
    instance = own.open(REFUSE)
    decisions.rollback(instance, "2", OPS, "its rows go")
    said = retention.withdraw(instance, PASSIVE, OPS, "no licence")
    assert said["exit_code"] == 1
    assert any("what ZenML keeps of its runs" in line for line in said["still_there"])
    assert said["registry_untold"] == []
    assert said["not_compacted"] == [str(database)]
    assert "it is damaged" in said["why_not_compacted"][str(database)]
    assert Path(said["head"]).exists()

    database.write_bytes(whole)
    said = retention.withdraw(own.open(REFUSE), PASSIVE, OPS, "no licence")
    assert (said["still_there"], said["zenml_runs"], said["exit_code"]) == ([], 2, 0)


def test_a_full_disk_is_no_other_program(own: SmallLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if statement == "VACUUM":
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            return super().execute(statement, *values)

    instance = own.open(REFUSE)
    decisions.rollback(instance, "2", OPS, "its rows go")
    connect = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(retention.sqlite3, "connect", lambda *a, **o: connect(*a, **o, factory=Full))
        left = retention._compact(instance)
    assert set(left) == {
        str(own.home / "lcia.db"),
        str(own.home / "mlflow.db"),
        str(retention.zenml_places.database(own.home)),
    }
    assert all("the disk is full" in why for why in left.values())
    with monkeypatch.context() as patch:
        patch.setattr(retention, "_compact", lambda _: left)
        said = retention.withdraw(instance, PASSIVE, OPS, "no licence")
    assert said["exit_code"] == 1
    assert "another program" not in retention_text.withdrawal(said)
