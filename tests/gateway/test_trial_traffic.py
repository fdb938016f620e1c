"""Trials on a gateway: who is answered by whom, what is compared and counted, and that ends are immediate."""

import asyncio
import time

import pytest
from small_gateway import gateway_on, rows_of
from small_loop import OPS, SITE

from components.audit.log import Actor
from components.errors import LciaError
from lcia.gateway.trial_traffic import Observation, TrialTraffic
from lcia.operations import trials

PASSIVE = "Rewrite the sentence in the passive voice.\nThe doctor thanked the manager."
ERIN = Actor("erin", assured=False, how="asserted")
FINE = Observation(False, 0.3, False, "a")


def canary(share=0.05):
    """A canary that nothing answers yet."""
    return TrialTraffic(1, "canary", share, None, 5.0)


def shadow(share=1.0):
    """A shadow that nothing answers yet."""
    return TrialTraffic(1, "shadow", share, None, 5.0)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_a_canary_answers_its_share_of_callers_and_always_the_same(share):
    trial, callers = canary(share), [f"token/{number}" for number in range(5000)]
    picked = [caller for caller in callers if trial.picks(caller)]
    assert abs(len(picked) / 5000 - share) < 4 * (share * (1 - share) / 5000) ** 0.5
    assert picked == [caller for caller in callers if trial.picks(caller)]
    other = TrialTraffic(2, "canary", share, None, 5.0)
    assert picked != [caller for caller in callers if other.picks(caller)], "each trial has callers of its own"
    assert not any(shadow().picks(caller) for caller in callers)
    assert not any(trial.mirrors(caller) for caller in callers)


def test_a_shadow_mirrors_its_share_of_requests():
    trial = shadow(0.3)
    assert abs(sum(trial.mirrors(str(number)) for number in range(5000)) / 5000 - 0.3) < 0.03


def test_answers_are_counted_by_arm_and_badness():
    trial = canary()
    trial.count("champion", FINE)
    trial.count("candidate", Observation(True, 0.01, False))
    trial.count("candidate", Observation(False, 6.0, True))
    trial.rate("candidate", "answer 0", good=False)
    trial.rate("candidate", "answer 1", good=True)
    trial.rate("candidate", "answer 2", good=False)
    report = trial.report()
    assert report["counts"]["champion"] == {
        "requests": 1, "errors": 0, "slow": 0, "none_routed": 0, "rated": 0, "complaints": 0,
    }  # fmt: skip
    assert report["counts"]["candidate"] == {
        "requests": 2, "errors": 1, "slow": 1, "none_routed": 1, "rated": 2, "complaints": 1,
    }  # fmt: skip
    assert sum(report["latency"]["candidate"]) == 2
    assert report["latency"]["champion"][3] == 1, "0.3 s is in the bucket up to 0.5 s"
    assert report["pairs"] is None


def test_pairs_count_where_the_two_differ():
    trial = shadow()

    async def mirror():
        for number, other in enumerate([FINE, Observation(False, 9.0, False, "b"), Observation(True, 0.1, True)]):

            async def ask(other=other):
                return other

            trial.mirror(str(number), FINE, ask, lambda text: f"<{text}>")
        await asyncio.sleep(0.05)

    asyncio.run(mirror())
    report = trial.report()
    assert report["pairs"] == {"compared": 3, "agreed": 1, "errors": [1, 0], "slow": [1, 0], "none_routed": [1, 0]}
    assert report["changed"] == [
        {"id": "1", "champion": "<a>", "candidate": "<b>"},
        {"id": "2", "champion": "<a>", "candidate": "<>"},
    ]
    assert trial.report()["changed"] == [], "they are handed over once"


def test_more_than_so_many_are_not_mirrored_at_once():
    trial = shadow()

    async def flood():
        gate = asyncio.Event()

        async def ask():
            await gate.wait()
            return FINE

        for number in range(50):
            trial.mirror(str(number), FINE, ask, None)
        gate.set()
        await asyncio.sleep(0.05)

    asyncio.run(flood())
    assert trial.report()["pairs"]["compared"] == 8


def test_a_shadow_compares_and_nobody_sees_the_candidate(waiting):
    with gateway_on(waiting, "gateway.keep=masked") as running:
        trials.start(running.instance, "3", "shadow", 1.0, ERIN, "let us see")
        running.until(lambda: running.follower.trial)
        rows = [row for name in ("movie_sentiment", "passive_voice") for row in rows_of(waiting, name)[:6]]
        for row in rows:
            reply = running.chat(f"{row['instruction']}\n{row['input']}")
            assert reply.headers["lcia-version"] == "2"
        running.until(lambda: requests_of(running) == 12)
        (trial,) = trials.trials(running.instance)["trials"]
        assert trial["counts"]["champion"]["requests"] == 12
        assert trial["counts"]["champion"]["none_routed"] >= 6 > trial["counts"]["candidate"]["none_routed"]
        trials.stop(running.instance, 1, OPS, "enough")
        running.until(lambda: running.follower.trial is None)
        changed = trials.answers(running.instance, 1, OPS)["answers"]
        assert changed
        assert all(each["champion"] != each["candidate"] for each in changed)


def requests_of(running):
    """Answers of the candidate that the service knows of."""
    (trial,) = trials.trials(running.instance)["trials"]
    return trial["counts"]["candidate"]["requests"]


def trial_of(running):
    """The trial's part of the last report."""
    return running.source.reports[-1]["trial"] if running.source.reports else None


def test_a_canary_answers_only_after_its_approval_and_ends_at_once(waiting):
    with gateway_on(waiting) as running:
        started = trials.start(running.instance, "3", "canary", 0.2, ERIN, "let us see")
        assert running.chat(PASSIVE).headers["lcia-version"] == "2"
        trials.approve(running.instance, started["id"], OPS, "go on")
        running.until(lambda: running.follower.trial)
        users = [f"user {number}" for number in range(40)]
        by = {user: running.chat(PASSIVE, user=user).headers["lcia-version"] for user in users}
        assert set(by.values()) == {"2", "3"}
        assert {user: running.chat(PASSIVE, user=user).headers["lcia-version"] for user in users[:10]} == {
            user: by[user] for user in users[:10]
        }
        picked = next(user for user in users if by[user] == "3")
        answered = running.chat(PASSIVE, user=picked)
        for good in (False, False, True):
            running.post("/v1/feedback", {"id": answered.headers["lcia-answer"], "good": good})
        running.until(lambda: trial_of(running)["counts"]["candidate"]["complaints"] == 1)
        assert trial_of(running)["counts"]["candidate"]["rated"] == 1, "one verdict on an answer, whoever sends more"
        trials.stop(running.instance, started["id"], OPS, "a complaint")
        running.until(lambda: running.follower.trial is None)
        assert {running.chat(PASSIVE, user=user).headers["lcia-version"] for user in users[:10]} == {"2"}


def test_a_canary_that_fails_is_counted_and_the_champion_answers(waiting):
    with gateway_on(waiting) as running:
        started = trials.start(running.instance, "3", "canary", 0.2, ERIN, "let us see")
        trials.approve(running.instance, started["id"], OPS, "go on")
        running.until(lambda: running.follower.trial)
        trial = running.follower.trial
        user = next(str(n) for n in range(100) if trial.picks(f"local/{n}"))
        only = trial.candidate.adapters - running.follower.champion.adapters
        for adapter in only:
            running.gateway.engine._adapters.pop(adapter)
        reply = running.chat(PASSIVE, user=user)
        assert (reply.status_code, reply.headers["lcia-version"]) == (200, "2")
        counts = trial.report()["counts"]
        assert (counts["candidate"]["errors"], counts["champion"]["requests"]) == (1, 1)


def test_a_canary_that_is_too_slow_is_counted_and_nothing_against_the_champion(waiting):
    with gateway_on(waiting, "gateway.answer_seconds=0.2") as running:
        started = trials.start(running.instance, "3", "canary", 0.2, ERIN, "let us see")
        trials.approve(running.instance, started["id"], OPS, "go on")
        running.until(lambda: running.follower.trial)
        trial = running.follower.trial
        user = next(str(n) for n in range(100) if trial.picks(f"local/{n}"))
        quick = running.gateway.engine._next

        def slow(*arguments):
            time.sleep(0.3)
            return quick(*arguments)

        running.gateway.engine._next = slow
        assert running.chat(PASSIVE, user=user).status_code == 504
        counts = trial.report()["counts"]
        assert (counts["candidate"]["errors"], counts["champion"]["requests"]) == (1, 0)


def test_a_trial_pauses_while_nobody_could_stop_it(waiting, monkeypatch):
    monkeypatch.setattr("lcia.gateway.follower.UNSUPERVISED", 0.3)
    with gateway_on(waiting) as running:
        started = trials.start(running.instance, "3", "canary", 0.2, ERIN, "let us see")
        trials.approve(running.instance, started["id"], OPS, "go on")
        running.until(lambda: running.follower.trial)
        user = next(str(n) for n in range(100) if running.follower.trial.picks(f"local/{n}"))
        running.until(lambda: running.chat(PASSIVE, user=user).headers["lcia-version"] == "3")
        running.source.cut = True
        running.until(lambda: running.chat(PASSIVE, user=user).headers["lcia-version"] == "2")


@pytest.mark.parametrize("field", ["statement", "share", "digest"])
def test_a_trial_without_a_statement_that_holds_does_not_begin(waiting, field):
    def change(answer):
        trial = answer["trial"]
        other = {"statement": None, "share": 0.5, "digest": answer["champion"]["digest"]}[field]
        return answer | {"trial": trial | {field: other} if trial else None}

    with gateway_on(waiting) as running:
        running.source.change = change
        started = trials.start(running.instance, "3", "canary", 0.2, ERIN, "let us see")
        trials.approve(running.instance, started["id"], OPS, "go on")
        running.until(lambda: running.follower.problem)
        assert running.follower.trial is None
        assert running.chat(PASSIVE).headers["lcia-version"] == "2"


@pytest.mark.parametrize(("arm", "version"), [("candidate", "3"), ("champion", "2")])
def test_a_gateway_behind_a_split_route_answers_as_its_arm(waiting, arm, version):
    with gateway_on(waiting, f"gateway.arm={arm}") as running:
        started = trials.start(running.instance, "3", "canary", 0.2, ERIN, "let us see")
        trials.approve(running.instance, started["id"], OPS, "go on")
        running.until(lambda: running.follower.trial)
        asked = [running.chat(PASSIVE, user=str(number)) for number in range(6)]
        assert {each.headers["lcia-version"] for each in asked} == {version}
        assert (
            running.follower.trial.report()["counts"]["candidate" if arm == "candidate" else "champion"]["requests"]
            == 6
        )


def test_a_trial_of_an_earlier_decision_or_that_is_long_over_is_not_begun_again(waiting):
    with gateway_on(waiting) as running:
        started = trials.start(running.instance, "3", "shadow", 1.0, ERIN, "let us see")
        running.until(lambda: running.follower.trial)
        old = running.source.perform("serving", {})["trial"]
        trials.stop(running.instance, started["id"], OPS, "seen enough")
        running.until(lambda: running.follower.trial is None)
        running.source.change = lambda answer: answer | {"trial": old}
        running.until(lambda: running.follower.trial)  # it is signed, and nobody else here knows of its end
        rules = running.follower._settings.gateway.trial.__dict__  # the defaults themselves, which others read too
        usual, rules["longest_hours"] = rules["longest_hours"], 1e-6
        running.until(lambda: running.follower.trial is None)
        assert "it is over" in running.follower.problem
        rules["longest_hours"] = usual
        running.until(lambda: running.follower.trial)
        running.source.change = lambda answer: answer | {"trial": old}
        running.decide(1)
        running.serves(1)
        running.until(lambda: running.follower.trial is None)
        assert "was begun against the decision of epoch" in running.follower.problem


def test_the_submitter_can_not_approve_a_canary(waiting):
    with gateway_on(waiting) as running:
        started = trials.start(running.instance, "3", "canary", 0.2, ERIN, "let us see")
        with pytest.raises(LciaError, match="can't approve"):
            trials.approve(running.instance, started["id"], SITE, "go on")
        assert running.follower.trial is None
