"""Going back is for one person, at once; going forward to what was rolled away from is a promotion."""

import pytest
from promotion_state import BOB, CAROL, SITE

from components.audit import log
from components.audit.log import SYSTEM, Actor
from components.promotion import approvals, candidates, champion
from components.promotion.approvals import EvidenceVoid, FourEyesRefused
from components.promotion.candidates import NotPending
from components.promotion.champion import RollbackRefused
from components.promotion.quorum import QuorumMissing
from components.settings import ApprovalSettings, PolicySettings

POLICY = PolicySettings()
LENA = Actor("lena", assured=True, how="console")


def yes(state, version, actor=BOB):
    return approvals.approve(
        state.db, state.store, assistant="a", version=version, actor=actor, reason="read", policy=POLICY
    )


def promote(state, version, actor=CAROL, policy=POLICY):
    return champion.promote(
        state.db, state.store, assistant="a", version=version, actor=actor, policy=policy, reason="go"
    )


def back(state, version, actor=BOB):
    return champion.rollback(state.db, state.store, assistant="a", version=version, actor=actor, reason="harm")


@pytest.fixture
def rolled(state):
    """Three champions, one made on the other; then back to the first."""
    parent = None
    for number, name in enumerate(("news", "mail", "poem"), start=1):
        parent = state.candidate(name, parent).digest
        yes(state, number)
        promote(state, number)
    back(state, 1)
    return state


def test_one_person_goes_back_however_far(rolled):
    with rolled.db.read() as connection:
        assert champion.current(connection, "a").epoch == 4


@pytest.mark.parametrize("version", [2, 3])
def test_the_submitter_cannot_bring_the_harmful_version_back(rolled, version):
    for who in (SITE, LENA, BOB):
        with pytest.raises(RollbackRefused, match=f"not made on it.*lcia approve {version}"):
            back(rolled, version, who)
    with pytest.raises(FourEyesRefused):
        yes(rolled, version, LENA)
    with pytest.raises(QuorumMissing, match="that of bob does not count: given before the champion was moved"):
        promote(rolled, version, LENA)


def test_new_approvals_on_whole_evidence_bring_it_back(rolled):
    yes(rolled, 3, CAROL)
    made = promote(rolled, 3)
    assert (made.kind, made.epoch) == ("promotion", 5)
    assert "returned to" in made.marks
    with rolled.db.read() as connection:
        entry = log.entries(connection)[-1]
        assert (entry.action, entry.details["returned"]) == ("champion.promoted", True)
        assert [one["person"] for one in entry.details["approvals"]] == ["carol"]
        assert candidates.get(connection, "a", 3).state == "promoted"
    assert back(rolled, 2).epoch == 6, "it was made on that one"


def test_damaged_evidence_is_no_way_back(rolled):
    with rolled.db.read() as connection:
        evidence = rolled.store.get_json(candidates.get(connection, "a", 3).evidence)
    yes(rolled, 3, CAROL)
    rolled.damage(evidence["evaluation"])
    with pytest.raises(EvidenceVoid):
        promote(rolled, 3)


def test_an_approval_of_another_epoch_counts_no_more(rolled):
    yes(rolled, 3, CAROL)
    yes(rolled, 2, BOB)
    promote(rolled, 2)
    with pytest.raises(QuorumMissing, match="given before the champion was moved"):
        promote(rolled, 3)


def test_the_present_policy_asks_for_its_quorum(rolled):
    yes(rolled, 3, CAROL)
    two = PolicySettings(approval=ApprovalSettings(quorum=2))
    with pytest.raises(QuorumMissing, match="1 of 2"):
        promote(rolled, 3, policy=two)
    yes(rolled, 3, BOB)
    assert promote(rolled, 3, policy=two).epoch == 5


def test_an_approval_of_it_can_be_taken_back(rolled):
    yes(rolled, 3, BOB)  # again: he said yes before it was rolled away from, too
    approvals.revoke(rolled.db, assistant="a", version=3, actor=BOB, reason="no")
    with pytest.raises(QuorumMissing, match="0 of 1"):
        promote(rolled, 3)


def test_nothing_of_it_goes_without_people(rolled):
    auto = PolicySettings(approval=ApprovalSettings(auto=True, auto_if="pass"))
    with pytest.raises(NotPending):
        champion.promote(rolled.db, rolled.store, assistant="a", version=3, actor=SYSTEM, policy=auto, automatic=True)


def test_the_champion_and_what_it_was_made_on_take_no_approvals(rolled):
    with pytest.raises(NotPending):
        yes(rolled, 1, CAROL)
    yes(rolled, 3, CAROL)
    promote(rolled, 3)
    with pytest.raises(NotPending):
        yes(rolled, 2, CAROL)
