"""Limits on what a site's tasks may cost in a month, and the turns that `lcia status` shows."""

from small_loop import OPS, SITE, SmallLoop, standing, write_package

from lcia.cli.text.status import status as status_text
from lcia.operations import status, tasks, turns
from lcia.worker import loop as worker

PRICED = ("prices.cpu_hour=3600", "train.longest=1")
"""A second of a core costs 1."""


def test_a_task_beyond_its_sites_limit_is_held_with_the_figures(champion: SmallLoop) -> None:
    owner = str(standing(champion.open(), 1)["owner"])
    instance = champion.open(*PRICED, f'prices.month_limits={{"{owner}": 0.5}}')
    item = tasks.submit(instance, write_package(champion.packages, "booking_slot", owner=owner), SITE).id
    worker.work(instance, SITE, print, item)
    held = standing(instance, item)
    assert held["state"] == "held"
    assert str(held["reason"]).startswith(f"{owner} has spent ")
    assert "of 0.50 EUR this month" in str(held["reason"])
    tasks.release(instance, OPS, item, "worth it")
    worker.work(instance, SITE, print, item)
    assert standing(instance, item)["state"] == "candidate"


def test_status_says_whose_turn_it_is(fourth: SmallLoop) -> None:
    instance = fourth.open("train.longest=1")
    other = write_package(fourth.packages, "negate_sentence")
    third = write_package(fourth.packages, "grammar_check")
    first, second = (tasks.submit(instance, package, SITE).id for package in (other, third))
    turns.prioritise(instance, OPS, second, 5, "it is urgent")
    shown = status.status(instance)
    text = status_text(shown)
    places = {one["id"]: one["turn"] for one in shown["queue"]["items"] if one["turn"]}
    assert {item: turn["place"] for item, turn in places.items()} == {second: 1, first: 2}
    assert places[first]["seconds"] > 0
    assert f"task {first} negate_sentence@1: submitted; waits for its turn (1 before it, in about " in text
    turns.pause(instance, OPS, second, "wait")
    assert [one.id for one in turns.waiting_order(instance)] == [first]
    turns.resume(instance, OPS, second)
    assert [one.id for one in turns.waiting_order(instance)] == [second, first]
