import numpy as np
import pytest

from components.grouping.map import map_svg, scale, task_map
from components.grouping.pool import GroupTask, Pool
from components.grouping.report import grouping_html
from components.grouping.router import decide, extend
from components.settings import GroupingSettings

SETTINGS = GroupingSettings()
TEXTS = {
    "movie": ("Is the film review positive or negative?",),
    "product": ("Is the product review positive or negative?",),
    "passive": ("Rewrite the sentence in the passive voice.",),
    "slot": ("Copy the wanted detail out of the booking.",),
}


def pool_of(names) -> Pool:
    pool = Pool.empty("assistant", "b" * 64)
    for i, name in enumerate(names):
        decision = decide(pool, TEXTS[name], SETTINGS)
        pool = extend(
            pool, GroupTask(f"{i:064x}", name, TEXTS[name]), group=decision.group if pool.groups and
            decision.action == "reuse" else None, adapter="f" * 64, curvature=None, parent=None, config="c" * 64,
            settings=SETTINGS,
        )  # fmt: skip
    return pool


def distance(points, a, b):
    by_name = {point.name: np.array([point.x, point.y]) for point in points}
    return float(np.linalg.norm(by_name[a] - by_name[b]))


def test_scaling_recovers_points_of_a_plane():
    points = np.random.default_rng(0).normal(size=(7, 2))
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    found = scale(apart)
    assert np.allclose(np.linalg.norm(found[:, None] - found[None], axis=-1), apart, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_scaling_lowers_the_stress_and_stands_degenerate_input(count):
    equal = 1 - np.eye(count)
    found = scale(equal)
    assert found.shape == (count, 2)
    assert np.isfinite(found).all()
    assert np.isfinite(scale(np.zeros((count, count)))).all()


def test_like_tasks_are_near_and_the_map_is_the_same_every_time():
    pool = pool_of(["movie", "passive", "slot"])
    points = task_map(pool, TEXTS["product"], SETTINGS, "new one")
    assert points == task_map(pool, TEXTS["product"], SETTINGS, "new one")
    assert [p.group for p in points] == ["g1", "g2", "g3", None]
    assert all(0 <= value <= 1 for p in points for value in (p.x, p.y))
    assert distance(points, "new one", "movie") < min(distance(points, "new one", n) for n in ("passive", "slot"))


def test_svg_marks_the_new_task_joins_groups_and_escapes():
    pool = pool_of(["movie", "product", "passive"])
    assert len(pool.groups) == 2
    svg = str(map_svg(task_map(pool, TEXTS["slot"], SETTINGS, "<b>new</b>")))
    assert svg.count("<circle") == 3
    assert svg.count("<path") == 1
    assert svg.count("<line") == 2
    assert "<b>" not in svg
    assert "&lt;b&gt;" in svg
    html = grouping_html(decide(pool, TEXTS["slot"], SETTINGS), points=task_map(pool, TEXTS["slot"], SETTINGS, "slot"))
    assert "Map of the tasks" in html


def test_an_empty_pool_has_no_map():
    pool = Pool.empty("assistant", "b" * 64)
    points = task_map(pool, TEXTS["slot"], SETTINGS, "slot")
    assert [(p.x, p.y) for p in points] == [(0.5, 0.5)]
    assert map_svg(points) == ""
    assert "Map of" not in grouping_html(decide(pool, TEXTS["slot"], SETTINGS), points=points)
