"""A change of wordings: a candidate without training, routed again in full, gated, approved, carried on, taken back."""

import json
from pathlib import Path

import pytest
from small_loop import OPS, SITE, TASKS, SmallLoop, learn, promote, standing, write_package

from components.audit.log import Actor
from components.names import version_deed
from components.retention import withdrawal
from components.tasks import queue
from components.tasks.wordings import WordingsRefused
from lcia.cli.text import tables
from lcia.instance import Instance
from lcia.operations import (
    audit,
    decisions,
    delivery,
    diff,
    figures,
    retention,
    routing,
    statistics,
    tasks,
    versions,
    wordings,
)
from lcia.operations.params import RouteRequest
from lcia.worker import loop as worker

MOVIE, PRODUCT, PASSIVE = TASKS
NEW = "Thumbs up or thumbs down for this picture?"


def reword(instance: Instance, **change: object) -> int:
    """Change the movie task's wordings and let the worker make a candidate of it; the queue item."""
    item = wordings.change(instance, SITE, MOVIE, **{"add": [NEW], **change})
    worker.work(instance, OPS, print)
    return int(item["id"])


def test_a_change_of_wordings_makes_a_candidate_without_training(champion: SmallLoop, capsys) -> None:
    instance = champion.open()
    before = instance.champion()
    assert before is not None
    assert routing.route(instance, [RouteRequest(instruction=NEW)])["routes"][0]["exact"] is False
    item = reword(instance)
    assert standing(instance, item)["state"] == "candidate"
    candidate = instance.version("4")
    assert candidate is not None
    old, new = instance.pool(before.digest), instance.pool(candidate.digest)
    assert [group.adapter for group in new.groups] == [group.adapter for group in old.groups]
    assert NEW in next(entry for entry in new.tasks() if entry.name == MOVIE).wordings
    shown = versions.show(instance, "4")
    assert shown["tuning"] is None
    assert shown["wordings"]["add"] == [NEW]
    assert shown["predictions"]["made"] == 0
    assert {row["rule"] for row in shown["gate"]["rows"] if row["task"] in TASKS} == {"unchanged"}
    reworded = next(row for row in shown["gate"]["rows"] if row["rule"] == "reworded")
    assert "Of its own" in reworded["words"]
    # nobody approves what they asked for
    with pytest.raises(Exception, match="submitted"):
        decisions.approve(instance, "4", SITE, "my own")
    third = Actor("lead", assured=False, how="asserted")
    assert decisions.approve(instance, "4", third, "read the evidence")["epoch"] is not None
    assert routing.route(instance, [RouteRequest(instruction=NEW)])["routes"][0]["task"] == MOVIE
    assert standing(instance, item)["state"] == "promoted"
    # scores, matrix and statistics are those of three tasks
    matrix = figures.accuracy_matrix(instance)
    assert matrix.tasks == TASKS
    assert figures.scores(instance, candidate.digest) == figures.scores(instance, before.digest)
    assert len(statistics.measure(instance).tasks) == 3
    assert audit.verify_live(instance)["ok"]
    (row,) = diff.diff(instance, "3", "4")["wordings"]
    assert row == {"task": MOVIE, "added": [NEW], "removed": []}
    assert tables.diff(diff.diff(instance, "3", "4")).count(f"new wording of {MOVIE}: {NEW}") == 1
    assert f"changes the wordings of {MOVIE}@1" in tables.lineage(versions.lineage(instance))
    # MLflow has it as every version
    assert delivery.standing(instance, candidate.digest)["registry_untold"] == []
    assert version_deed(f"{MOVIE}@1") == f"learnt {MOVIE}@1"


def test_a_task_learnt_afterwards_keeps_the_wording_and_rollback_takes_it_away(champion: SmallLoop, tmp_path) -> None:
    instance = champion.open()
    item = reword(instance)
    decisions.approve(instance, "4", Actor("lead", assured=False, how="asserted"), "fine")
    learn(instance, write_package(tmp_path, "booking_slot"))
    promote(instance)
    assert routing.route(instance, [RouteRequest(instruction=NEW)])["routes"][0]["task"] == MOVIE
    assert figures.accuracy_matrix(instance).tasks == (*TASKS, "booking_slot")
    decisions.rollback(instance, "3", OPS, "as it was")
    assert routing.route(instance, [RouteRequest(instruction=NEW)])["routes"][0]["exact"] is False
    # the same change is another one, and gets a number of its own
    again = wordings.change(instance, SITE, MOVIE, add=[NEW])
    assert again["id"] != item
    assert again["version"].endswith("+wordings.2")


def test_a_wording_is_taken_away_again_and_needless_changes_are_refused(champion: SmallLoop) -> None:
    instance = champion.open()
    entry = wordings.need_task(instance, MOVIE).entry
    for change, words in (
        ({"add": []}, "adds nothing"),
        ({"add": [entry.instructions[0]]}, "already"),
        ({"add": [], "remove": [entry.instructions[0]]}, "an instruction of its rows"),
        ({"add": [], "remove": ["never heard"]}, "not among its wordings"),
        ({"add": [], "remove": list(entry.wordings)}, "without any wording"),
        ({"add": ["  "]}, "0 characters"),
    ):
        with pytest.raises(WordingsRefused, match=words):
            reword(instance, **change)
    taken = wordings.need_task(instance, PASSIVE).entry.instructions[0]
    with pytest.raises(WordingsRefused, match="a way to ask for passive_voice@1 already"):
        reword(instance, add=[f"  {taken} "])
    with pytest.raises(WordingsRefused, match="no task 'poetry'"):
        wordings.change(instance, SITE, "poetry", add=["Write a poem"])
    reword(instance, remove=list(entry.wordings))
    decisions.approve(instance, "4", Actor("lead", assured=False, how="asserted"), "fine")
    assert wordings.need_task(instance, MOVIE).entry.wordings == (NEW,)


def test_the_version_names_the_settings_its_adapters_were_learnt_by(champion: SmallLoop) -> None:
    instance = champion.open("tuning.learning_rate=0.5", "grouping.margin=0.07")
    reword(instance)
    before, after = instance.champion(), instance.version("4")
    configs = [instance.store.get_json(instance.pool(one.digest).config) for one in (before, after)]
    assert configs[1]["tuning"] == configs[0]["tuning"]
    assert configs[1]["grouping"]["margin"] == 0.07
    assert set(after.marks) - set(before.marks) == {"changed grouping.margin"}
    assert set(before.marks) <= set(after.marks)


def test_it_waits_while_another_version_is_undecided(fourth: SmallLoop) -> None:
    instance = fourth.open("train.longest=1")
    item = reword(instance)
    assert standing(instance, item)["state"] == "waiting"
    decisions.approve(instance, "4", OPS, "fine")
    worker.work(instance, OPS, print)
    assert standing(instance, item)["state"] == "candidate"
    assert instance.version("5").parent == instance.champion().digest


def test_withdrawing_the_task_takes_its_changes_along(champion: SmallLoop) -> None:
    instance = champion.open()
    item = reword(instance)
    with instance.db.begin() as connection:
        package = queue.item(connection, item).package
        with pytest.raises(withdrawal.TaskUnknown):
            withdrawal.find(connection, instance.assistant, str(item))
    retention.withdraw(instance, MOVIE, SITE, "asked to")
    assert standing(instance, item)["state"] == "withdrawn"
    assert instance.version("4").state == "rejected"
    assert not instance.store.exists(package)
    left = [path for path in Path(champion.home / "objects").rglob("*") if path.is_file()]
    assert not [path for path in left if NEW.encode() in path.read_bytes()]


def test_proposals_wait_for_people(champion: SmallLoop) -> None:
    instance = champion.open()
    has = wordings.need_task(instance, MOVIE).entry.wordings[0]
    assert wordings.propose(instance, OPS, MOVIE, [NEW, NEW, has, "Is it a flop?"]) == {"task": MOVIE, "new": 2}
    assert wordings.propose(instance, OPS, MOVIE, [NEW])["new"] == 0
    first, second = wordings.wordings(instance, MOVIE)["proposals"]
    assert (first["text"], first["times"], second["text"]) == (NEW, 2, "Is it a flop?")
    assert wordings.answer(instance, SITE, [second["id"]], accept=False)["declined"] == [second["id"]]
    (item,) = wordings.answer(instance, SITE, [first["id"]], accept=True)["items"]
    assert wordings.wordings(instance)["proposals"] == []
    worker.work(instance, OPS, print)
    assert standing(instance, item["id"])["state"] == "candidate"
    # what was decided is not proposed again
    assert wordings.propose(instance, OPS, MOVIE, [NEW, "Is it a flop?"])["new"] == 0
    with pytest.raises(Exception, match="no proposed wording"):
        wordings.answer(instance, SITE, [first["id"]], accept=True)


def test_a_crash_between_run_and_candidate_repeats_nothing(champion: SmallLoop, monkeypatch) -> None:
    instance = champion.open()
    item = wordings.change(instance, SITE, MOVIE, add=[NEW])
    with monkeypatch.context() as patch:
        patch.setattr(worker.Advance, "register", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            worker.work(instance, OPS, print)
    assert standing(instance, item["id"])["state"] == "learning"
    with monkeypatch.context() as patch:
        patch.setattr("infra.runs.run_pipeline", lambda *_: pytest.fail("it ran again"))
        worker.work(instance, OPS, print)
    assert standing(instance, item["id"])["state"] == "candidate"


def test_tasks_lists_the_change_and_retry_brings_it_back(champion: SmallLoop) -> None:
    instance = champion.open()
    item = reword(instance)
    decisions.reject(instance, "4", OPS, "not now")
    assert next(row for row in tasks.tasks(instance)["tasks"] if row["id"] == item)["state"] == "rejected"
    tasks.retry(instance, SITE, item)
    worker.work(instance, OPS, print)
    assert instance.version("4").state == "pending"
    json.dumps(versions.show(instance, "4"))
