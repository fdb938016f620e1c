"""The train: tasks are learnt on versions that wait for people, and carried over where people pass one over."""

from typing import Any

import pytest
from small_loop import OPS, SITE, TRAIN, SmallLoop

from components.evaluation.scored import scored_rows
from components.promotion import candidates
from components.promotion.candidates import Candidate
from components.promotion.carry_over import carry_over
from components.tasks import queue
from lcia.cli.text import versions as texts_of_versions
from lcia.instance import Instance
from lcia.operations import audit, decisions, status, tasks, versions
from lcia.worker import loop as worker

BOOKING, NEGATE = TRAIN


def submit(loop: SmallLoop, instance: Instance, *names: str) -> list[int]:
    """Put packages into the queue and let the worker do what it can; their items."""
    items = [tasks.submit(instance, loop.package(name), SITE).id for name in names]
    worker.work(instance, SITE, print)
    return items


def version(instance: Instance, item: int) -> Candidate:
    """The newest version of a queue item."""
    with instance.db.read() as connection:
        mine = [one for one in candidates.versions(connection, instance.assistant) if one.item == item]
    return max(mine, key=lambda one: one.number)


def tuned(instance: Instance, candidate: Candidate) -> str:
    """The digest of a version's tuning record."""
    return str(instance.evidence(candidate)["tuning"])


def answers(instance: Instance, candidate: Candidate) -> dict[str, list[dict[str, Any]]]:
    """By task a version's test rows."""
    evaluation = instance.store.get_json(str(instance.evidence(candidate)["evaluation"]))
    return {name: scored_rows(instance.store, digest) for name, digest in evaluation["predictions"].items()}


def texts(rows: list[dict[str, Any]]) -> list[str]:
    """The answers alone."""
    return [row["text"] for row in rows]


def test_each_task_is_learnt_on_the_one_before_and_they_are_promoted_in_order(train: SmallLoop) -> None:
    instance = train.open()
    first, second, champion = instance.version("4"), instance.version("5"), instance.champion()
    assert first is not None
    assert second is not None
    assert champion is not None
    assert [first.parent, second.parent] == [champion.digest, first.digest]
    later = decisions.approve(instance, "5", OPS, "read")
    assert (later["epoch"], later["behind"]) == (None, 4)
    assert decisions.approve(instance, "4", OPS, "read")["followers"] == [5]
    assert audit.verify(instance).ok
    champion = instance.champion()
    assert champion is not None
    assert champion.digest == second.digest


def test_what_people_reject_takes_nothing_with_it_but_what_was_learnt_on_its_group(train: SmallLoop) -> None:
    instance = train.open()
    [again] = submit(train, instance, "more/booking_slot")
    second, third = instance.version("5"), version(instance, again)
    assert second is not None
    assert second.item is not None
    assert third.parent == second.digest
    decisions.approve(instance, "5", OPS, "read")
    decisions.reject(instance, "4", OPS, "the rows are wrong")
    items = [second.item - 1, second.item, again]
    with instance.db.read() as connection:
        states = [queue.item(connection, item).state for item in items]
    assert states == ["rejected", "submitted", "submitted"]
    assert audit.verify(instance).ok
    worker.work(instance, SITE, print)
    carried, relearnt = (version(instance, item) for item in items[1:])
    champion = instance.champion()
    assert champion is not None
    assert (carried.parent, relearnt.parent) == (champion.digest, carried.digest)
    assert tuned(instance, carried) == tuned(instance, second), "the group is the same, so nothing is tuned again"
    assert tuned(instance, relearnt) != tuned(instance, third), "its group was the rejected version's"
    assert (carried.attempt, relearnt.attempt) == (second.attempt, third.attempt + 1)
    assert instance.evidence(carried)["origin"] == second.evidence
    earlier, now = answers(instance, second), answers(instance, carried)
    assert all(row["from"] for row in now[NEGATE]), "no row is predicted again"
    assert now.keys() == earlier.keys() - {BOOKING}
    assert all(texts(earlier[name]) == texts(rows) for name, rows in now.items())
    comparison = carry_over(instance.store, instance.evidence(carried))
    assert comparison is not None
    assert comparison.nothing_new
    assert comparison.rows == sum(map(len, now.values()))
    shown = texts_of_versions.show(versions.show(instance, str(carried.number)))
    assert f"it carries version {second.number} over (version 4, which it stood on, was rejected)" in shown
    assert "nothing that people read there is new" in shown
    assert decisions.approve(instance, str(carried.number), OPS, "read again")["epoch"] is not None
    assert audit.verify(instance).ok


def test_the_end_is_that_of_learning_one_after_the_other(train: SmallLoop, before_train: SmallLoop) -> None:
    in_train = [one["digest"] for one in status.status(train.open())["candidates"]][-2:]
    instance = before_train.open("train.longest=1")
    submit(before_train, instance, BOOKING, NEGATE)
    items = {one["name"]: one for one in status.status(instance)["queue"]["items"]}
    assert items[NEGATE]["state"] == "waiting"
    assert items[NEGATE]["reason"] == "version 4 (booking_slot@1) waits for people to decide"
    decisions.approve(instance, "4", OPS, "read")
    assert [one.state for one in worker.work(instance, SITE, print)] == ["candidate"]
    assert [one["digest"] for one in status.status(instance)["candidates"]][-2:] == in_train


def test_a_rollback_carries_the_train_over_to_the_version_gone_back_to(train: SmallLoop) -> None:
    instance = train.open()
    earlier = instance.version("4")
    decisions.rollback(instance, "1", OPS, "complaints")
    worker.work(instance, SITE, print)
    first = instance.version("1")
    assert first is not None
    assert earlier is not None
    assert earlier.item is not None
    now = version(instance, earlier.item)
    assert now.parent == first.digest
    assert tuned(instance, now) == tuned(instance, earlier)
    assert audit.verify(instance).ok


def test_a_version_that_the_gate_stands_against_waits_beside_the_train(before_train: SmallLoop) -> None:
    instance = before_train.open(
        "policy.gate.enforce=true", "policy.gate.new_task_margin=0", "policy.gate.min_routing=1.0"
    )
    items = submit(before_train, instance, BOOKING, NEGATE)
    first, second = (version(instance, item) for item in items)
    assert first.verdict != "pass"
    assert second.parent == first.parent


def test_a_task_may_wait_while_its_own_group_is_undecided(train: SmallLoop) -> None:
    instance = train.open("train.same_group=wait")
    [item] = submit(train, instance, "more/booking_slot")
    with instance.db.read() as connection:
        waiting = queue.item(connection, item)
    assert waiting.state == "waiting"
    assert waiting.reason.startswith("version 4 (booking_slot@1) changes the group g2 too")
    assert worker.work(instance, SITE, print) == []
    decisions.approve(instance, "4", OPS, "read")
    assert [one.id for one in worker.work(instance, SITE, print)] == [item]


def test_what_was_learnt_on_a_version_that_is_rejected_meanwhile_goes_on(
    train: SmallLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision falls while a task is being learnt: it is not lost, and not recorded on what people passed over."""
    instance, original = train.open(), worker.with_gate_history

    def rejecting(*arguments: Any, **links: Any) -> Any:
        monkeypatch.setattr(worker, "with_gate_history", original)
        order = original(*arguments, **links)
        decisions.reject(instance, "5", OPS, "the rows are wrong")
        return order

    monkeypatch.setattr(worker, "with_gate_history", rejecting)
    [item] = submit(train, instance, "more/booking_slot")
    fourth = instance.version("4")
    assert fourth is not None
    assert version(instance, item).parent == fourth.digest
    with instance.db.read() as connection:
        assert queue.item(connection, item).state == "candidate"
    assert [one["state"] for one in status.status(instance)["candidates"]][-3:] == ["pending", "rejected", "pending"]
    assert audit.verify(instance).ok
