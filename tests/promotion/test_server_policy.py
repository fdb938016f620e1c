"""A server's policy: one admin proposes, another accepts, and the log says what changed."""

import pytest
from promotion_state import BOB, CAROL

from components.audit import log
from components.audit.verify import verify_database
from components.promotion import policy
from components.promotion.policy import PolicyRefused
from components.promotion.reasons import ReasonMissing
from components.settings import ApprovalSettings, PolicySettings

FIRST = PolicySettings(approval=ApprovalSettings(quorum=2))
CHANGE = {"gate": {"step_margin": 0.05}}


@pytest.fixture
def server(state):
    with state.db.begin() as connection:
        policy.install(connection, "a", FIRST, actor=BOB)
    return state


def propose(state, changes=CHANGE, actor=BOB, reason="tighter"):
    with state.db.begin() as connection:
        return policy.propose(connection, "a", changes, actor=actor, reason=reason)


def accept(state, identity, actor=CAROL):
    with state.db.begin() as connection:
        return policy.accept(connection, "a", identity, actor=actor, reason="agreed")


def in_force(state):
    with state.db.read() as connection:
        return policy.in_force(connection, "a")


def test_without_a_server_policy_there_is_none_to_change(state):
    assert in_force(state) is None
    with pytest.raises(PolicyRefused, match="section `policy`"):
        propose(state)


def test_it_is_installed_once(server):
    with server.db.begin() as connection:
        policy.install(connection, "a", PolicySettings(), actor=CAROL)
    assert in_force(server).settings == FIRST


def test_two_people_change_it_and_only_what_was_asked(server):
    made = propose(server)
    assert (made.state, in_force(server).settings) == ("open", FIRST)
    assert accept(server, made.id).state == "accepted"
    now = in_force(server).settings
    assert (now.gate.step_margin, now.approval.quorum) == (0.05, 2)
    with server.db.read() as connection:
        told = log.entries(connection)[-1]
        assert (told.action, told.actor.name, told.details["changed"]) == (
            "policy.accepted",
            "carol",
            ["gate.step_margin"],
        )
        assert verify_database(connection).ok


def test_nobody_accepts_his_own(server):
    made = propose(server)
    with pytest.raises(PolicyRefused, match="another admin has to"):
        accept(server, made.id, BOB)
    assert in_force(server).settings == FIRST


def test_a_proposal_overtaken_by_another_is_not_accepted_unseen(server):
    first, second = propose(server), propose(server, {"approval": {"quorum": 3}})
    accept(server, second.id)
    with pytest.raises(PolicyRefused, match="propose it again"):
        accept(server, first.id)
    assert in_force(server).settings.approval.quorum == 3


def test_refused_and_unknown_ones_stay_so(server):
    made = propose(server)
    with server.db.begin() as connection:
        assert policy.refuse(connection, "a", made.id, actor=BOB, reason="mistake").state == "refused"
    for identity, words in ((made.id, "is refused already"), (99, "no policy 99")):
        with pytest.raises(PolicyRefused, match=words):
            accept(server, identity)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gate": {"step_margin": 7}}, r"policy\.gate\.step_margin"),
        ({"gate": {"margin": 0.1}}, r"policy\.gate\.margin"),
        ({"gate": 3}, r"policy\.gate"),
        ({}, "changes nothing"),
        ({"approval": {"quorum": 2}}, "changes nothing"),
    ],
)
def test_what_cannot_be_is_refused(server, changes, words):
    with pytest.raises(PolicyRefused, match=words):
        propose(server, changes)


def test_a_change_needs_a_reason(server):
    with pytest.raises(ReasonMissing):
        propose(server, reason=" ")


def test_sites_can_be_added(server):
    made = propose(server, {"approval": {"sites": {"north": {"quorum": 3}}}})
    accept(server, made.id)
    assert in_force(server).settings.approval.sites["north"].quorum == 3
    assert [each.state for each in _listed(server)] == ["accepted", "accepted"]


def _listed(state):
    with state.db.read() as connection:
        return policy.proposals(connection, "a")
