"""Whose yes counts where: sites, roles and who may decide no more."""

from datetime import timedelta

import pytest
from promotion_state import BOB, CAROL
from sqlalchemy import update

from components.audit import log
from components.audit.log import SYSTEM, Actor
from components.identity import people, tokens
from components.promotion import approvals, candidates, champion, quorum
from components.promotion.approvals import ApprovalUnknown, FourEyesRefused
from components.promotion.quorum import NotEntitled, QuorumMissing
from components.settings import ApprovalSettings, PolicySettings, SiteApproval
from components.storage import tables
from components.tasks import queue

POLICY = PolicySettings()
NORA, SUE, ALL = (Actor(name, assured=True, how="token 1") for name in ("nora", "sue", "all"))


def yes(state, version, actor, policy=POLICY):
    return approvals.approve(
        state.db, state.store, assistant="a", version=version, actor=actor, reason="read", policy=policy
    )


def promote(state, version, policy=POLICY):
    return champion.promote(
        state.db, state.store, assistant="a", version=version, actor=CAROL, policy=policy, reason="go"
    )


def known(state, name, *grants):
    with state.db.begin() as connection:
        people.add(connection, name, actor=SYSTEM)
        for role, site in grants:
            people.grant(connection, name, role, site, actor=SYSTEM)


@pytest.fixture
def server(state):
    """An approver of the north, one of the south, one of all, and an admin."""
    known(state, "nora", ("approver", "north"))
    known(state, "sue", ("approver", "south"))
    known(state, "all", ("approver", "*"))
    known(state, "ada", ("admin", "*"))
    return state


def two_sites(state):
    """Version 1 learnt a task of the north, version 2 one of the south; both were champions."""
    first = state.candidate("news", None, owner="north")
    yes(state, 1, NORA)
    promote(state, 1)
    second = state.candidate("mail", first.digest, owner="south")
    yes(state, 2, SUE)
    promote(state, 2)
    return first, second


def rebased(state, parent):
    """A version on another base model: it learnt both tasks again and is no single task's."""
    made = state.candidate("all again", parent, owner="north")
    with state.db.begin() as connection:
        queue.move(connection, None, made.item, "cancelled", "none of its own")
        connection.execute(update(tables.candidates).where(tables.candidates.c.digest == made.digest).values(item=None))
    return made


def sites(state, version):
    with state.db.read() as connection:
        return candidates.sites(connection, candidates.get(connection, "a", version))


def test_the_sites_of_a_decision_are_those_whose_tasks_change(server):
    _, second = two_sites(server)
    assert sites(server, 1) == {"south"}, "going back loses its task"
    assert sites(server, 2) == {"*"}, "nothing would change"
    third = server.candidate("poem", second.digest, owner="north")
    assert sites(server, 3) == {"north"}
    rebased(server, second.digest)
    assert sites(server, 4) == {"north", "south"}
    assert third.parent == second.digest


def test_one_sites_approver_does_not_exchange_everybodys_tasks(server):
    _, second = two_sites(server)
    rebased(server, second.digest)
    yes(server, 3, NORA)
    with pytest.raises(QuorumMissing, match=r"0 of 1 approvals that count at south \(nobody\)"):
        promote(server, 3)
    yes(server, 3, SUE)
    assert promote(server, 3).epoch == 3


def test_somebody_for_all_sites_is_enough(server):
    _, second = two_sites(server)
    rebased(server, second.digest)
    yes(server, 3, ALL)
    assert promote(server, 3).epoch == 3


def test_each_site_has_its_own_quorum(server):
    _, second = two_sites(server)
    rebased(server, second.digest)
    policy = PolicySettings(approval=ApprovalSettings(sites={"south": SiteApproval(quorum=2)}))
    yes(server, 3, NORA, policy)
    yes(server, 3, SUE, policy)
    with pytest.raises(QuorumMissing, match=r"1 of 2 approvals that count at south \(sue\)"):
        promote(server, 3, policy)
    yes(server, 3, ALL, policy)
    assert promote(server, 3, policy).epoch == 3


@pytest.mark.parametrize(
    ("actor", "words"),
    [
        (SUE, "may not decide at north"),
        (Actor("ada", assured=True, how="token 1"), "may not decide at north"),
        (Actor("mallory", assured=True, how="token 1"), "nobody of this name is known"),
        (Actor("root", assured=True, how="os-user"), "nobody of this name is known"),
        (Actor("nora", assured=False), "the name was only asserted"),
    ],
    ids=lambda value: value.how if isinstance(value, Actor) else "",
)
def test_where_people_are_known_others_do_not_approve(server, actor, words):
    server.candidate("news", None, owner="north")
    with pytest.raises(NotEntitled, match=words):
        yes(server, 1, actor)


def lost(state, name):
    """Ways to lose the right to decide."""

    def shut_out(connection):
        people.disable(connection, name, actor=SYSTEM, reason="left")

    def role_taken(connection):
        people.withdraw_grant(connection, name, "approver", "north", actor=SYSTEM)

    def other_site(connection):
        role_taken(connection)
        people.grant(connection, name, "approver", "south", actor=SYSTEM)

    return {"shut out": shut_out, "may not decide at north": role_taken, "may not decide at  north": other_site}


@pytest.mark.parametrize("way", [0, 1, 2])
def test_who_may_no_longer_decide_does_not(server, way):
    candidate = server.candidate("news", None, owner="north")
    yes(server, 1, NORA)
    words, do = list(lost(server, "nora").items())[way]
    with server.db.begin() as connection:
        do(connection)
    words = " ".join(words.split())
    with pytest.raises(QuorumMissing, match=f"0 of 1 .*that of nora does not count: {words}"):
        promote(server, 1)
    with server.db.read() as connection:
        weighed = quorum.weigh(connection, candidate, POLICY.approval)
    assert [(one.approval.person, one.why_not) for one in weighed] == [("nora", words)]


def test_an_approval_of_before_there_were_people_counts_by_its_name_alone(server):
    """An earlier release did not say how somebody was known; roles count all the same."""
    candidate = server.candidate("news", None, owner="north")
    yes(server, 1, NORA)
    with server.db.begin() as connection:
        connection.execute(update(tables.approvals).values(how=None, epoch=None))
        assert len(quorum.valid(connection, candidate, POLICY.approval)) == 1
    assert promote(server, 1).epoch == 1


def test_on_a_machine_of_ones_own_nobody_has_roles(state):
    state.candidate("news", None, owner="north")
    yes(state, 1, Actor("ops", assured=True, how="os-user"))
    assert promote(state, 1).epoch == 1


def test_others_may_take_a_yes_back_and_the_log_says_whose(server):
    candidate = server.candidate("news", None, owner="north")
    given = yes(server, 1, NORA)
    approvals.revoke(server.db, assistant="a", version=1, actor=ALL, reason="she is on leave", person="Nora")
    with pytest.raises(QuorumMissing):
        promote(server, 1)
    with server.db.read() as connection:
        entry = log.entries(connection, subject=candidate.digest)[-1]
    assert (entry.action, entry.actor.name) == ("approval.revoked", "all")
    assert entry.details == {"reason": "she is on leave", "approvals": [given.id], "person": "nora"}
    with pytest.raises(ApprovalUnknown, match="nora has no approval"):
        approvals.revoke(server.db, assistant="a", version=1, actor=BOB, reason="again", person="nora")


def test_whoever_made_the_submitters_token_is_no_other_pair_of_eyes(server):
    """An admin who approves too could submit as the program whose token they made."""
    known(server, "site", ("submitter", "*"))
    known(server, "max", ("approver", "*"), ("admin", "*"))
    server.candidate("news", None, owner="north")
    max_ = Actor("max", assured=True, how="signed in at https://idp")
    with server.db.begin() as connection:
        tokens.create(connection, "site", "nightly", timedelta(days=1), actor=max_)
    with pytest.raises(FourEyesRefused, match="made a token of"):
        yes(server, 1, max_)
    yes(server, 1, ALL)
