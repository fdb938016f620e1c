import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.evaluation.accuracy_matrix import AccuracyMatrix, MatrixError, _expected_maximum


def simulated(seed: int, tasks: int, rows: int, flips: float) -> AccuracyMatrix:
    """Versions that differ from a common truth by independent flips: no true change."""
    generator = np.random.default_rng(seed)
    truth = [(generator.random(rows) < 0.7).astype(float) for _ in range(tasks)]
    scores = [
        [np.where(generator.random(rows) < flips, 1 - truth[i], truth[i]) for i in range(j + 1)] for j in range(tasks)
    ]
    return AccuracyMatrix.from_scores([f"t{i}" for i in range(tasks)], [[list(c) for c in row] for row in scores])


def test_definitions_by_hand():
    matrix = AccuracyMatrix(("a", "b", "c"), ((0.8,), (0.9, 0.6), (0.7, 0.65, 0.5)))
    assert matrix.avg_acc == pytest.approx((0.7 + 0.65 + 0.5) / 3)
    assert matrix.new_acc == pytest.approx((0.8 + 0.6 + 0.5) / 3)
    assert matrix.forgetting == pytest.approx(((0.9 - 0.7) + (0.6 - 0.65)) / 2)
    assert matrix.bwt == pytest.approx(((0.7 - 0.8) + (0.65 - 0.6)) / 2)
    assert [(c.first, c.best, c.last) for c in matrix.changes()] == [
        (0.8, 0.9, 0.7), (0.6, 0.6, 0.65), (0.5, 0.5, 0.5),
    ]  # fmt: skip


LOWER = st.integers(1, 5).flatmap(lambda n: st.tuples(*(st.tuples(*[st.floats(0, 1)] * (j + 1)) for j in range(n))))


@settings(max_examples=100, deadline=None)
@given(LOWER)
def test_numbers_equal_a_plain_reference(rows):
    tasks = tuple(f"t{i}" for i in range(len(rows)))
    matrix = AccuracyMatrix(tasks, rows)
    last = len(rows) - 1
    assert matrix.avg_acc == pytest.approx(sum(rows[last]) / (last + 1))
    assert matrix.new_acc == pytest.approx(sum(rows[i][i] for i in range(last + 1)) / (last + 1))
    if last:
        forgetting = sum(max(rows[j][i] for j in range(i, last)) - rows[last][i] for i in range(last)) / last
        bwt = sum(rows[last][i] - rows[i][i] for i in range(last)) / last
        assert matrix.forgetting == pytest.approx(forgetting)
        assert matrix.bwt == pytest.approx(bwt)
        assert matrix.forgetting >= -matrix.bwt - 1e-12


GAPS = st.integers(1, 5).flatmap(
    lambda n: st.tuples(*(st.tuples(*[st.none() | st.floats(0, 1)] * (j + 1)) for j in range(n)))
)


@settings(max_examples=200, deadline=None)
@given(GAPS)
def test_figures_after_each_task_are_those_of_the_matrix_up_to_it(rows):
    tasks = tuple(f"t{i}" for i in range(len(rows)))
    parts = [AccuracyMatrix(tasks[: j + 1], rows[: j + 1]) for j in range(len(rows))]
    assert AccuracyMatrix(tasks, rows).after_each == [
        (pytest.approx(part.avg_acc), pytest.approx(part.bwt)) for part in parts
    ]


def test_json_shape():
    matrix = AccuracyMatrix.from_scores(["a", "b"], [[[1, 0, 1, 1]], [[1, 0, 0, 1], [0.5, 1]]])
    value = json.loads(json.dumps(matrix.to_json()))
    assert value["tasks"] == ["a", "b"]
    assert value["matrix"] == [[0.75, None], [0.5, 0.75]]
    assert (value["avg_acc"], value["new_acc"], value["forgetting"], value["bwt"]) == (
        0.625,
        0.75,
        0.25,
        -0.25,
    )
    assert set(value["intervals"]) == {"avg_acc", "new_acc", "forgetting", "bwt"}
    for name, (low, high) in value["intervals"].items():
        assert low <= value[name] <= high


def test_one_and_no_task():
    one = AccuracyMatrix.from_scores(["a"], [[[1, 0]]]).to_json()
    assert (one["forgetting"], one["bwt"], one["avg_acc"]) == (0.0, 0.0, 0.5)
    none = AccuracyMatrix((), ()).to_json()
    assert (none["matrix"], none["avg_acc"], none["bwt"], none["intervals"]) == ([], None, None, {})


def test_a_task_without_evaluation_rows_leaves_the_means():
    matrix = AccuracyMatrix.from_scores(["a", "b", "c"], [[[1, 1]], [[], [1, 0]], [[], [1, 1], [0, 0]]])
    assert matrix.avg_acc == 0.5
    assert matrix.bwt == 0.5
    assert matrix.to_json()["matrix"][1] == [None, 0.5, None]
    assert matrix.changes()[0].change is None
    assert set(matrix.intervals) == {"avg_acc", "new_acc", "forgetting", "bwt"}


def test_floor_matches_simulated_retrainings():
    """0.006 / 0.012 / 0.017 after 1 / 3 / 10 retrainings at n = 200 and 5 % flips between two versions."""
    for retrainings, expected in [(1, 0.006), (3, 0.012), (10, 0.017)]:
        floor = _expected_maximum(retrainings + 1) * np.sqrt(0.05 / 400)
        assert floor == pytest.approx(expected, abs=0.001)
    share = (1 - np.sqrt(1 - 2 * 0.05)) / 2  # flips of each version, so that two of them differ in 5 % of rows
    drawn = [simulated(seed, tasks=5, rows=200, flips=share) for seed in range(60)]
    assert np.mean([m.forgetting for m in drawn]) == pytest.approx(drawn[0].forgetting_floor, abs=0.003)


def test_floor_is_zero_where_nothing_was_retrained():
    cell = [1, 0, 1]
    matrix = AccuracyMatrix.from_scores(["a", "b", "c"], [[cell], [cell, cell], [cell, cell, cell]])
    assert matrix.forgetting_floor == pytest.approx(0, abs=1e-9)
    assert AccuracyMatrix(("a",), ((0.5,),)).forgetting_floor is None


def test_interval_covers_the_truth_about_as_often_as_stated():
    hits = sum(
        m.intervals["bwt"].low <= 0 <= m.intervals["bwt"].high for m in (simulated(s, 3, 150, 0.1) for s in range(60))
    )
    assert hits >= 50


def test_figures_over_a_part_of_the_tasks():
    matrix = simulated(3, tasks=4, rows=80, flips=0.1)
    whole = matrix.part(matrix.tasks)
    assert (whole.avg_acc, whole.bwt) == (pytest.approx(matrix.avg_acc), pytest.approx(matrix.bwt))
    for name in ("avg_acc", "bwt"):
        low, high = whole.intervals[name].low, whole.intervals[name].high
        assert (low, high) == (
            pytest.approx(matrix.intervals[name].low),
            pytest.approx(matrix.intervals[name].high),
        )
    last = matrix.rows[-1]
    part = matrix.part({"t1", "t3"})
    assert part.tasks == ("t1", "t3")
    assert part.avg_acc == pytest.approx((last[1] + last[3]) / 2)
    assert part.bwt == pytest.approx(last[1] - matrix.rows[1][1]), "the newest task has no backward transfer"
    newest = matrix.part({"t3"})
    assert (newest.bwt, set(newest.intervals)) == (None, {"avg_acc"})
    assert matrix.part(()).avg_acc is None
    assert AccuracyMatrix(("a", "b"), ((0.5,), (0.4, 0.9))).part({"a"}).intervals == {}


def test_what_is_not_a_triangle_of_fractions_is_refused():
    with pytest.raises(MatrixError, match="one row per task"):
        AccuracyMatrix(("a", "b"), ((0.5,),))
    with pytest.raises(MatrixError, match="1, 2"):
        AccuracyMatrix(("a", "b"), ((0.5,), (0.5,)))
    with pytest.raises(MatrixError, match="expected 0 to 1"):
        AccuracyMatrix(("a",), ((50.0,),))
    with pytest.raises(MatrixError, match="same split"):
        AccuracyMatrix.from_scores(["a", "b"], [[[1, 0]], [[1], [1]]])
