import sys

import pytest

from components.settings import Settings
from lcia.worker.estimates import gpus

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
