"""Work that an assessment announces: rows of earlier tasks and of the Fisher measurement are part of it."""

from dataclasses import replace

import pytest

from components.grouping.pool import Group, GroupTask, Pool
from components.grouping.router import decide
from components.quality.assessment import estimate
from components.settings import Settings

NEW = {"steps": 225, "training_rows": 600}


@pytest.fixture
def pool():
    def pool(*kept: bool) -> Pool:
        tasks = tuple(
            GroupTask(f"{n:064d}", f"task_{n}", (f"Do it {n}.",), "c" * 64 if keeps else None)
            for n, keeps in enumerate(kept)
        )
        empty = Pool.empty("assistant", "b" * 64)
        return replace(empty, groups=(Group("g1", "a" * 64, None, tasks),)) if tasks else empty

    return pool


def work(snapshot, pool: Pool, **tuning) -> dict[str, int]:
    settings = Settings.model_validate({"tuning": tuning, "grouping": {"rule": "single"}})
    return estimate(settings, snapshot, pool, decide(pool, snapshot.instructions(), settings.grouping))


@pytest.mark.parametrize(
    ("kept", "visits"),
    [
        ((), 1800 + 60),  # a new group: three passes over 600 rows, and one Fisher of 60 rows
        ((True,), 1800 / 0.8 + 120),  # rehearsed, and two Fishers
        ((False,), 1800 / 0.5 + 120),  # recalled, for want of kept rows at both shares
        ((True, False), 1800 / 0.65 + 120),
    ],
)
def test_rows_read_are_counted_with_those_of_earlier_tasks(take_example, pool, kept, visits) -> None:
    shares = {"rehearsal": {"share": 0.2}, "pseudo_rehearsal": {"share": 0.3, "tasks": "without_rows"}}
    told = work(take_example("movie_sentiment", train=600), pool(*kept), **shares)
    assert {name: told[name] for name in NEW} == NEW
    assert told["row_visits"] == round(visits)


def test_without_the_curvature_rule_no_fisher_is_measured(take_example, pool) -> None:
    told = work(take_example("movie_sentiment", train=600), pool(), ema={"rule": "fixed"})
    assert told["row_visits"] == 1800


def test_rows_that_are_left_out_are_no_work(take_example, pool) -> None:
    told = work(take_example("movie_sentiment", train=600), pool(), steps=10, ema={"fisher_rows": 1})
    assert (told["training_rows"], told["row_visits"]) == (80, 81)
