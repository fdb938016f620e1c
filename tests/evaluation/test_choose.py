"""The choice of a point: left out only with proof, then the best for the group; chance counts as nothing."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.evaluation.choose import Point, choose_point

MARGIN = 0.02


def rows(hits: int, of: int = 100) -> tuple[float, ...]:
    """Scores of `of` rows, the first `hits` of them right."""
    return (1.0,) * hits + (0.0,) * (of - hits)


def flipped(count: int, lost: int, won: int) -> tuple[float, ...]:
    """`count` rows that were right but for the last fifth: `lost` of them are wrong now, `won` others right."""
    right, wrong = count * 4 // 5, count - count * 4 // 5
    return (0.0,) * lost + (1.0,) * (right - lost) + (1.0,) * won + (0.0,) * (wrong - won)


BEFORE = flipped(100, 0, 0)


@st.composite
def curves(draw):
    names = draw(st.lists(st.sampled_from("abc"), unique=True, max_size=3))
    each = st.lists(st.sampled_from((0.0, 0.5, 1.0)), min_size=5, max_size=5)
    before = {name: draw(each) for name in names}
    count = draw(st.integers(1, 4))
    return [Point(f"p{i}", draw(each), {name: draw(each) for name in names}) for i in range(count)], before


@settings(max_examples=30, deadline=None)
@given(curves(), st.integers(0, 50).map(lambda n: n / 100))
def test_nothing_left_out_is_chosen_while_something_else_is_there(curve, margin) -> None:
    points, before = curve
    choice = choose_point(points, before, margin)
    assert choice.point in points
    assert choice.reason.startswith(f"{choice.point.name}: ")
    assert choice.losses.keys() == ({point.name for point in points} if before else set())
    if before and any(not loss.shown for loss in choice.losses.values()):
        assert not choice.losses[choice.point.name].shown


@given(st.lists(st.integers(0, 100), min_size=1, max_size=5))
def test_without_prior_tasks_the_best_learner_wins(hits) -> None:
    choice = choose_point([Point(f"p{i}", rows(n), {}) for i, n in enumerate(hits)], {}, 0.0)
    assert sum(choice.point.new) == max(hits)
    assert choice.reason == (
        f"{choice.point.name}: best validation score of the new task ({max(hits) / 100:.3f}); nothing to protect"
    )


@pytest.mark.parametrize("tasks", [1, 7, 30])
def test_a_harmless_point_is_not_left_out_as_tasks_become_more(tasks) -> None:
    """Hits flip either way by chance: 30 noisy drops have a largest one, and the rule before went by it."""
    draw = random.Random(tasks)
    before = {f"t{i}": BEFORE for i in range(tasks)}
    left_out = worse = 0
    for _ in range(40):
        lost, won = ([sum(draw.random() < 0.025 for _ in range(100)) for _ in before] for _ in range(2))
        prior = {name: flipped(100, a, b) for name, a, b in zip(before, lost, won, strict=True)}
        points = [Point("ema", rows(50), before), Point("live", rows(70), prior)]
        choice = choose_point(points, before, MARGIN)
        left_out += bool(choice.losses["live"].shown)
        worse += max(a - b for a, b in zip(lost, won, strict=True)) > 100 * MARGIN
    assert left_out <= 3
    assert worse >= (3 if tasks == 1 else 20), "the largest drop alone is over the margin by chance"


def test_a_task_that_lost_a_tenth_is_seen_among_thirty() -> None:
    before = {f"t{i}": BEFORE for i in range(30)}
    prior = {**{name: flipped(100, 2, 2) for name in before}, "t7": flipped(100, 14, 2)}
    choice = choose_point([Point("ema", rows(50), before), Point("live", rows(90), prior)], before, MARGIN)
    assert choice.point.name == "ema"
    assert choice.losses["live"].shown == "0.120 of t7"
    assert "among the 1 of 2 points not shown to lose more than 0.020 of earlier tasks" in choice.reason


def test_a_small_loss_of_every_task_is_seen_in_all_rows_together() -> None:
    before = {f"t{i}": BEFORE for i in range(30)}
    prior = {name: flipped(100, 5, 1) for name in before}
    choice = choose_point([Point("ema", rows(50), before), Point("live", rows(90), prior)], before, MARGIN)
    assert (choice.point.name, choice.losses["live"].shown) == ("ema", "0.040 over the 3000 rows of earlier tasks")


def test_a_loss_that_is_allowed_counts_for_as_many_tasks_as_there_are() -> None:
    """A hundredth of 30 tasks is more than a tenth of the new one; of a single task it is less."""
    for tasks, name in ((30, "ema"), (1, "live")):
        before = {f"t{i}": flipped(1000, 0, 0) for i in range(tasks)}
        prior = {task: flipped(1000, 12, 2) for task in before}
        choice = choose_point([Point("ema", rows(50), before), Point("live", rows(60), prior)], before, MARGIN)
        assert not choice.losses["live"].shown
        assert choice.point.name == name


def test_what_is_within_one_standard_error_counts_as_nothing() -> None:
    before = {"a": BEFORE, "b": BEFORE}
    prior = {"a": flipped(100, 3, 2), "b": flipped(100, 2, 2)}
    choice = choose_point([Point("ema", rows(50), before), Point("live", rows(51), prior)], before, MARGIN)
    loss = choice.losses["live"]
    assert (loss.mean, loss.beyond) == (pytest.approx(0.005), 0.0)
    assert loss.error == pytest.approx((5 + 4) ** 0.5 / 200)
    assert choice.reason == (
        "live: best for all 3 tasks of the group among the 2 of 2 points not shown to lose more than 0.020 of earlier "
        "tasks; the new task scores 0.510, the 2 earlier tasks on average 0.005 less than before, which is within one "
        "standard error (0.015) and counts as nothing"
    )


def test_what_the_tasks_gain_counts_as_well() -> None:
    before = {"a": BEFORE}
    points = [Point("ema", rows(50), {"a": flipped(100, 0, 12)}), Point("live", rows(55), before)]
    choice = choose_point(points, before, MARGIN)
    assert choice.point.name == "ema"
    assert choice.losses["ema"].beyond == pytest.approx(-(0.12 - 0.12**0.5 / 10))
    assert "0.120 more than before, of which 0.085 counts: the part beyond one standard error" in choice.reason


def test_ties_go_to_the_protected_point() -> None:
    before = {"a": BEFORE}
    same = [Point(name, rows(50), before) for name in ("ema", "mix-0.5", "live")]
    assert choose_point(same, before, MARGIN).point.name == "ema"


def test_if_every_point_loses_the_one_that_loses_least_is_taken() -> None:
    before = {"a": BEFORE, "b": BEFORE}
    points = [
        Point("ema", rows(50), {"a": flipped(100, 30, 0), "b": flipped(100, 30, 0)}),
        Point("live", rows(90), {"a": flipped(100, 28, 0), "b": flipped(100, 30, 0)}),
    ]
    choice = choose_point(points, before, MARGIN)
    assert choice.reason == (
        "live: every point is shown to lose more than 0.020 of earlier tasks; this one loses least, 0.290 on average"
    )


def test_scores_between_0_and_1_are_judged_too() -> None:
    draw = random.Random(0)
    before = {name: [draw.uniform(0.5, 1) for _ in range(60)] for name in "abc"}
    noisy = {name: [min(1.0, max(0.0, x + draw.gauss(0, 0.05))) for x in each] for name, each in before.items()}
    worse = {name: [max(0.0, x - 0.3 * draw.random()) for x in each] for name, each in before.items()}
    points = [Point("ema", rows(30, 60), before), Point("mix", rows(40, 60), noisy), Point("live", rows(59, 60), worse)]
    choice = choose_point(points, before, MARGIN)
    assert choice.point.name == "mix"
    assert "over the 180 rows" in choice.losses["live"].shown
