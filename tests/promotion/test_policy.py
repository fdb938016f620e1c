"""What policy asks for besides a plain yes: sites, roles, overrides, and what may go without a person."""

import pytest
from promotion_state import BOB, CAROL

from components.audit import log
from components.audit.log import SYSTEM, Actor
from components.errors import GateRefused
from components.identity import people
from components.promotion import approvals, champion, quorum
from components.promotion.approvals import NotLowRisk, OverrideRefused
from components.promotion.quorum import QuorumMissing
from components.settings import ApprovalSettings, GateSettings, PolicySettings, SiteApproval, load_settings

DAVE = Actor("dave", assured=True, how="console")


def policy(**approval) -> PolicySettings:
    return PolicySettings(approval=ApprovalSettings(**approval))


def approve(state, actor, chosen, **more):
    return approvals.approve(
        state.db, state.store, assistant="a", version=1, actor=actor, reason="seen", policy=chosen, **more
    )


def promote(state, chosen, *, automatic=False):
    return champion.promote(
        state.db,
        state.store,
        assistant="a",
        version=1,
        actor=SYSTEM if automatic else CAROL,
        policy=chosen,
        reason="go",
        automatic=automatic,
    )


def with_roles(state, **roles):
    with state.db.begin() as connection:
        for name, given in roles.items():
            people.add(connection, name, actor=SYSTEM)
            for role, site in given:
                people.grant(connection, name, role, site, actor=SYSTEM)


@pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
def test_two_people_may_override_the_gate_and_that_stays_visible(state, verdict):
    candidate = state.candidate("news", None, verdict=verdict)
    chosen = policy()
    with pytest.raises(GateRefused, match="--override"):
        approve(state, BOB, chosen)
    with pytest.raises(GateRefused):
        promote(state, chosen)
    first = approve(state, BOB, chosen, override=True)
    assert approve(state, BOB, chosen, override=True) == first
    with pytest.raises(QuorumMissing, match=r"1 of 2 approvals .*--override"):
        promote(state, chosen)
    approve(state, CAROL, chosen, override=True)
    made = promote(state, chosen)
    assert f"gate {verdict} overridden" in made.marks
    with state.db.read() as connection:
        entries = log.entries(connection, subject=candidate.digest)
        assert [entry.action for entry in entries].count("gate.overridden") == 2
        told = next(entry for entry in entries if entry.action == "champion.promoted")
    assert told.details["override"] is True
    assert [given["person"] for given in told.details["approvals"]] == ["bob", "carol"]


def test_there_must_be_something_to_override(state):
    state.candidate("news", None)
    with pytest.raises(OverrideRefused, match="without --override"):
        approve(state, BOB, policy(), override=True)


def test_an_override_counts_for_nothing_else(state):
    """Given while the gate was enforced, it is no plain yes once it is not."""
    candidate = state.candidate("news", None, verdict="fail")
    approve(state, BOB, policy(), override=True)
    open_gate = PolicySettings(gate=GateSettings(enforce=False))
    with state.db.read() as connection:
        assert quorum.valid(connection, candidate, open_gate.approval) == []
    with pytest.raises(QuorumMissing, match="0 of 1"):
        promote(state, open_gate)


def test_fewer_than_two_cannot_override_whatever_the_quorum(tmp_path):
    with pytest.raises(Exception, match="override_quorum"):
        load_settings(None, ["policy.approval.override_quorum=1"], {}, tmp_path)


def test_a_site_may_ask_for_more_people(state):
    state.candidate("news", None)  # of the site `team`
    chosen = policy(sites={"team": SiteApproval(quorum=2), "other": SiteApproval(quorum=5)})
    approve(state, BOB, chosen)
    with pytest.raises(QuorumMissing, match="1 of 2"):
        promote(state, chosen)
    approve(state, CAROL, chosen)
    assert promote(state, chosen).epoch == 1


def test_a_required_role_must_be_among_those_who_said_yes(state):
    state.candidate("news", None)
    with_roles(state, bob=[("approver", "*")], carol=[("approver", "*"), ("engineer", "south")], dave=[])
    chosen = policy(required_roles=("engineer",))
    approve(state, BOB, chosen)
    approve(state, CAROL, chosen)
    with pytest.raises(QuorumMissing, match="wants the role engineer among them at team"):
        promote(state, chosen)
    with_roles(state, dave=[("approver", "team"), ("engineer", "team")])
    approve(state, DAVE, chosen)
    assert promote(state, chosen).epoch == 1


def test_roles_of_somebody_shut_out_count_no_more(state):
    state.candidate("news", None)
    with_roles(state, eve=[("admin", "*")], bob=[("approver", "*"), ("engineer", "*")])
    chosen = policy(required_roles=("engineer",))
    approve(state, BOB, chosen)
    with state.db.begin() as connection:
        people.disable(connection, "bob", actor=SYSTEM, reason="left")
    with pytest.raises(QuorumMissing, match="that of bob does not count: shut out"):
        promote(state, chosen)


@pytest.mark.parametrize(
    ("rule", "verdict"), [("step", "pass"), ("lifetime", "pass"), ("superseded", "info"), ("not measurable", "info")]
)
def test_only_what_changed_nothing_goes_without_a_person(state, rule, verdict):
    state.candidate("news", None, rows=[{"rule": rule, "task": "mail", "verdict": verdict, "words": "as it is"}])
    with pytest.raises(NotLowRisk, match=r"predictions of mail changed or are not measurable.*auto_if"):
        promote(state, policy(auto=True), automatic=True)
    assert promote(state, policy(auto=True, auto_if="pass"), automatic=True).marks == ["automatic approval"]


def test_an_unchanged_one_does(state):
    state.candidate("news", None, rows=[{"rule": "unchanged", "task": "mail", "verdict": "pass", "words": "by proof"}])
    assert promote(state, policy(auto=True), automatic=True).kind == "promotion"
