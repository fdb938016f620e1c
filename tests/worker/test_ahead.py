"""Tuning ahead of a task's turn: nothing but results is left behind, and the versions are those of one worker alone."""

import multiprocessing

from small_loop import OPS, SITE, TRAIN, SmallLoop, write_package

from components.storage import leases
from components.tasks import queue
from lcia.operations import audit, status, tasks
from lcia.worker import loop as worker
from lcia.worker.ahead import tune_ahead
from lcia.worker.runs import ahead_lease


def submit(loop: SmallLoop, *names: str) -> list[int]:
    """Put packages into the queue; their items."""
    instance = loop.open()
    return [tasks.submit(instance, loop.package(name), SITE).id for name in names]


def versions(loop: SmallLoop) -> list[str]:
    """Digests of the two newest versions."""
    return [one["digest"] for one in status.status(loop.open())["candidates"]][-2:]


def test_what_was_tuned_ahead_is_found_in_its_turn(before_train: SmallLoop, train: SmallLoop) -> None:
    items, said = submit(before_train, *TRAIN), list[str]()
    instance = before_train.open()
    assert tune_ahead(instance, OPS, said.append) == items
    with instance.db.read() as connection:
        assert [queue.item(connection, item).state for item in items] == ["submitted", "submitted"]
    assert tune_ahead(instance, OPS, said.append) == [], "both are tuned"
    worker.work(instance, SITE, said.append)
    assert versions(before_train) == versions(train)
    assert audit.verify(instance).ok


def test_a_task_whose_group_another_one_changes_first_waits_for_its_turn(before_train: SmallLoop) -> None:
    first, second, third = submit(before_train, TRAIN[0], "more/booking_slot", TRAIN[1])
    assert tune_ahead(before_train.open(), OPS, print) == [first, third]
    write_package(before_train.packages / "again", "movie_sentiment", first=40, version="2")
    [movie] = submit(before_train, "again/movie_sentiment")
    assert tune_ahead(before_train.open(), OPS, print) == [movie], "no task before it changes its group"
    assert second not in (first, third, movie)


def test_a_task_that_another_worker_tunes_is_left_to_it(before_train: SmallLoop) -> None:
    [item] = submit(before_train, TRAIN[0])
    instance = before_train.open()
    with instance.db.read() as connection:
        name = ahead_lease(instance, queue.item(connection, item))
    lease = leases.acquire(instance.db, name, leases.process_owner("ahead"), 60)
    assert tune_ahead(instance, OPS, print) == []
    assert lease is not None
    leases.release(instance.db, lease)


def test_two_workers_side_by_side_make_what_one_makes(before_train: SmallLoop, train: SmallLoop) -> None:
    submit(before_train, *TRAIN)
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=_ahead, args=(before_train,))
    other.start()
    worker.work(before_train.open(), SITE, print)
    other.join(120)
    assert other.exitcode == 0
    assert versions(before_train) == versions(train)
    assert audit.verify(before_train.open()).ok


def _ahead(loop: SmallLoop) -> None:
    tune_ahead(loop.open(), OPS, print)
