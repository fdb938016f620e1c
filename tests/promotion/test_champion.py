"""The champion: one transaction, one winner, never on damaged or stale evidence."""

import multiprocessing
import os
import signal
import threading

import pytest
from promotion_state import BOB, CAROL
from sqlalchemy import event, func, select, update
from tampering import tamper

from components.audit import log
from components.audit.log import SYSTEM
from components.audit.verify import verify_database
from components.errors import GateRefused, LciaError
from components.promotion import approvals, candidates, champion
from components.promotion.approvals import EvidenceVoid
from components.promotion.candidates import NotPending, ParentOvertaken
from components.promotion.champion import RollbackRefused, StaleCandidate
from components.promotion.quorum import QuorumMissing
from components.promotion.reasons import ReasonMissing
from components.settings import ApprovalSettings, GateSettings, PolicySettings
from components.storage import tables
from components.storage.database import Database
from components.tasks import queue

POLICY = PolicySettings()
AUTO = PolicySettings(approval=ApprovalSettings(auto=True))


def promote(state, version, policy=POLICY, actor=CAROL):
    automatic = policy.approval.auto
    return champion.promote(
        state.db,
        state.store,
        assistant="a",
        version=version,
        actor=actor,
        policy=policy,
        reason="go",
        automatic=automatic,
    )


def yes(state, version, actor=BOB):
    approvals.approve(state.db, state.store, assistant="a", version=version, actor=actor, reason="fine", policy=POLICY)


def facts(state):
    with state.db.read() as connection:
        assert verify_database(connection).ok
        held = champion.current(connection, "a")
        counts = [
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in [tables.promotions, tables.log, tables.outbox]
        ]
        states = [(found.number, found.state) for found in candidates.versions(connection, "a")]
        return held and (held.version, held.epoch), counts, states, queue.counts(connection, "a")


def test_promotion_moves_everything_at_once_and_only_once(state):
    first = state.candidate("news", None, marks=["tuning.seed"])
    with pytest.raises(QuorumMissing):
        promote(state, 1)
    yes(state, 1)
    made = promote(state, 1)
    assert (made.epoch, made.previous, made.kind, made.by, made.known) == (1, None, "promotion", "carol", False)
    assert made.marks == ["tuning.seed"]
    before = facts(state)
    assert before[0] == (first.digest, 1)
    again = promote(state, first.digest)
    assert (again.known, again.epoch, again.at) == (True, 1, made.at)
    assert facts(state) == before
    with state.db.read() as connection:
        assert queue.item(connection, first.item).state == "promoted"
        assert candidates.get(connection, "a", 1).state == "promoted"
        entry = log.entries(connection)[-1]
        assert entry.action == "champion.promoted"
        assert entry.details["approvals"] == [{"person": "bob", "assured": True, "how": "console", "reason": "fine"}]


def test_a_stale_candidate_is_refused_with_the_way_on(state):
    state.candidate("news", None)
    second = state.candidate("mail", None)
    yes(state, 1)
    yes(state, 2)
    promote(state, 1)
    with pytest.raises(StaleCandidate, match="queued again"):
        promote(state, 2)
    with state.db.read() as connection:
        assert candidates.get(connection, "a", 2).state == "superseded"
        assert queue.item(connection, second.item).state == "submitted"


def test_lineage_and_rollback_to_earlier_champions_only(state):
    first = state.candidate("news", None)
    promote(state, 1, AUTO, SYSTEM)
    second = state.candidate("mail", first.digest)
    promote(state, 2, AUTO, SYSTEM)
    pending = state.candidate("poem", second.digest)

    def back(version, reason="worse in use"):
        return champion.rollback(state.db, state.store, assistant="a", version=version, actor=BOB, reason=reason)

    with pytest.raises(RollbackRefused, match="never champion"):
        back(3)
    with pytest.raises(RollbackRefused, match="already"):
        back(2)
    with pytest.raises(ReasonMissing):
        back(1, "")
    state.damage(first.digest)
    with pytest.raises(RollbackRefused, match="can't be used"):
        back(1)
    state.damage(first.digest)
    made = back(1)
    assert (made.kind, made.epoch, made.version, made.previous) == ("rollback", 3, first.digest, second.digest)
    with state.db.read() as connection:
        assert [(p.epoch, p.kind) for p in champion.lineage(connection, "a")] == [
            (1, "promotion"),
            (2, "promotion"),
            (3, "rollback"),
        ]
        assert [c.number for c in candidates.ancestors(connection, second.digest)] == [1, 2]
        assert candidates.get(connection, "a", pending.digest).state == "superseded"
    with pytest.raises(RollbackRefused, match=r"rolled away from \(epoch 3, by bob: worse in use\).*lcia approve 2"):
        back(2)
    with pytest.raises(NotPending, match="rollback"):
        promote(state, 2, AUTO, SYSTEM)


def test_automatic_promotion_only_of_what_the_gate_lets_by(state):
    state.candidate("news", None, verdict="fail")
    with pytest.raises(GateRefused):
        promote(state, 1, AUTO, SYSTEM)
    open_policy = PolicySettings(approval=ApprovalSettings(auto=True), gate=GateSettings(enforce=False))
    made = promote(state, 1, open_policy, SYSTEM)
    assert made.marks == ["automatic approval", "gate fail, not enforced"]


def test_damage_between_approval_and_promotion_voids(state):
    candidate = state.candidate("news", None)
    yes(state, 1)
    evidence = state.store.get_json(candidate.evidence)
    before = facts(state)
    state.damage(evidence["evaluation"])
    with pytest.raises(EvidenceVoid):
        promote(state, 1)
    assert facts(state) == before


def test_of_several_promoters_at_once_one_wins(state):
    numbers = [state.candidate(f"task{count}", None).number for count in range(4)]
    outcomes: list[str] = []
    barrier = threading.Barrier(len(numbers))

    def run(number):
        barrier.wait()
        try:
            outcomes.append("won" if not promote(state, number, AUTO, SYSTEM).known else "known")
        except StaleCandidate:
            outcomes.append("stale")

    threads = [threading.Thread(target=run, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["stale", "stale", "stale", "won"]
    assert facts(state)[0][1] == 1


def test_the_swap_refuses_an_epoch_that_moved(state):
    first = state.candidate("news", None)
    promote(state, 1, AUTO, SYSTEM)
    other = state.candidate("mail", first.digest)
    with state.db.read() as connection:
        old = champion.Champion("a", first.digest, 7, state.db.now(connection), None)
    with pytest.raises(StaleCandidate, match="moved on from epoch"), state.db.begin() as connection:
        champion._swap(connection, old, other, "promotion", BOB, "x", [])


def _promote_and_die(url, folder, statements: int) -> None:
    """Promote in a process that kills itself after so many SQL statements of the write transaction."""
    from components.storage.objects import ObjectStore

    db = Database(url)
    seen = {"count": 0, "writing": False}

    def count(connection, cursor, statement, parameters, context, many) -> None:
        seen["writing"] = seen["writing"] or statement == "BEGIN IMMEDIATE" or "advisory" in statement
        seen["count"] += seen["writing"]
        if seen["count"] > statements:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(db.engine, "before_cursor_execute", count)
    store = ObjectStore(f"file://{folder}/objects")
    champion.promote(db, store, assistant="a", version=1, actor=SYSTEM, policy=AUTO, automatic=True)


def test_killed_at_any_statement_the_old_state_stands_and_the_next_try_succeeds(state):
    state.candidate("news", None)
    before = facts(state)
    context, url = multiprocessing.get_context("fork"), state.db.engine.url.render_as_string()
    killed = 0
    for statements in range(200):
        process = context.Process(target=_promote_and_die, args=(url, state.folder, statements))
        process.start()
        process.join(60)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
        assert facts(state) == before
    assert killed > 15
    assert facts(state)[0][1] == 1


def test_a_damaged_log_stops_promotion(state):
    state.candidate("news", None)
    last = select(func.max(tables.log.c.position)).scalar_subquery()
    tamper(state.db, update(tables.log).where(tables.log.c.position == last).values(body=b"{}"))
    with pytest.raises(LciaError, match="last of the log"):
        promote(state, 1, AUTO, SYSTEM)
    with state.db.read() as connection:
        assert champion.current(connection, "a") is None


def test_a_superseded_candidate_may_come_back_with_new_approvals_only(state):
    first = state.candidate("news", None)
    promote(state, 1, AUTO, SYSTEM)
    second = state.candidate("mail", first.digest)
    third = state.candidate("poem", first.digest)
    yes(state, 3)
    promote(state, 2, AUTO, SYSTEM)
    with pytest.raises(ParentOvertaken, match="lcia work"):
        state.candidate("poem", first.digest)
    champion.rollback(state.db, state.store, assistant="a", version=1, actor=BOB, reason="worse")
    again = state.candidate("poem", first.digest)
    assert (again.digest, again.number, again.state, again.attempt) == (third.digest, 3, "pending", 2)
    with pytest.raises(QuorumMissing):
        promote(state, 3)
    yes(state, 3)
    assert promote(state, 3).previous == first.digest
    with state.db.read() as connection:
        assert [c.number for c in candidates.ancestors(connection, third.digest)] == [1, 3]
        assert candidates.get(connection, "a", second.digest).state == "promoted"


def test_a_rejected_candidate_may_come_back_as_a_further_attempt(state):
    first = state.candidate("news", None)
    approvals.reject(state.db, assistant="a", version=1, actor=BOB, reason="later")
    with state.db.begin() as connection:
        queue.move(connection, None, first.item, "submitted", "tried again", actor=BOB)
    again = state.candidate("news", None)
    assert (again.number, again.attempt, again.state) == (1, 2, "pending")
    yes(state, 1)
    assert promote(state, 1).epoch == 1
