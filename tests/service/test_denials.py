"""The log can't be filled: denials are counted, and again and again is once."""

import pytest

from components.audit import log
from components.audit.log import Actor
from components.identity.access import Forbidden
from lcia.service.denials import WINDOW, Denials

EVE = Actor("eve", assured=True, how="token")


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def entered(db) -> list[tuple[str, str, int | None]]:
    with db.read() as connection:
        return [(one.actor.name, one.details["permission"], one.details.get("more")) for one in log.entries(connection)]


def many_denials(found: Denials, db, number: int, actor: Actor = EVE, permission: str = "decide") -> None:
    for count in range(number):
        found.add(db, actor, ("approve", "reject")[count % 2], permission, Forbidden("no role"))


def test_a_thousand_denials_are_two_entries(database, clock):
    found = Denials(clock)
    many_denials(found, database, 1000)
    assert entered(database) == [("eve", "decide", None)]
    clock.seconds = WINDOW - 1
    found.close()
    assert len(entered(database)) == 1
    clock.seconds = WINDOW
    found.close()
    found.close()
    assert entered(database) == [("eve", "decide", None), ("eve", "decide", 999)]
    many_denials(found, database, 2)
    assert entered(database)[2:] == [("eve", "decide", None)]


def test_each_person_and_permission_is_told(database, clock):
    found = Denials(clock)
    many_denials(found, database, 3)
    many_denials(found, database, 1, permission="audit")
    many_denials(found, database, 1, Actor("bob", assured=True, how="token"))
    found.close(everything=True)
    assert entered(database) == [
        ("eve", "decide", None),
        ("eve", "audit", None),
        ("bob", "decide", None),
        ("eve", "decide", 2),
    ]


def test_windows_that_stay_open_are_bounded(database, clock, monkeypatch):
    monkeypatch.setattr("lcia.service.denials.MOST", 2)
    found = Denials(clock)
    for number in range(5):
        many_denials(found, database, 2, Actor(f"p{number}", assured=True, how="token"))
    assert len(found._open) <= 3
    found.close(everything=True)
    assert sum(more or 1 for _, _, more in entered(database)) == 10
