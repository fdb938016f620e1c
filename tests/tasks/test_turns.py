"""The order of waiting tasks: fair between sites, by priority, and what was set aside first."""

from pathlib import Path

import pytest

from components.audit import log
from components.audit.log import Actor
from components.audit.verify import verify_database
from components.storage.database import Database
from components.tasks import queue, turns
from components.tasks.queue import QueueError

ANN = Actor("ann", assured=True, how="console")


@pytest.fixture
def db(tmp_path: Path) -> Database:
    """An empty database."""
    db = Database(f"sqlite:///{tmp_path}/state.db")
    db.migrate()
    return db


def submit(db: Database, *owners: str) -> list[int]:
    """A task of each owner, in order."""
    with db.begin() as connection:
        return [
            queue.submit(
                connection,
                assistant="a",
                package=f"{n}{owner}",
                name=f"task_{n}",
                version="1",
                owner=owner,
                submitted_by=ANN,
            ).id
            for n, owner in enumerate(owners)
        ]


def order(db: Database, learnt: dict[str, int] | None = None, first: tuple[int, ...] = ()) -> list[int]:
    """Numbers of the open items as they are learnt."""
    with db.read() as connection:
        lately = turns.learnt_lately(connection, "a", 7) if learnt is None else learnt
        return [item.id for item in turns.in_turn(queue.items(connection, "a", queue.OPEN), lately, first)]


def test_a_site_with_many_tasks_does_not_make_others_wait_for_all_of_them(db: Database) -> None:
    one, two, three, other = submit(db, "north", "north", "north", "south")
    assert order(db) == [one, other, two, three]
    assert order(db, {"north": 5}) == [other, one, two, three]
    assert order(db, {"south": 2}) == [one, two, three, other]


def test_what_a_site_had_learnt_lately_counts(db: Database) -> None:
    first, *_, south = submit(db, "north", "north", "south")
    with db.begin() as connection:
        for state in ("assessing", "learning", "candidate"):
            queue.move(connection, None, first, state, "test")
    assert order(db)[0] == south
    with db.read() as connection:
        assert turns.learnt_lately(connection, "a", 7) == {"north": 1}
        assert turns.learnt_lately(connection, "a", 1e-9) == {}


def test_interrupted_work_and_what_was_set_aside_come_first(db: Database) -> None:
    one, two, three = submit(db, "north", "south", "south")
    with db.begin() as connection:
        queue.move(connection, None, three, "assessing", "test")
    assert order(db, first=(two,)) == [three, two, one]


def test_a_priority_comes_before_the_share_and_is_in_the_log(db: Database) -> None:
    one, two = submit(db, "north", "north")
    with db.begin() as connection:
        item = turns.give_priority(connection, two, 3, ANN, "the campaign starts")
    assert turns.priority_of(item) == 3
    assert order(db) == [two, one]
    with db.read() as connection:
        entry = next(iter(log.newest(connection, ["task.prioritised"])))
        assert verify_database(connection).ok, "the log explains the item as before"
    assert (entry.actor.name, entry.details["reason"], entry.details["priority"]) == ("ann", "the campaign starts", 3)
    assert item.decisions == {}, "learning does not depend on it"


def test_a_paused_task_waits_until_it_is_resumed(db: Database) -> None:
    one, two = submit(db, "north", "north")
    with db.begin() as connection:
        held = turns.pause(connection, one, ANN, "rows are checked")
        assert (held.state, held.reason) == ("held", "paused by ann: rows are checked")
        with pytest.raises(QueueError, match="lcia resume"):
            turns.need_not_paused(connection, one)
        with pytest.raises(QueueError, match="not paused"):
            turns.resume(connection, two, ANN)
    assert order(db) == [two]
    with db.begin() as connection:
        turns.resume(connection, one, ANN)
    assert order(db) == [one, two]


def test_only_what_waits_has_a_turn(db: Database) -> None:
    [one] = submit(db, "north")
    with db.begin() as connection:
        queue.move(connection, None, one, "cancelled", "test")
    for deed in (
        lambda c: turns.give_priority(c, one, 1, ANN, "r"),
        lambda c: turns.pause(c, one, ANN, "r"),
    ):
        with db.begin() as connection, pytest.raises(QueueError, match="cancelled"):
            deed(connection)
