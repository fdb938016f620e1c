"""A verdict holds under the policy it was made with; under another one the stored scores are judged again."""

import pytest
from small_loop import OPS

from components.audit import log
from components.audit.log import SYSTEM, Actor
from components.errors import GateRefused
from components.promotion import approvals, candidates, judging, policy
from components.promotion import champion as champions
from components.promotion.quorum import QuorumMissing
from components.settings import ApprovalSettings, GateSettings, PolicySettings
from lcia.operations import decisions, status

OPEN = {"step_margin": 1.0, "lifetime_budget": 1.0, "pooled_margin": 1.0, "min_routing": 0.0, "new_task_margin": 1.0}
ADA, EVE = (Actor(name, assured=True, how="token 1") for name in ("ada", "eve"))


def version(instance, number):
    with instance.db.read() as connection:
        return candidates.get(connection, instance.assistant, number)


def rows(report, rule):
    return [row for row in report if row["rule"] == rule]


@pytest.mark.slow
def test_under_the_same_policy_nothing_is_judged(champion):
    instance = champion.open()
    for number in (1, 2, 3):
        found = judging.present(instance.store, version(instance, number), instance.settings.policy.gate)
        assert (found.verdict, found.again) == (version(instance, number).verdict, None)


@pytest.mark.slow
def test_the_stored_scores_give_the_same_report_again(champion):
    """Judged under a policy that differs in what moves no bound, every row is what the run itself found."""
    instance = champion.open()
    for number in (1, 2, 3):
        candidate = version(instance, number)
        before = instance.store.get_json(instance.evidence(candidate)["gate"])
        gate = instance.settings.policy.gate.model_copy(update={"max_attempts": 50})
        found = judging.present(instance.store, candidate, gate)
        assert found.verdict == candidate.verdict
        kept = [row for row in before["rows"] if row["rule"] not in ("attempts", "cost")]
        assert [row for row in found.again["rows"] if row["rule"] != "attempts"] == kept


@pytest.mark.slow
def test_margins_decide_when_they_changed(champion):
    instance = champion.open()
    third = version(instance, 2)  # it changed the task before it
    strict = GateSettings(step_margin=0.0, pooled_margin=0.0, lifetime_budget=0.0, min_routing=1.0)
    loose = GateSettings(**OPEN, confidence=0.51)
    tight, wide = (judging.present(instance.store, third, gate) for gate in (strict, loose))
    assert tight.verdict != "pass"
    assert all(row["verdict"] == "pass" for row in rows(wide.rows, "step"))
    assert {row["limit"] for row in rows(wide.rows, "step")} == {1.0}


@pytest.mark.slow
def test_scores_that_are_not_kept_refuse(champion):
    instance = champion.open()
    second = version(instance, 2)
    evaluation = instance.store.get_json(instance.evidence(second)["evaluation"])
    for digest in evaluation["predictions"].values():
        (instance.home / "objects" / "sha256" / digest[:2] / digest).unlink()
    with pytest.raises(GateRefused, match=r"can't be judged again from its evidence .*lcia retry"):
        judging.present(instance.store, second, GateSettings(step_margin=0.5))


@pytest.mark.slow
def test_a_pass_of_before_does_not_promote_after_margins_were_tightened(pending):
    instance = pending.open()
    with instance.db.begin() as connection:
        policy.install(connection, instance.assistant, instance.settings.policy, actor=SYSTEM)
    verdict = version(instance, 1).verdict
    two = {"approval": {"quorum": 2}}
    change(instance, two)
    decisions.approve(instance, "1", OPS, "read the evidence")
    change(instance, {"approval": {"quorum": 1}, "gate": {"enforce": True, "min_routing": 1.0, "max_attempts": 1}})
    if verdict == "pass":
        change(instance, {"gate": {"new_task_margin": 0.0}})
    with pytest.raises(GateRefused, match="under the present policy"):
        promote(instance)


@pytest.mark.slow
def test_a_loosened_policy_lets_it_go_on_and_the_log_says_under_which(pending):
    instance = pending.open()
    assert version(instance, 1).verdict == "inconclusive"
    with instance.db.begin() as connection:
        policy.install(connection, instance.assistant, PolicySettings(), actor=SYSTEM)
    with pytest.raises(GateRefused):
        decisions.approve(instance, "1", OPS, "read the evidence")
    change(instance, {"gate": {"enforce": False, "max_attempts": 9}})
    decisions.approve(instance, "1", OPS, "read the evidence")
    marks = status.status(instance)["champion"]["marks"]
    assert {"gate inconclusive, not enforced", "gate judged again"} <= set(marks)
    with instance.db.read() as connection:
        entry = next(one for one in reversed(log.entries(connection)) if one.action == "champion.promoted")
        now = policy.in_force(connection, instance.assistant)
    assert instance.store.get_json(entry.details["policy"])["policy"] == now.content
    report = instance.store.get_json(entry.details["judged_again"])
    assert rows(report["rows"], "attempts")[0]["limit"] == 9


def change(instance, changes):
    """Two admins change the server's policy."""
    with instance.db.begin() as connection:
        made = policy.propose(connection, instance.assistant, changes, actor=ADA, reason="needed")
        policy.accept(connection, instance.assistant, made.id, actor=EVE, reason="agreed")


def promote(instance):
    return champions.promote(
        instance.promoter,
        instance.store,
        assistant=instance.assistant,
        version=1,
        actor=OPS,
        policy=instance.settings.policy,
        reason="go",
    )


def test_a_quorum_raised_after_the_yes_holds_at_the_promotion(state):
    state.candidate("news", None)
    own = PolicySettings()
    with state.db.begin() as connection:
        policy.install(connection, "a", own, actor=SYSTEM)
    told = {"assistant": "a", "version": 1, "policy": own}
    bob = Actor("bob", assured=True, how="token 1")
    approvals.approve(state.db, state.store, **told, actor=bob, reason="read")
    with state.db.begin() as connection:
        made = policy.propose(connection, "a", {"approval": {"quorum": 2}}, actor=ADA, reason="complaints")
        policy.accept(connection, "a", made.id, actor=EVE, reason="agreed")
    with pytest.raises(QuorumMissing, match="1 of 2"):
        champions.promote(state.db, state.store, **told, actor=bob, reason="go")


def test_automatic_approval_switched_off_while_the_worker_learns_promotes_nothing(state):
    auto = PolicySettings(approval=ApprovalSettings(auto=True))
    with state.db.begin() as connection:
        policy.install(connection, "a", auto, actor=SYSTEM)
        made = policy.propose(connection, "a", {"approval": {"auto": False}}, actor=ADA, reason="people look first")
    state.candidate("news", None)
    with state.db.begin() as connection:
        policy.accept(connection, "a", made.id, actor=EVE, reason="agreed")
    told = {"assistant": "a", "version": 1, "policy": auto, "actor": SYSTEM, "automatic": True}
    with pytest.raises(approvals.NotLowRisk, match="auto is false"):
        champions.promote(state.db, state.store, **told)


def test_a_policy_of_before_is_not_the_one_in_force_because_the_clock_went_back(state):
    """Order is by number: what was accepted last holds, whatever its time says."""
    with state.db.begin() as connection:
        first = policy.install(connection, "a", PolicySettings(), actor=SYSTEM)
        ahead(connection, first.id)
        made = policy.propose(connection, "a", {"approval": {"quorum": 2}}, actor=ADA, reason="complaints")
        policy.accept(connection, "a", made.id, actor=EVE, reason="agreed")
        assert policy.in_force(connection, "a").id == made.id


def ahead(connection, identity):
    from datetime import timedelta

    from sqlalchemy import update

    from components.storage import tables
    from components.storage.database import now

    later = now(connection) + timedelta(days=1)
    mine = tables.policies.c.id == identity
    connection.execute(update(tables.policies).where(mine).values(ended_at=later, proposed_at=later))
