"""Packages with random faults; `python -m benchmarks.packages` tries thousands."""

import random

import pytest

from benchmarks.packages import data_sets, fuzz
from benchmarks.packages.__main__ import BAD


@pytest.mark.parametrize("check", [fuzz.check, data_sets.check])
def test_faulty_files_are_refused_or_mean_what_they_say(tmp_path, capsys, check):
    found = []
    for number in range(150):
        folder = tmp_path / str(number)
        folder.mkdir()
        found.append(check(random.Random(f"suite-{number}"), folder, number))
    assert not set(found) & set(BAD), capsys.readouterr().out
    assert {"refused", "accepted, same meaning"} <= set(found)
