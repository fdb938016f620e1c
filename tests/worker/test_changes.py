"""A task is taken out: its group is as before, what followed is learnt again, everything else is carried on."""

import pytest
from small_loop import OPS, SITE, TASKS, SmallLoop, standing

from components.evaluation.scored import scored_rows
from components.promotion.candidates import Candidate
from components.tasks.reversal import Reversal, ReversalRefused
from components.tasks.wordings import WordingsRefused
from lcia.instance import Instance
from lcia.operations import audit, decisions, figures, reversals, status, versions
from lcia.worker import loop as worker

MOVIE, PRODUCT, PASSIVE = TASKS


def revert(instance: Instance, task: str) -> Candidate:
    """The candidate without a task."""
    item = reversals.revert(instance, SITE, task, "its rows were wrong")
    worker.work(instance, SITE, print)
    assert standing(instance, int(str(item["id"])))["state"] == "candidate"
    made = instance.version("4")
    assert made is not None
    assert made.item == item["id"]
    return made


def texts(instance: Instance, version: Candidate, task: str) -> list[str]:
    """A version's answers to a task's test rows."""
    evaluation = instance.store.get_json(str(instance.evidence(version)["evaluation"]))
    return [row["text"] for row in scored_rows(instance.store, evaluation["predictions"][task])]


def version(instance: Instance, number: str) -> Candidate:
    """A version that is there."""
    found = instance.version(number)
    assert found is not None
    return found


def test_a_task_with_a_group_of_its_own_goes_with_its_group(champion: SmallLoop) -> None:
    instance = champion.open()
    made = revert(instance, PASSIVE)
    pool = instance.pool(made.digest)
    assert [entry.name for entry in pool.tasks()] == [MOVIE, PRODUCT]
    assert [group.id for group in pool.groups] == ["g1"]
    shown = versions.show(instance, "4")
    assert {row["rule"] for row in shown["gate"]["rows"] if row["task"] in TASKS} == {"unchanged"}
    assert shown["version"]["task_name"] == f"{PASSIVE}@1+revert.1"
    assert decisions.approve(instance, "4", OPS, "agreed")["epoch"] is not None
    assert audit.verify(instance).ok
    now = status.status(instance)["champion"]
    assert now["tasks"] == [MOVIE, PRODUCT]
    assert now["served"] == made.digest
    assert figures.matrix(instance)["matrix"][-1][-1] is None, "it is measured no more"
    with pytest.raises(WordingsRefused, match="has learnt no task"):
        reversals.revert(instance, SITE, PASSIVE, "again")


def test_a_group_is_what_it_was_before_its_last_task(champion: SmallLoop) -> None:
    instance = champion.open()
    made, first = revert(instance, PRODUCT), version(instance, "1")
    adapters = {group.id: group.adapter for group in instance.pool(made.digest).groups}
    assert adapters["g1"] == instance.pool(first.digest).group("g1").adapter
    assert adapters["g2"] == instance.pool(version(instance, "3").digest).group("g2").adapter
    evaluation = instance.store.get_json(str(instance.evidence(made)["evaluation"]))
    assert texts(instance, made, MOVIE) == texts(instance, first, MOVIE)
    assert evaluation["predicted"] == 0, "the earlier version's predictions hold again"
    assert decisions.approve(instance, "4", OPS, "agreed")["epoch"] is not None
    assert decisions.rollback(instance, "3", OPS, "it was right after all")["number"] == 3
    assert audit.verify(instance).ok


def test_what_its_group_learnt_after_it_is_learnt_again_without_it(champion: SmallLoop) -> None:
    instance = champion.open()
    made = revert(instance, MOVIE)
    pool = instance.pool(made.digest)
    assert {entry.name for entry in pool.tasks()} == {PRODUCT, PASSIVE}
    evidence = instance.evidence(made)
    assert len(evidence["relearnt"]["links"]) == 1
    assert evidence["parent"] == version(instance, "3").digest
    own = pool.group_of(next(entry.task for entry in pool.tasks() if entry.name == PRODUCT))
    assert own is not None
    assert own.adapter not in {group.adapter for group in instance.pool(version(instance, "3").digest).groups}
    rows = versions.show(instance, "4")["gate"]["rows"]
    assert {row["task"] for row in rows if row["rule"] == "unchanged"} == {PASSIVE}
    assert decisions.approve(instance, "4", OPS, "agreed")["epoch"] is not None
    assert audit.verify(instance).ok
    again = reversals.revert(instance, SITE, PRODUCT, "this one too")
    worker.work(instance, SITE, print)
    assert standing(instance, int(str(again["id"])))["state"] == "candidate"
    assert [entry.name for entry in instance.pool(version(instance, "5").digest).tasks()] == [PASSIVE]


def test_the_only_task_is_not_taken_out(pending: SmallLoop) -> None:
    instance = pending.open()
    decisions.approve(instance, "1", OPS, "read")
    with pytest.raises(ReversalRefused, match="the only task"):
        reversals.revert(instance, SITE, MOVIE, "no more")


def test_a_reversal_says_what_was_before() -> None:
    change = Reversal("a" * 64, "mail@1", 2)
    assert change.version == "1+revert.2"
    assert Reversal.from_json(change.to_json()) == change
    assert change.based_on(None, "b" * 64).before == "b" * 64
