import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluation.choose import Point, choose_point

SCORE = st.integers(0, 100).map(lambda n: n / 100)


@st.composite
def curves(draw):
    tasks = draw(st.lists(st.sampled_from("abc"), unique=True, max_size=3))
    before = {t: draw(SCORE) for t in tasks}
    count = draw(st.integers(1, 6))
    points = [Point(f"p{i}", draw(SCORE), {t: draw(SCORE) for t in tasks}) for i in range(count)]
    return points, before


@given(curves(), SCORE)
def test_the_chosen_point_is_admissible_and_no_admissible_one_is_better(curve, margin) -> None:
    points, before = curve
    chosen, reason = choose_point(points, before, margin)
    admissible = [p for p in points if p.worst_drop(before) <= margin + 1e-9]
    assert chosen in points
    assert reason.startswith(f"{chosen.name}: ")
    if admissible:
        assert chosen in admissible
        assert chosen.new == max(p.new for p in admissible)
        assert next(p for p in admissible if p.new == chosen.new) is chosen  # ties: the first listed
    else:
        assert chosen.worst_drop(before) == min(p.worst_drop(before) for p in points)
        assert "every point loses more" in reason


@given(curves(), SCORE)
def test_a_wider_margin_never_learns_less(curve, margin) -> None:
    points, before = curve
    tight, _ = choose_point(points, before, margin)
    wide, _ = choose_point(points, before, 1.0)
    if tight.worst_drop(before) <= margin + 1e-9:
        assert wide.new >= tight.new


@given(st.lists(SCORE, min_size=1, max_size=5))
def test_without_prior_tasks_the_best_learner_wins(scores) -> None:
    points = [Point(f"p{i}", s, {}) for i, s in enumerate(scores)]
    chosen, reason = choose_point(points, {}, 0.0)
    assert chosen.new == max(scores)
    assert "nothing to protect" in reason


def test_the_worst_drop_is_over_tasks_and_gains_do_not_make_up_for_it() -> None:
    before = {"a": 0.5, "b": 0.8}
    assert Point("p", 1.0, {"a": 0.9, "b": 0.7}).worst_drop(before) == pytest.approx(0.1)
    assert Point("p", 1.0, {"a": 0.9, "b": 0.9}).worst_drop(before) == pytest.approx(-0.1)


def test_a_drop_of_exactly_the_margin_is_admissible() -> None:
    points = [Point("ema", 0.5, {"a": 0.8}), Point("live", 0.9, {"a": 0.7})]
    assert choose_point(points, {"a": 0.8}, 0.1)[0].name == "live"
    assert choose_point(points, {"a": 0.8}, 0.09)[0].name == "ema"


def test_among_those_that_lose_equally_the_better_learner_is_taken() -> None:
    points = [Point("ema", 0.5, {"a": 0.1}), Point("live", 0.9, {"a": 0.1})]
    assert choose_point(points, {"a": 0.8}, 0.1)[0].name == "live"
