"""The queue: allowed moves only, each with its log entry, the same package once."""

import pytest

from components.audit import log
from components.audit.log import Actor
from components.storage import leases
from components.storage.database import Database
from components.tasks import queue, turns
from components.tasks.queue import MOVES, QueueError, TaskVersionTaken

SITE = Actor("site", assured=False)


@pytest.fixture
def db(database: Database) -> Database:
    return database


def put(connection, package: str, name: str = "news", version: str = "1", **more) -> queue.QueueItem:
    values = {"assistant": "a", "owner": "team", "submitted_by": SITE, **more}
    return queue.submit(connection, package=package * 64, name=name, version=version, **values)


def test_the_same_package_or_snapshot_is_recognised(db):
    with db.begin() as connection:
        first = put(connection, "1", task="t" * 64)
        assert (first.state, first.known, first.submitted_by) == ("submitted", False, "site")
        again = put(connection, "1")
        other_format = put(connection, "2", task="t" * 64)
        elsewhere = put(connection, "1", assistant="b")
        assert (again.id, again.known) == (first.id, True)
        assert (other_format.id, other_format.known) == (first.id, True)
        assert elsewhere.id != first.id
        assert [entry.action for entry in log.entries(connection)] == ["task.submitted"] * 2


def test_another_content_needs_another_version(db):
    with db.begin() as connection:
        first = put(connection, "1")
        with pytest.raises(TaskVersionTaken, match="new `version`"):
            put(connection, "2")
        put(connection, "3", version="2")
        queue.move(connection, None, first.id, "refused", "0 rows")
        assert put(connection, "2").state == "submitted"


def test_every_move_outside_the_table_is_refused(db):
    with db.begin() as connection:
        count = 0
        for before, allowed in MOVES.items():
            for after in MOVES:
                count += 1
                item = queue.submit(
                    connection,
                    assistant="a",
                    package=f"{count:064d}",
                    name=f"n{count}",
                    version="1",
                    owner="o",
                    submitted_by=SITE,
                )
                for step in path_to(before):
                    item = queue.move(connection, None, item.id, step, "on the way")
                if after in allowed or after == before:
                    assert queue.move(connection, None, item.id, after, "why").state == after
                else:
                    with pytest.raises(QueueError, match=r"can't become"):
                        queue.move(connection, None, item.id, after, "why")
        with pytest.raises(QueueError):
            queue.move(connection, None, item.id, "nowhere", "why")
        with pytest.raises(QueueError, match="no item"):
            queue.item(connection, 10**6)


def path_to(state: str) -> list[str]:
    """Shortest chain of moves from `submitted`."""
    paths = {"submitted": []}
    while state not in paths:
        for known in list(paths):
            for after in MOVES[known]:
                paths.setdefault(after, [*paths[known], after])
    return paths[state]


def test_moves_carry_their_findings_and_are_logged(db):
    with db.begin() as connection:
        item = put(connection, "1")
        queue.move(connection, None, item.id, "assessing", "claimed", task="t" * 64)
        queue.move(connection, None, item.id, "assessing", "claimed", reports={"drift": "d" * 64})
        found = queue.move(
            connection, None, item.id, "learning", "new group", reports={"data": "e" * 64}, launched_by="bob"
        )
        assert (found.task, found.attempts, found.launched_by) == ("t" * 64, 1, "bob")
        assert found.reports == {"drift": "d" * 64, "data": "e" * 64}
        with pytest.raises(QueueError, match="altered"):
            queue.move(connection, None, item.id, "failed", "x", task="u" * 64)
        assert [entry.action for entry in log.entries(connection)] == [
            "task.submitted",
            "task.assessing",
            "task.learning",
        ]
        counts = queue.counts(connection, "a")
        assert counts["learning"] == 1
        assert set(counts) == set(MOVES)
        assert found.to_json()["attempts"] == 1


def test_a_held_task_goes_on_with_what_a_person_decided(db):
    with db.begin() as connection:
        item = put(connection, "1")
        with pytest.raises(QueueError, match="expected one that is held"):
            queue.answer(connection, item.id, "held", {"released": True}, actor=SITE, reason="looks right")
        for state in ("assessing", "held"):
            queue.move(connection, None, item.id, state, "odd")
        queue.answer(connection, item.id, "held", {"released": True}, actor=SITE, reason="looks right")
        for state in ("assessing", "held"):
            queue.move(connection, None, item.id, state, "between two groups")
        found = queue.answer(connection, item.id, "held", {"placed": "g2"}, actor=SITE, reason="same subject")
        assert (found.state, found.answers, found.reason) == (
            "submitted",
            {"released": True, "placed": "g2"},
            "same subject",
        )
        last = log.entries(connection)[-1]
        assert (last.actor.name, last.details["answers"]) == ("site", {"placed": "g2"})


def upcoming(connection):
    """Numbers of the items that a worker has something to do for, in order."""
    return [item.id for item in turns.in_turn(queue.items(connection, "a", queue.OPEN), {})]


def test_interrupted_work_comes_first_and_fencing_holds(db):
    lease = leases.acquire(db, "lineage:a", "w1", 60)
    with db.begin() as connection:
        assert upcoming(connection) == []
        first, second = put(connection, "1", name="one"), put(connection, "2", name="two")
        assert upcoming(connection) == [first.id, second.id]
        queue.move(connection, lease, second.id, "assessing", "claimed")
        assert upcoming(connection) == [second.id, first.id]
        queue.move(connection, lease, second.id, "held", "extreme drift")
        assert upcoming(connection) == [first.id]
        assert [item.id for item in queue.items(connection, "a", ("held",))] == [second.id]
    assert lease is not None
    leases.release(db, lease)
    with pytest.raises(leases.StaleLease), db.begin() as connection:
        queue.move(connection, lease, first.id, "assessing", "claimed")
