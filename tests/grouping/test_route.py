"""Routes in words, and what follows where two tasks are about as likely."""

import pytest

from components.grouping.route import UNROUTED, Route

CLEAR = Route("g1", 0.6, 0.3, "movie", exact=False, threshold=0.2, second_task="product")
CLOSE = Route("g1", 0.6, 0.57, "movie", exact=False, evidence=-0.01, threshold=0.2, second_task="product")


@pytest.mark.parametrize("fallback", ["answer", "ask", "base"])
def test_a_clear_lead_is_settled_by_none(fallback):
    assert CLEAR.resolve(fallback, 0.05) == CLEAR
    exact = Route("g1", 1.0, 0.99, "movie", exact=True, second_task="product")
    assert exact.resolve(fallback, 0.5) == exact
    assert UNROUTED.resolve(fallback, 0.05) == UNROUTED


def test_a_small_lead_is_answered_asked_about_or_left_to_the_base_model():
    assert CLOSE.resolve("answer", 0.05) == CLOSE
    asked = CLOSE.resolve("ask", 0.05)
    assert (asked.group, asked.unsure_between) == (None, ("movie", "product"))
    base = CLOSE.resolve("base", 0.05)
    assert (base.group, base.unsure_between) == (None, None)


def test_a_runner_up_below_the_threshold_makes_nothing_unsure():
    alone = Route("g1", 0.21, 0.19, "movie", exact=False, threshold=0.2, second_task="product")
    assert alone.resolve("ask", 0.05) == alone


@pytest.mark.parametrize(
    ("route", "words"),
    [
        (CLEAR, "at least the threshold 0.200"),
        (CLOSE, "-0.010 from the input make 0.590"),
        (CLOSE.resolve("ask", 0.05), "asked which one is meant"),
        (CLOSE.resolve("base", 0.05), "too near to tell"),
        (Route(None, 0.1, 0.0, "movie", exact=False, threshold=0.2), "below the threshold 0.200"),
        (Route("g1", 1.0, 0.0, "movie", exact=True), "one of movie's own"),
        (UNROUTED, "no task to compare"),
    ],
)
def test_every_route_says_why(route, words):
    assert words in route.why
    assert route.to_json()["why"] == route.why


def test_json_names_a_task_only_where_one_answers():
    assert CLEAR.to_json()["task"] == "movie"
    below = Route(None, 0.1, 0.0, "movie", exact=False, threshold=0.2).to_json()
    assert (below["task"], below["nearest_task"], below["runner_up"]) == (None, "movie", None)
