"""Trials: who may begin and approve them, what gateways hear, how they end, and that approvals are bound to them."""

from datetime import timedelta

import pytest
from promotion_state import BOB, CAROL, SITE
from sqlalchemy import insert, update
from trial_deeds import ERIN, POLICY, RULES, approve, arm, promote, record, report, serving, start, stop, two, yes

from components.audit import log
from components.audit.log import Actor
from components.audit.verify import verify_database
from components.errors import GateRefused
from components.identity import appointments, people, tokens
from components.promotion import approvals, candidates, quorum, trial_end, trial_rows, trials
from components.promotion.approvals import EvidenceVoid, FourEyesRefused, NotLowRisk
from components.promotion.candidates import NotPending
from components.promotion.quorum import NotEntitled, QuorumMissing
from components.promotion.replicas import ReportRefused
from components.promotion.trials import TrialNeedsOthers, TrialRefused
from components.settings import ApprovalSettings, GateSettings, PolicySettings
from components.storage import tables


def entries(state, *actions):
    with state.db.read() as connection:
        return [one for one in log.entries(connection) if one.action in actions]


def bound(state, candidate):
    with state.db.read() as connection:
        return trial_rows.bound(connection, candidate.digest)


def test_a_shadow_begins_at_once_whatever_the_gate_says(state):
    candidate = two(state, verdict="fail")
    trial = start(state, share=1.0)
    assert (trial.state, trial.kind, trial.share, trial.asked_by) == ("under_way", "shadow", 1.0, "erin")
    heard = serving(state)
    assert heard["slow_seconds"] == RULES.slow_seconds
    assert (heard["id"], heard["number"], heard["digest"], heard["statement"]) == (1, 2, candidate.digest, None)
    (entry,) = entries(state, "trial.started")
    assert (entry.subject, entry.actor.name, entry.details["kind"]) == (candidate.digest, "erin", "shadow")
    assert entry.details["rules"] == RULES.model_dump(mode="json")


def test_a_canary_waits_for_somebody_who_decides_and_did_not_ask_for_it(state):
    two(state)
    trial = start(state, "canary", 0.05)
    assert (trial.state, serving(state)) == ("waiting", None)
    with pytest.raises(FourEyesRefused):
        yes(state, trial.id, SITE)
    with pytest.raises(TrialNeedsOthers, match="asked for trial 1"):
        yes(state, trial.id, Actor(" ERIN", assured=True))
    with pytest.raises(ReportRefused, match="waits for its approval"):
        record(state, report(1))
    after = yes(state, trial.id)
    assert (after.state, after.approved_by, after.approval) == ("under_way", "bob", "go on")
    assert serving(state)["kind"] == "canary"
    assert yes(state, trial.id, CAROL).approved_by == "bob"
    requested, approved, began = entries(state, "trial.requested", "trial.approved", "trial.started")
    assert [requested.actor.name, approved.actor.name, began.details["asked_by"]] == ["erin", "bob", "erin"]
    assert began.details["approval"] == approved.index
    assert approved.details["evidence"] == began.details["evidence"]


def test_who_made_a_token_of_the_asker_may_have_asked(state):
    two(state)
    with state.db.begin() as connection:
        for name in ("erin", "bob"):
            people.add(connection, name, actor=SITE)
        appointments.appoint(connection, "bob", "approver", actor=SITE)
        tokens.create(connection, "erin", "ci", timedelta(days=1), actor=BOB)
    trial = start(state, "canary", 0.05)
    with pytest.raises(TrialNeedsOthers, match="made a token"):
        yes(state, trial.id)


def test_a_canary_is_approved_by_somebody_who_may_decide_everywhere(state):
    two(state)
    with state.db.begin() as connection:
        for name in ("bob", "carol"):
            people.add(connection, name, actor=SITE)
        appointments.appoint(connection, "bob", "approver", "elsewhere", actor=SITE)
        appointments.appoint(connection, "carol", "approver", "team", actor=SITE)
    trial = start(state, "canary", 0.05)
    with pytest.raises(NotEntitled, match="may not decide at team"):
        yes(state, trial.id)
    assert yes(state, trial.id, CAROL).state == "under_way"


def test_a_canary_needs_a_gate_that_lets_people_decide(state):
    two(state, verdict="fail")
    with pytest.raises(GateRefused):
        start(state, "canary", 0.05)
    lenient = PolicySettings(gate=GateSettings(enforce=False))
    trial = start(state, "canary", 0.05, policy=lenient)
    with pytest.raises(GateRefused):
        yes(state, trial.id)
    assert yes(state, trial.id, policy=lenient).state == "under_way"


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("shadow", 0),
        ("shadow", 1.01),
        ("shadow", -1),
        ("shadow", float("nan")),
        ("canary", 0.21),
        ("canary", 0),
        ("x", 1),
    ],
)
def test_shares_out_of_bounds_are_refused(state, kind, share):
    two(state)
    with pytest.raises(TrialRefused, match="expected a shadow of at most 1"):
        start(state, kind, share)


def test_one_trial_is_under_way_at_a_time(state):
    two(state)
    start(state)
    with pytest.raises(TrialRefused, match="one at a time"):
        start(state)
    waiting = start(state, "canary", 0.05)
    with pytest.raises(TrialRefused, match="has trial 2 already"):
        start(state, "canary", 0.1)
    with pytest.raises(TrialRefused, match="trial 1 is under way"):
        yes(state, waiting.id)
    stop(state, 1)
    assert yes(state, waiting.id).state == "under_way"


def test_only_a_pending_candidate_on_the_champion_is_tried(state):
    first = state.candidate("news", None)
    with pytest.raises(TrialRefused, match="no champion yet"):
        start(state, version=1)
    approve(state, 1)
    promote(state, 1)
    with pytest.raises(NotPending):
        start(state, version=1)
    state.candidate("mail", first.digest)
    assert start(state).candidate


def test_a_person_stops_it_at_once_and_it_leaves_a_record(state):
    candidate = two(state)
    start(state)
    record(state, report(1, arm(10), arm(10, errors=1), {"compared": 9, "agreed": 8, "errors": [1, 0]}))
    ended = stop(state, 1)
    assert (ended.state, ended.cause, ended.ended_by, ended.why) == ("ended", "person", "erin", "enough")
    assert serving(state) is None
    value = state.store.get_json(ended.record)
    assert (value["kind"], value["schema"], value["candidate"], value["mode"]) == (
        "trial",
        1,
        candidate.digest,
        "shadow",
    )
    assert (value["agreement"], value["pairs"]["errors"]) == (8 / 9, [1, 0])
    assert [one["rule"] for one in value["rules"]] == ["errors", "slow", "none_routed"]
    assert value["people"]["ended"] == {"by": "erin", "reason": "enough"}
    assert entries(state, "trial.ended")[0].details["record"] == ended.record
    assert stop(state, 1) == ended
    assert len(entries(state, "trial.ended")) == 1


def test_a_canary_that_nobody_approved_leaves_none(state):
    candidate = two(state)
    start(state, "canary", 0.05)
    assert stop(state, 1).record is None
    assert bound(state, candidate) is None


def test_a_rule_stops_it_in_the_transaction_of_the_report(state):
    two(state)
    start(state)
    for n in range(1, 60):
        trial = record(
            state, report(1, arm(10 * n), arm(10 * n, errors=3 * n), {"compared": 10 * n, "errors": [3 * n, 0]})
        )
        if trial.state == "ended":
            break
    assert (trial.cause, trial.ended_by, n < 20) == ("errors", "lcia", True)
    assert serving(state) is None
    value = state.store.get_json(trial.record)
    (errors,) = [one for one in value["rules"] if one["rule"] == "errors"]
    assert errors["stopped"]
    assert errors["e"] >= errors["threshold"] == 3 / RULES.level
    assert record(state, report(1, arm(9999), arm(9999), {"compared": 1})) == trial


def test_complaints_stop_a_canary_and_a_harmless_one_goes_on(state):
    two(state)
    start(state, "canary", 0.1)
    yes(state, 1)
    harmless = report(1, arm(900, errors=9, rated=90, complaints=9), arm(100, errors=1, rated=10, complaints=1))
    assert record(state, harmless).state == "under_way"
    bad = report(1, arm(1800, errors=18, rated=180, complaints=18), arm(200, errors=2, rated=40, complaints=31))
    assert record(state, bad).cause == "complaints"


def test_a_report_twice_is_one_report_and_counts_of_gateways_add_up(state):
    two(state)
    start(state, "canary", 0.1)
    yes(state, 1)
    value = report(1, arm(90, errors=1), arm(10, errors=1))
    once = record(state, value)
    assert record(state, value).tests == once.tests
    record(state, value, replica="r2")
    with state.db.read() as connection:
        together, replicas = trial_end.total(connection, trial_rows.get(connection, "a", 1))
    assert (together.counts.champion.requests, together.counts.candidate.errors, replicas) == (180, 2, 2)


def test_hostile_counts_are_refused_and_change_nothing(state):
    two(state)
    start(state)
    pairs = {"compared": 5, "agreed": 5}
    good = record(state, report(1, arm(9), arm(9), pairs))
    big = [2**60] + [0] * 10
    for value in [
        report(1, arm(-1), arm(9), pairs),
        report(1, arm(9, errors=10), arm(9), pairs),
        report(1, arm(8), arm(9), pairs),
        report(1, arm(10), arm(9, slow=1), {"compared": 4}),
        report(1, arm(9.5), arm(9), pairs),
        report(1, arm("9"), arm(9), pairs),
        report(1, arm(True), arm(9), pairs),
        report(1, arm(2**60), arm(9), pairs),
        report(1, arm(9), arm(9), None),
        report(1, arm(9), arm(9), {"compared": 10}),
        report(1, arm(9), arm(9), {"compared": 5, "agreed": 6}),
        report(1, arm(9), arm(9, rated=1), pairs),
        report(1, arm(9), arm(9), {**pairs, "errors": [3, 3]}),
        report(1, arm(9), arm(9), pairs, latency={"champion": big, "candidate": big}),
        report(1, arm(9), arm(9), pairs, latency={"champion": [1] * 11, "candidate": [0] * 11}),
        report(1, arm(9), arm(9), pairs, latency={"champion": [0] * 3, "candidate": [0] * 11}),
        report(1, arm(9), arm(9), pairs, more=1),
        report(1, arm(9), arm(9), pairs, changed=[{"id": "x\n", "champion": "", "candidate": ""}]),
        report(1, arm(9, errors=1), arm(9, errors=9), pairs | {"errors": [9, 0]}),
        {"id": 1, "counts": []},
        {},
    ]:
        with pytest.raises(ReportRefused):
            record(state, value)
    with pytest.raises(trial_rows.TrialUnknown):
        record(state, report(7, arm(9), arm(9), pairs))
    with state.db.read() as connection:
        trial = trial_rows.get(connection, "a", 1)
        assert (trial.tests, trial.state) == (good.tests, "under_way")
        assert trial_end.total(connection, trial)[0].counts.champion.requests == 9


def test_nobody_fills_a_trial_with_gateways(state, monkeypatch):
    monkeypatch.setattr(trials, "MOST_REPLICAS", 2)
    two(state)
    start(state, "canary", 0.1)
    yes(state, 1)
    for name in ("r1", "r2"):
        record(state, report(1, arm(1)), replica=name)
    with pytest.raises(ReportRefused, match="reports of 2 gateways"):
        record(state, report(1, arm(1)), replica="r3")


def test_a_candidate_that_is_made_again_is_not_the_one_that_is_tried(state):
    candidate = two(state)
    start(state)
    approvals.reject(state.db, assistant="a", version=2, actor=BOB, reason="no")
    with state.db.begin() as connection:
        again = {"state": "pending", "evidence": state.store.put_json({"kind": "evidence"})}
        connection.execute(update(tables.candidates).where(tables.candidates.c.number == 2).values(**again))
    assert serving(state) is None
    assert trial_end.settle(state.db, state.store, "a", 30)[0].why == "version 2 was made again on other evidence"
    assert candidate.number == 2


@pytest.mark.parametrize("how", ["rejected", "promoted", "champion", "time"])
def test_gateways_hear_at_once_that_it_is_over_and_its_end_is_written_later(state, how):
    candidate = two(state)
    other = state.candidate("chat", candidate.parent)
    start(state)
    record(state, report(1, arm(9), arm(9), {"compared": 9, "agreed": 9}))
    if how == "rejected":
        approvals.reject(state.db, assistant="a", version=2, actor=BOB, reason="no")
    elif how == "time":
        with state.db.begin() as connection:
            long_ago = state.db.now(connection) - timedelta(hours=RULES.longest_hours, seconds=1)
            connection.execute(update(tables.trials).values(started_at=long_ago))
    else:
        number = candidate.number if how == "promoted" else other.number
        approve(state, number)
        promote(state, number)
    assert serving(state) is None
    (ended,) = trial_end.settle(state.db, state.store, "a", 30)
    assert ended.cause == {"rejected": "candidate", "promoted": "candidate", "champion": "candidate"}.get(how, how)
    assert state.store.get_json(ended.record)["counts"]["candidate"]["requests"] == 9
    assert trial_end.settle(state.db, state.store, "a", 30) == []


def test_a_rollback_ends_a_trial_that_was_about_the_champion_before(state):
    first = state.candidate("news", None)
    approve(state, 1)
    promote(state, 1)
    second = state.candidate("mail", first.digest)
    approve(state, 2)
    promote(state, 2)
    state.candidate("chat", second.digest)
    start(state, version=3)
    with state.db.begin() as connection:  # as a rollback does, but for the candidate, which it supersedes
        connection.execute(update(tables.champion).values(epoch=3))
    assert serving(state) is None
    assert trial_end.settle(state.db, state.store, "a", 30)[0].cause == "champion"


def test_an_approval_given_before_a_trial_ended_counts_no_more(state):
    candidate = two(state)
    approve(state, 2)
    start(state)
    with state.db.read() as connection:
        assert len(quorum.valid(connection, candidate, POLICY.approval)) == 1
    ended = stop(state, 1)
    with state.db.read() as connection:
        (one,) = quorum.weigh(connection, candidate, POLICY.approval)
        assert one.why_not == "given before a trial of it ended"
    with pytest.raises(QuorumMissing, match="given before a trial of it ended"):
        promote(state, 2)
    again = approve(state, 2)
    assert again.trials == bound(state, candidate)
    promote(state, 2)
    (_, entry) = entries(state, "champion.promoted")
    assert entry.details["trials"] == [ended.record]
    with state.db.read() as connection:
        assert verify_database(connection).ok


def test_the_approver_must_have_seen_this_trial(state):
    candidate = two(state)
    start(state)
    stop(state, 1)
    with pytest.raises(EvidenceVoid, match="a trial of version 2 ended meanwhile"):
        approve(state, 2, trials="0" * 64)
    assert approve(state, 2, trials=bound(state, candidate)).verdict == "approve"


def test_a_changed_byte_of_a_record_voids_the_evidence(state):
    two(state)
    start(state)
    ended = stop(state, 1)
    state.damage(ended.record)
    with pytest.raises(EvidenceVoid, match="not whole"):
        approve(state, 2)
    state.damage(ended.record)
    approve(state, 2)
    state.damage(ended.record)
    with pytest.raises(EvidenceVoid, match="not whole"):
        promote(state, 2)


def test_a_record_of_something_else_is_no_evidence(state):
    two(state)
    start(state)
    stop(state, 1)
    with state.db.begin() as connection:
        connection.execute(
            update(tables.trials).values(record=state.store.put_json({"kind": "trial", "candidate": "x"}))
        )
    with pytest.raises(EvidenceVoid, match="is none"):
        approve(state, 2)


def test_words_of_people_in_a_record_name_no_object(state):
    two(state)
    digest = "ab" * 32
    trials.start(
        state.db, state.store, assistant="a", version=2, kind="shadow", share=1, actor=ERIN, reason=digest,
        policy=POLICY, rules=RULES,
    )  # fmt: skip
    stop(state, 1)
    assert approve(state, 2).verdict == "approve"


def test_the_product_promotes_nothing_that_is_tried_or_failed_its_trial(state):
    two(state)
    auto = PolicySettings(approval=ApprovalSettings(auto=True))
    start(state)
    with pytest.raises(NotLowRisk, match="its trial 1 is under_way"):
        promote(state, 2, auto, automatic=True)
    record(state, report(1, arm(90), arm(90, errors=60), {"compared": 90, "errors": [60, 0]}))
    with pytest.raises(NotLowRisk, match="stopped by the rule errors"):
        promote(state, 2, auto, automatic=True)
    start(state)
    stop(state, 2)
    with pytest.raises(NotLowRisk, match="stopped by the rule errors"):
        promote(state, 2, auto, automatic=True)


CHANGED = [{"id": "c1", "champion": "yes", "candidate": "no " + "cd" * 32}]


def test_changed_answers_become_an_object_of_their_own(state):
    two(state)
    start(state)
    value = report(1, arm(9), arm(9), {"compared": 9, "agreed": 8}, changed=CHANGED)
    record(state, value)
    record(state, value)
    ended = stop(state, 1)
    assert state.store.get_lines(ended.answers) == CHANGED
    assert ended.answers_until - ended.ended_at == timedelta(days=30)
    assert state.store.get_json(ended.record)["answers"] == ended.answers
    with state.db.read() as connection:
        assert connection.execute(tables.trial_answers.select()).all() == []
    assert approve(state, 2).verdict == "approve", "texts of strangers name no objects"
    state.store.erase(ended.answers, "kept long enough")
    assert promote(state, 2).epoch == 2, "erased on purpose"


def test_changed_answers_are_dropped_unless_settings_keep_them_and_deleted_in_time(state):
    two(state)
    start(state)
    value = report(1, arm(9), arm(9), {"compared": 9, "agreed": 8}, changed=CHANGED)
    record(state, value, keep=False)
    with state.db.begin() as connection:
        assert connection.execute(tables.trial_answers.select()).all() == []
        old = state.db.now(connection) - timedelta(days=31)
        connection.execute(insert(tables.trial_answers).values(trial=1, id="c", champion="x", candidate="y", at=old))
    trial_end.settle(state.db, state.store, "a", 30)
    assert stop(state, 1).answers is None


def test_the_log_explains_every_trial_and_a_forged_row_shows(state):
    two(state)
    start(state)
    start(state, "canary", 0.05)
    stop(state, 1)
    yes(state, 2)
    with state.db.read() as connection:
        assert verify_database(connection).ok
    for column in ("approved_by", "record", "state"):
        with state.db.begin() as connection:
            before = connection.execute(tables.trials.select().where(tables.trials.c.id == 1)).mappings().one()[column]
            connection.execute(update(tables.trials).where(tables.trials.c.id == 1).values({column: "forged"}))
        with state.db.read() as connection:
            assert f"trial 1 has {column} 'forged'" in verify_database(connection).state
        with state.db.begin() as connection:
            connection.execute(update(tables.trials).where(tables.trials.c.id == 1).values({column: before}))


def test_versions_of_other_assistants_are_not_tried(state):
    two(state)
    start(state)
    with pytest.raises(trial_rows.TrialUnknown), state.db.read() as connection:
        trial_rows.get(connection, "b", 1)
    with state.db.read() as connection:
        assert candidates.get(connection, "a", 2).state == "pending"
