import itertools

import numpy as np
import pytest
from matplotlib.text import Annotation, Text

from components.evaluation import pictures
from components.evaluation.accuracy_matrix import AccuracyMatrix
from components.evaluation.pictures import beta_png, curve_png, distance_png, heat_map_png, history_png, loss_png

HOSTILE = "<script>alert(1)</script>\"'&$x_1$"
HISTORY = {"beta_low": [0.9] * 5, "beta_median": [0.95] * 5, "beta_high": [0.99] * 5, "distance": [1.0, 2, 3, 2, 1]}


def is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) > 3000


def test_pictures_are_pngs_and_repeatable() -> None:
    hits = [1.0] * 30 + [0.0] * 10
    matrix = AccuracyMatrix.from_scores(["movie_sentiment", HOSTILE], [[hits], [hits, []]])
    assert is_png(heat_map_png(matrix))
    assert heat_map_png(matrix) == heat_map_png(matrix)
    assert is_png(history_png(matrix, {HOSTILE: "g1"}))
    assert history_png(matrix) == history_png(matrix)
    assert is_png(history_png(AccuracyMatrix(("a", "b"), ((0.5,), (None, 0.9)))))
    points = [("ema", 0.7, 0.01), ("live", 0.8, 0.2), ("mix-0.5", 0.7, 0.01), (HOSTILE, 0.75, 0.1)]
    assert is_png(curve_png(points, "ema", margin=0.02))
    assert is_png(curve_png(points[:1], "ema"))
    assert is_png(loss_png([2.0, 1.0], [None, 0.5]))
    assert is_png(loss_png([2.0]))
    assert is_png(beta_png(HISTORY, 9))
    assert is_png(distance_png(HISTORY, 9, "the live and the protected weights"))


def test_of_many_tasks_pictures_keep_their_size_and_show_what_was_lost(monkeypatch) -> None:
    figures = []
    monkeypatch.setattr(pictures, "_png", lambda figure: figures.append(figure) or b"")
    names = [f"task_{i:03}" for i in range(100)]
    lost = {names[i] for i in range(3, 99, 8)}  # 12 of them
    rows = [[0.9 - (j > i) * (0.1 if names[i] in lost else 0.01) for i in range(j + 1)] for j in range(100)]
    matrix = AccuracyMatrix(
        names, [[None if (i, j) == (5, 60) else x for i, x in enumerate(row)] for j, row in enumerate(rows)]
    )
    heat_map_png(matrix)
    history_png(matrix)
    assert all(max(figure.get_size_inches()) <= 14 for figure in figures)
    heat, history = figures
    unknown = heat.axes[0].lines[0]
    assert (list(unknown.get_xdata()), list(unknown.get_ydata())) == ([5], [60])
    assert len(heat.axes[0].get_xticklabels()) <= 40
    assert {axes.get_title() for axes in history.axes} == lost
    assert "the 12 tasks of 100 that lost most" in history.get_suptitle()


@pytest.mark.parametrize("spread", [1.0, 0.1, 0.0])
def test_names_of_twelve_points_do_not_cover_each_other(spread, monkeypatch) -> None:
    figures = []
    monkeypatch.setattr(pictures, "_png", lambda figure: figures.append(figure) or b"")
    draw = np.random.default_rng(0)
    mixes = [f"mix-{a}" for a in (0.2, 0.4, 0.5, 0.6, 0.7, 0.8)] + [
        "mix-0.2-0.6",
        "mix-0.6-0.2",
        "mix-0.4-0.8",
        "mix-0.8-0.4",
    ]
    names = ["live", "ema", *mixes]
    curve_png([(n, *(0.5 + 0.1 * spread * draw.random(2))) for n in names[:-1]] + [(names[-1], 0.7, 0.7)], "ema", 0.5)
    figure = figures[0]
    figure.canvas.draw()
    notes = [t for t in figure.axes[0].texts if isinstance(t, Annotation)]
    assert sorted(", ".join(t.get_text().replace("\n", " ") for t in notes).split(", ")) == sorted(names)
    boxes = [Text.get_window_extent(note) for note in notes]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_running_mean_is_over_the_known_values_nearby() -> None:
    values = np.array([1.0, np.nan, 3.0, np.nan, np.nan, np.nan, 8.0])
    smooth = pictures._running_mean(values, 3)
    for i in range(len(values)):
        near = values[max(0, i - 1) : max(0, i - 1) + 3]
        known = near[~np.isnan(near)]
        assert smooth[i] == pytest.approx(known.mean()) if len(known) else np.isnan(smooth[i])


def test_entries_of_a_merged_history_stand_in_the_middle_of_their_steps() -> None:
    assert pictures._places(4, 4) == [1, 2, 3, 4]
    assert pictures._places(3, 6) == [1.5, 3.5, 5.5]
    assert pictures._places(3, 5) == [1.5, 3.5, 5]
