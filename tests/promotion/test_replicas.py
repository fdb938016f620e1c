"""Replicas: the report of each, who differs from the decision since when, and bounds of what they may report."""

from datetime import timedelta

import pytest
from promotion_state import BOB, CAROL
from sqlalchemy import select, update

from components.audit.log import Actor
from components.promotion import approvals, champion, replicas
from components.promotion.candidates import CandidateUnknown
from components.promotion.replicas import NotAskable, ReportRefused
from components.settings import PolicySettings
from components.storage import tables

POLICY = PolicySettings()
GATEWAY, OTHER = Actor("gateway-1", assured=True, how="token 1"), Actor("gateway-2", assured=True, how="token 2")


def report(state, replica="gw-1", version=None, ready=True, actor=GATEWAY, **values):
    fields = {"engine": "embedded", "problem": "", "traffic": {}, "latency": {}, "trial": None, **values}
    with state.db.begin() as connection:
        replicas.record(connection, "a", replica, version=version, ready=ready, actor=actor, **fields)


def fleet(state):
    with state.db.read() as connection:
        return replicas.fleet(connection, "a")


def shift(state, replica="gw-1", **times):
    """Date a replica's times back by so many seconds."""
    with state.db.begin() as connection:
        moment = state.db.now(connection)
        values = {name: moment - timedelta(seconds=seconds) for name, seconds in times.items()}
        connection.execute(update(tables.replicas).where(tables.replicas.c.replica == replica).values(**values))


def promote(state, name, parent=None):
    candidate = state.candidate(name, parent)
    decision = {"assistant": "a", "version": candidate.number, "policy": POLICY}
    approvals.approve(state.db, state.store, actor=BOB, reason="fine", **decision)
    champion.promote(state.db, state.store, actor=CAROL, reason="go", **decision)
    return candidate


def decided_before(state, seconds):
    with state.db.begin() as connection:
        when = state.db.now(connection) - timedelta(seconds=seconds)
        connection.execute(update(tables.champion).values(decided_at=when))
    return when


def close(moment, other):
    return abs(moment - other) < timedelta(seconds=10)


def test_those_that_are_ready_with_the_decision_serve_it(state):
    first = promote(state, "news")
    report(state, "gw-1", first.digest, traffic={"g1": {"requests": 3, "errors": 1}}, latency={"p50": 0.1})
    report(state, "gw-2", first.digest, ready=False, problem="loads its adapters")
    report(state, "gw-3", None)
    now = fleet(state)
    assert (now.decided.epoch, now.serving, len(now.fresh)) == (1, 1, 3)
    one, two, three = now.replicas
    assert (one.number, one.traffic, one.latency) == (1, {"g1": {"requests": 3, "errors": 1}}, {"p50": 0.1})
    assert (two.number, two.ready, two.problem) == (1, False, "loads its adapters")
    assert (three.version, three.number) == (None, None)
    assert [each.differs_since(now.decided) is None for each in now.replicas] == [True, False, False]


def test_a_later_report_takes_the_place_of_the_last(state):
    report(state, problem="starts")
    report(state, engine="vllm 0.11")
    (one,) = fleet(state).replicas
    assert (one.engine, one.problem) == ("vllm 0.11", "")


def test_nobody_differs_before_the_first_decision(state):
    report(state, ready=False)
    now = fleet(state)
    assert (now.decided, now.serving, now.differs_since) == (None, 0, None)


def test_a_replica_differs_since_the_decision_that_it_did_not_follow(state):
    first = promote(state, "news")
    report(state, version=first.digest)
    assert fleet(state).differs_since is None
    promote(state, "mail", first.digest)
    now = fleet(state)
    assert (now.serving, now.differs_since) == (0, now.decided.decided_at)
    report(state, version=first.digest)
    assert fleet(state).differs_since == now.decided.decided_at
    report(state, version=now.decided.version)
    assert fleet(state).differs_since is None


def test_a_replica_that_fails_later_differs_since_it_last_agreed(state):
    first = promote(state, "news")
    decided_before(state, 5000)
    report(state, version=first.digest)
    shift(state, started_at=4000, agreed_at=300)
    report(state, version=first.digest, ready=False, problem="vLLM is away")
    now = fleet(state)
    assert close(now.differs_since, now.moment - timedelta(seconds=300))


def test_one_that_begins_late_differs_since_it_began(state):
    promote(state, "news")
    decided_before(state, 5000)
    report(state, ready=False)
    now = fleet(state)
    assert close(now.differs_since, now.moment)


def test_silent_replicas_do_not_count_and_begin_anew_when_they_return(state):
    first = promote(state, "news")
    decided_before(state, 5000)
    report(state, version=first.digest)
    shift(state, started_at=4000, agreed_at=3000, reported_at=31)
    now = fleet(state)
    assert (len(now.replicas), now.fresh, now.serving, now.differs_since) == (1, (), 0, None)
    report(state, version=None, ready=False)
    now = fleet(state)
    assert close(now.differs_since, now.moment), "it was away, not wrong, for 3000 seconds"


def test_a_report_from_the_future_does_not_count_forever(state):
    report(state, "ahead")
    shift(state, "ahead", reported_at=-3600)
    assert fleet(state).fresh == ()
    shift(state, "ahead", reported_at=-2 * 86400)
    assert fleet(state).replicas == ()


def test_replicas_silent_for_a_day_are_deleted_at_the_next_report(state):
    report(state, "old")
    shift(state, "old", reported_at=86401)
    assert fleet(state).replicas == ()
    report(state, "new")
    with state.db.read() as connection:
        assert connection.execute(select(tables.replicas.c.replica)).scalars().all() == ["new"]


def test_a_name_is_one_reporters_until_it_is_silent(state):
    report(state, "gw", engine="first")
    with pytest.raises(ReportRefused, match="gateway-1 reports as the replica 'gw' already"):
        report(state, "gw", actor=OTHER, engine="second")
    assert fleet(state).replicas[0].engine == "first"
    shift(state, "gw", reported_at=31)
    report(state, "gw", actor=OTHER, engine="second")
    assert (fleet(state).replicas[0].engine, fleet(state).replicas[0].reported_by) == ("second", "gateway-2")


def test_beyond_the_most_a_silent_one_gives_way_and_else_the_new_one_is_refused(state, monkeypatch):
    monkeypatch.setattr(replicas, "MOST", 3)
    for number in range(3):
        report(state, f"gw-{number}")
    with pytest.raises(ReportRefused, match="3 replicas report"):
        report(state, "gw-3")
    shift(state, "gw-0", reported_at=40)
    shift(state, "gw-1", reported_at=90)
    report(state, "gw-3")
    assert [one.replica for one in fleet(state).replicas] == ["gw-0", "gw-2", "gw-3"]


@pytest.mark.parametrize("name", ["", " ", "a b", "../x", "gw\n", "gw\x1b[2J", "-gw", "x" * 81, "<b>", "gw\u202e"])
def test_hostile_names_are_refused(state, name):
    with pytest.raises(ReportRefused, match="is no name of a replica"):
        report(state, name)


@pytest.mark.parametrize("engine", ["", " vllm", "vllm\x1b[2J", "vllm\u202e", "v" * 41])
def test_hostile_engines_are_refused(state, engine):
    with pytest.raises(ReportRefused, match="is no name of an engine"):
        report(state, engine=engine)


def test_what_is_too_large_is_refused_and_a_long_problem_is_cut(state):
    many = {f"g{number}": {"requests": 2**50, "errors": 2**50} for number in range(2000)}
    for values in ({"traffic": many}, {"latency": many}, {"trial": many}):
        with pytest.raises(ReportRefused, match=f"{next(iter(values))} of the report has .* bytes, expected at most"):
            report(state, **values)
    assert fleet(state).replicas == ()
    report(state, problem="x\x1b" + "y" * 5000)
    assert fleet(state).replicas[0].problem == r"x\x1b" + "y" * 995


def test_gateways_answer_with_versions_that_are_neither_refused_nor_erased(state):
    first = promote(state, "news")
    second, third = state.candidate("mail", first.digest), state.candidate("poem", first.digest)
    approvals.reject(state.db, assistant="a", version=third.number, actor=CAROL, reason="no")

    def ask(reference):
        with state.db.read() as connection:
            return replicas.need_askable(connection, state.store, "a", reference)

    assert [ask(reference).number for reference in ("1", first.digest, "v2", second.digest)] == [1, 1, 2, 2]
    with pytest.raises(NotAskable, match="version 3 is rejected"):
        ask("3")
    with pytest.raises(CandidateUnknown):
        ask("9")
    state.store.erase(second.digest, "mail@1 was withdrawn")
    with pytest.raises(NotAskable, match="version 2 was erased: mail@1 was withdrawn"):
        ask("2")
