"""Verbs about trials: what they print, and their exit codes."""

from typing import TYPE_CHECKING

from small_loop import Learnt, SmallLoop

if TYPE_CHECKING:
    from tests.cli.conftest import Lcia


def test_without_a_trial_the_list_says_how_to_start_one(lcia: "Lcia", learnt: Learnt) -> None:
    assert lcia(learnt.loop, "trial").out.startswith("No trial yet; `lcia trial start N --shadow")
    assert lcia(learnt.loop, "trial", "--json").json == {"trials": []}


def test_a_shadow_from_its_start_to_its_record(lcia: "Lcia", fourth: SmallLoop) -> None:
    begun = lcia(fourth, "trial", "start", 4, "--shadow", "--share", 0.5, "--reason", "how does it do", "--as", "erin")
    assert (begun.code, begun.out) == (0, "trial 1, shadow of 0.5 with version 4 (booking_slot@1): under way\n")
    assert "trial 1, shadow of 0.5 with version 4 (booking_slot@1): under way" in lcia(fourth, "status").out
    listed = lcia(fourth, "trial", "--version", 4).out
    assert "candidate: 0 requests, 0 errors, 0 slow, 0 none-routed" in listed
    assert "rule errors: 0% of the way to a stop (e-value 1 of 60)" in listed
    ended = lcia(fourth, "trial", "stop", 1, "--reason", "seen enough", "--as", "erin")
    assert "ended by erin (person): seen enough; its record" in ended.out
    assert "Approvals given before count no more." in ended.out
    assert "ended by erin (person): seen enough" in lcia(fourth, "show", 4).out
    looked = lcia(fourth, "trial", "answers", 1, "--as", "ops")
    assert looked.out == "0 changed answers; this look is in the log\n"


def test_a_canary_waits_and_its_asker_can_not_approve_it(lcia: "Lcia", fourth: SmallLoop) -> None:
    asked = lcia(fourth, "trial", "start", 4, "--canary", 0.05, "--reason", "shadow agreed", "--as", "erin")
    assert asked.code == 3
    assert "waits for approval by somebody else; `lcia trial approve 1`" in asked.out
    own = lcia(fourth, "trial", "approve", 1, "--reason", "mine", "--as", "erin")
    assert own.code == 1
    assert "erin asked for trial 1" in own.err
    assert lcia(fourth, "trial", "approve", 1, "--reason", "read", "--as", "ops", "--json").json["state"] == "under_way"


def test_mistakes_are_refused_in_words(lcia: "Lcia", fourth: SmallLoop) -> None:
    for options in (["--shadow", "--canary", 0.1], []):
        assert (
            "give either --shadow or --canary SHARE" in lcia(fourth, "trial", "start", 4, *options, "--reason", "x").err
        )
    much = lcia(fourth, "trial", "start", 4, "--canary", 0.9, "--reason", "x")
    assert "a canary of at most 0.2 (gateway.trial.most_canary)" in much.err
    assert "expected pending" in lcia(fourth, "trial", "start", 3, "--shadow", "--reason", "x").err
    assert "no trial of assistant has the number 7" in lcia(fourth, "trial", "stop", 7, "--reason", "x").err
