"""Instructions that no task answered: kept only where that is allowed, masked, bounded, and put before people."""

import time

import pytest
from small_gateway import gateway_on
from small_loop import Learnt

from components.grouping.route import UNROUTED, Route
from components.serving.conversation import Conversation
from lcia.gateway.unrouted import PLACES, Unrouted
from lcia.operations import wordings

ASKED = "How do I reach the harbour? Write to ann@example.org"


def far(text: str, **route: object) -> tuple[Conversation, Route]:
    facts = {"group": None, "similarity": 0.2, "runner_up": 0.1, "nearest_task": "movie_sentiment", "exact": False}
    return Conversation((("user", text),)), Route(**{**facts, **route})


def test_only_what_went_to_no_task_is_noted_masked_and_without_its_input():
    waiting = Unrouted()
    waiting.add(*far(f"{ASKED}\nA long text to work on."))
    waiting.add(*far(ASKED))  # again
    waiting.add(*far("a b", group="g1"))
    waiting.add(*far("a b", unsure_between=("movie_sentiment", "passive_voice")))
    waiting.add(Conversation((("user", "a b"),)), UNROUTED)
    waiting.add(*far("x" * 301))
    waiting.add(*far(" "))
    (entry,) = waiting.report()["no_route"]
    assert entry["task"] == "movie_sentiment"
    assert entry["text"].startswith("How do I reach the harbour?")
    assert "ann@example.org" not in entry["text"]
    assert waiting.report() == {}


def test_a_flood_fills_few_places():
    waiting = Unrouted()
    for number in range(1000):
        waiting.add(*far(f"question {number}"))
    assert len(waiting.report()["no_route"]) == PLACES


@pytest.mark.parametrize("keep", ["masked", "nothing"])
def test_people_get_them_as_proposals_where_keeping_is_allowed(learnt: Learnt, tmp_path, keep):
    with gateway_on(learnt.loop.copy(tmp_path), f"gateway.keep={keep}") as running:
        reply = running.chat(ASKED).json()
        assert reply["lcia"]["route"] == "none"
        running.chat(ASKED, "base")  # asked for: no router was involved
        end = time.monotonic() + 20
        while keep == "masked" and not wordings.wordings(running.instance)["proposals"]:
            assert time.monotonic() < end
            time.sleep(0.2)
        if keep == "nothing":
            time.sleep(1)
        proposals = wordings.wordings(running.instance)["proposals"]
    assert [one["source"] for one in proposals] == (["request"] if keep == "masked" else [])
    assert not any("ann@example.org" in one["text"] for one in proposals)


def test_the_service_keeps_nothing_that_its_own_settings_do_not_allow(learnt: Learnt, tmp_path):
    from tests.operations.test_serving import ask

    instance = learnt.loop.copy(tmp_path).open()
    fields = {"replica": "a-1", "engine": "embedded", "ready": True, "problem": ""}
    sent = [{"task": "movie_sentiment", "text": "Good or bad?"}, {"task": "no_such_task", "text": "a"}]
    ask(instance, "report", **fields, no_route=sent)
    assert wordings.wordings(instance)["proposals"] == []
    allowed = learnt.loop.copy(tmp_path / "b").open("gateway.keep=masked")
    ask(allowed, "report", **fields, no_route=sent)
    assert [one["text"] for one in wordings.wordings(allowed)["proposals"]] == ["Good or bad?"]
