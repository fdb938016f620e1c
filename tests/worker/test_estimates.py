import sys

import pytest

from components.settings import Settings
from lcia.worker.estimates import _layers, default_seconds, gpus

TWO_NODES = {"steps": {"tune": {"nodes": 2, "gpu": 4}}}


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"cluster": TWO_NODES}, 8),
        ({"cluster": {}}, 0),
        ({"cluster": TWO_NODES, "base_model": {"device": "cpu"}}, 0),
        ({"base_model": {"device": "cpu"}}, 0),
    ],
)
def test_gpus_are_told_without_torch(monkeypatch, sections, expected):
    monkeypatch.setitem(sys.modules, "torch", None)  # as in the image of the worker
    assert gpus(Settings.model_validate(sections)) == expected


@pytest.mark.parametrize(("processes", "expected"), [("auto", 4), (2, 2), (8, 4)])
def test_on_one_machine_its_gpus_are_counted(monkeypatch, processes, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert gpus(Settings.model_validate({"base_model": {"processes": processes}})) == expected


WORK = {"steps": 225, "training_rows": 600, "row_visits": 2250, "predictions": 300}


def test_more_rows_read_and_more_layers_take_longer():
    seconds = default_seconds(WORK, 6)
    assert default_seconds(WORK | {"row_visits": 4500}, 6) > 1.5 * seconds
    assert default_seconds(WORK, 12) > 1.2 * seconds
    assert default_seconds(WORK | {"steps": 1}, 6) == seconds  # rows cost, steps do not


def test_a_record_of_the_release_before_counts_steps_of_four_rows():
    old = {"steps": 120, "training_rows": 240, "predictions": 300}
    assert default_seconds(old, 6) == default_seconds(old | {"row_visits": 480}, 6)


def test_a_depth_in_words_is_that_of_the_embedded_model():
    assert [_layers(Settings.model_validate({"adapter": {"top_layers": depth}})) for depth in (7, "all")] == [7, 30]
