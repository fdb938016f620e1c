"""The train of undecided versions: what it is made of, what is set aside, and who has to agree."""

from pathlib import Path

import pytest
from promotion_state import BOB, CAROL, State, new_state

from components.promotion import approvals, candidates, champion, train
from components.promotion.champion import NotItsTurn
from components.settings import GateSettings, PolicySettings

GATE, POLICY = GateSettings(), PolicySettings()


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A champion, and three undecided versions on it: one, on that another, and one against which the gate stands."""
    state = new_state(tmp_path)
    first = state.candidate("first", None)
    promote(state, first.digest)
    second = state.candidate("second", first.digest, owner="north")
    state.candidate("third", second.digest, owner="south")
    state.candidate("poor", second.digest, verdict="fail")
    return state


def promote(state: State, version: str) -> None:
    facts = {"assistant": "a", "version": version, "policy": POLICY}
    approvals.approve(state.db, state.store, **facts, actor=BOB, reason="read")
    champion.promote(state.db, state.store, **facts, actor=BOB)


def numbers(versions: list[candidates.Candidate]) -> list[int]:
    return [one.number for one in versions]


def test_a_version_that_the_gate_stands_against_is_not_in_the_train(state: State) -> None:
    with state.db.read() as connection:
        assert numbers(train.members(connection, "a", GATE)) == [2, 3]
        assert train.end(connection, "a", GATE) == candidates.get(connection, "a", 3).digest
        reported = train.members(connection, "a", GateSettings(enforce=False))
        assert numbers(reported) == [2, 4], "where the gate only reports, the newest of two is built on"


def test_a_version_is_promoted_in_its_turn(state: State) -> None:
    facts = {"assistant": "a", "policy": POLICY}
    approvals.approve(state.db, state.store, **facts, version=3, actor=CAROL, reason="read")
    with pytest.raises(NotItsTurn, match="version 3 was made on version 2, which waits for people"):
        champion.promote(state.db, state.store, **facts, version=3, actor=CAROL)
    promote(state, "2")
    assert champion.promote(state.db, state.store, **facts, version=3, actor=CAROL).epoch == 3


def test_who_has_to_agree_is_asked_against_the_version_below(state: State) -> None:
    with state.db.read() as connection:
        assert candidates.sites(connection, candidates.get(connection, "a", 3)) == {"south"}


def test_a_rejection_sets_aside_what_stood_on_it(state: State) -> None:
    approvals.reject(state.db, assistant="a", version=2, actor=BOB, reason="wrong rows")
    with state.db.read() as connection:
        states = {one.number: one.state for one in candidates.versions(connection, "a")}
        assert states == {1: "promoted", 2: "rejected", 3: "superseded", 4: "superseded"}
        assert train.members(connection, "a", GATE) == []


def test_a_version_is_not_recorded_on_one_that_people_passed_over(state: State) -> None:
    with state.db.read() as connection:
        second = candidates.get(connection, "a", 2).digest
    approvals.reject(state.db, assistant="a", version=2, actor=BOB, reason="wrong rows")
    with pytest.raises(candidates.ParentOvertaken, match="people passed over meanwhile"):
        state.candidate("late", second)
