"""Approvals: bound to whole evidence, by other eyes, fresh, with a quorum."""

from datetime import timedelta

import pytest
from promotion_state import BOB, CAROL, SITE
from sqlalchemy import update

from components.audit import log
from components.audit.log import Actor
from components.errors import GateRefused
from components.gate.attempts import Family, attempts
from components.promotion import approvals, candidates, quorum
from components.promotion.approvals import (
    ApprovalUnknown,
    EvidenceVoid,
    FourEyesRefused,
)
from components.promotion.candidates import CandidateUnknown, NotPending
from components.promotion.quorum import QuorumMissing
from components.promotion.reasons import ReasonMissing
from components.settings import ApprovalSettings, GateSettings, PolicySettings
from components.storage import tables
from components.tasks import queue

POLICY = PolicySettings()


def approve(state, actor=BOB, policy=POLICY, version=1, **more):
    return approvals.approve(
        state.db,
        state.store,
        assistant="a",
        version=version,
        actor=actor,
        reason="looks right",
        policy=policy,
        **more,
    )


def test_register_counts_versions_and_attempts_and_takes_a_digest_once(state):
    first = state.candidate("news", None)
    assert (first.number, first.attempt, first.state, first.known) == (1, 1, "pending", False)
    again = state.candidate("mail", None)
    assert (again.number, again.attempt) == (2, 1)
    with state.db.begin() as connection:
        assert attempts(connection, Family("a", "news", "team"), 90) == 1
        assert attempts(connection, Family("a", "news", "others"), 90) == 0
        values = {
            name: getattr(first, name) for name in ["digest", "assistant", "task", "task_name", "parent", "verdict"]
        }
        people = {"submitted_by": "x", "launched_by": "y"}
        repeated = candidates.register(connection, None, **values, **people, evidence="f" * 64)
        assert (repeated.known, repeated.evidence, repeated.number) == (True, first.evidence, 1)
        for name in [1, "1", "v1", first.digest, first.digest[:8] if not first.digest[:8].isdigit() else 1]:
            assert candidates.get(connection, "a", name).digest == first.digest
        for name in [7, "0" * 64, "abc", "nonsense", "", "%" * 8]:
            with pytest.raises(CandidateUnknown):
                candidates.get(connection, "a", name)
        assert [found.number for found in candidates.versions(connection, "a", "pending")] == [1, 2]
        assert first.to_json()["number"] == 1


def test_a_yes_is_recorded_once_per_person_and_logged(state):
    candidate = state.candidate("news", None)
    given = approve(state, evidence=candidate.evidence)
    assert (given.person, given.verdict, given.assured) == ("bob", "approve", True)
    assert approve(state) == given
    with state.db.read() as connection:
        assert quorum.valid(connection, candidate, POLICY.approval) == [given]
        assert [e.action for e in log.entries(connection, subject=candidate.digest)] == [
            "candidate.registered",
            "candidate.approved",
        ]


@pytest.mark.parametrize("name", ["site", "lena", " Lena ", "LENA", "\uff4cena"])
def test_four_eyes(state, name):
    state.candidate("news", None)
    with pytest.raises(FourEyesRefused, match=r"policy\.approval\.four_eyes"):
        approve(state, Actor(name, assured=False))
    policy = PolicySettings(approval=ApprovalSettings(four_eyes=False))
    assert approve(state, Actor(name, assured=False), policy).verdict == "approve"


def test_every_object_of_the_evidence_counts(state):
    candidate = state.candidate("news", None)
    evidence = state.store.get_json(candidate.evidence)
    manifest = state.store.get_json(candidate.digest)
    group = manifest["groups"][0]
    files = state.store.folder_files(group["adapter"])
    named = [evidence[key] for key in ["assessment", "tuning", "evaluation", "gate", "task", "candidate"]]
    named += [
        manifest["config"],
        candidate.evidence,
        *evidence["reports"].values(),
        group["adapter"],
        group["curvature"],
    ]
    for digest in [*named, *files.values()]:
        state.damage(digest)
        with pytest.raises(EvidenceVoid, match="not whole"):
            approve(state)
        state.damage(digest)
    assert approve(state).verdict == "approve"
    assert approvals.check_evidence(state.store, candidate).objects == len(named) + len(files)


def test_evidence_about_something_else_is_void(state):
    candidate = state.candidate("news", None)
    evidence = state.store.get_json(candidate.evidence)
    bad = [
        {**evidence, "candidate": "0" * 64},
        {**evidence, "parent": "0" * 64},
        {**evidence, "kind": "gate"},
        {key: value for key, value in evidence.items() if key != "tuning"},
        {**evidence, "gate": state.store.put_json({"kind": "gate", "verdict": "fail"})},
        {**evidence, "gate": state.store.put_json([])},
        [],
    ]
    for value in bad:
        digest = state.store.put_json(value)
        with state.db.begin() as connection:
            connection.execute(update(tables.candidates).values(evidence=digest))
        with pytest.raises(EvidenceVoid):
            approve(state)


def test_the_approver_must_have_seen_this_evidence(state):
    state.candidate("news", None)
    with pytest.raises(EvidenceVoid, match="look at"):
        approve(state, evidence="0" * 64)


def test_an_enforced_gate_refuses(state):
    state.candidate("news", None, verdict="inconclusive")
    with pytest.raises(GateRefused, match=r"lcia approve 1 --override") as refused:
        approve(state)
    assert refused.value.exit_code == 2
    report_only = PolicySettings(gate=GateSettings(enforce=False))
    approve(state, policy=report_only)
    with state.db.read() as connection:
        assert log.entries(connection)[-1].details["marks"] == ["gate inconclusive, not enforced"]


def test_approvals_expire_and_can_be_taken_back(state):
    candidate = state.candidate("news", None)
    approve(state)
    approve(state, CAROL)
    two = ApprovalSettings(quorum=2)
    with state.db.begin() as connection:
        assert len(quorum.need_quorum(connection, candidate, two)) == 2
        past = state.db.now(connection) - timedelta(seconds=1)
        connection.execute(update(tables.approvals).where(tables.approvals.c.person == "bob").values(expires_at=past))
        with pytest.raises(QuorumMissing, match="1 of 2") as waiting:
            quorum.need_quorum(connection, candidate, two)
        assert waiting.value.exit_code == 3
    approvals.revoke(state.db, assistant="a", version=1, actor=CAROL, reason="second thoughts")
    with pytest.raises(ApprovalUnknown):
        approvals.revoke(state.db, assistant="a", version=1, actor=CAROL, reason="again")
    with state.db.read() as connection, pytest.raises(QuorumMissing, match="nobody"):
        quorum.need_quorum(connection, candidate, ApprovalSettings())


def test_an_approval_given_on_a_clock_ahead_does_not_count_longer(state):
    candidate = state.candidate("news", None)
    approve(state)
    with state.db.begin() as connection:
        later = state.db.now(connection) + timedelta(days=2)
        connection.execute(update(tables.approvals).values(at=later, expires_at=later + timedelta(hours=72)))
        assert quorum.valid(connection, candidate, POLICY.approval) == []
    again = approve(state)
    with state.db.read() as connection:
        assert quorum.valid(connection, candidate, POLICY.approval) == [again]


def test_a_no_ends_it(state):
    candidate = state.candidate("news", None)
    with pytest.raises(ReasonMissing):
        approvals.reject(state.db, assistant="a", version=1, actor=BOB, reason=" ")
    state.damage(candidate.evidence)
    approvals.reject(state.db, assistant="a", version=1, actor=SITE, reason="wrong data")
    with state.db.read() as connection:
        assert candidates.get(connection, "a", 1).state == "rejected"
        assert queue.item(connection, candidate.item).state == "rejected"
        assert "wrong data" in queue.item(connection, candidate.item).reason
    for decide in [approve, lambda state: approvals.reject(state.db, assistant="a", version=1, actor=BOB, reason="x")]:
        with pytest.raises((NotPending, EvidenceVoid)):
            decide(state)
