"""Packages with random faults; `python -m benchmarks.packages` tries thousands."""

import random

from benchmarks.packages.fuzz import check


def test_faulty_packages_are_refused_or_mean_what_they_say(tmp_path, capsys):
    found = []
    for number in range(150):
        folder = tmp_path / str(number)
        folder.mkdir()
        found.append(check(random.Random(f"suite-{number}"), folder, number))
    assert set(found) <= {"refused", "accepted, same meaning"}, capsys.readouterr().out
    assert len(set(found)) == 2
