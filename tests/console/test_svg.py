"""Graphics: the graph of versions joins what belongs together, and hostile names stay text."""

import re

from lcia.console import svg


def _dots(pieces: list[str]) -> list[int]:
    """Lane of each row's dot."""
    return [round((float(re.search(r'<circle[^>]* cx="([\d.]+)"', piece)[1]) - 10) / 14) for piece in pieces]


def _bends(piece: str) -> list[tuple[int, int]]:
    """Lanes that each bend of a row leads from and to."""
    found = re.findall(r'd="M([\d.]+) [\d.]+ C[^"]* ([\d.]+) [\d.]+"', piece)
    return [(round((float(a) - 10) / 14), round((float(b) - 10) / 14)) for a, b in found]


def test_the_line_of_the_champion_runs_straight_and_others_beside_it() -> None:
    rows = [("d", "b"), ("c", "b"), ("b", "a"), ("a", None)]
    pieces = svg.lanes(rows, ["d", "b", "a"])
    assert _dots(pieces) == [0, 1, 0, 0]
    assert _bends(pieces[1]) == [(1, 0)]  # made on what the straight line waits for: joins it
    assert "chosen" in pieces[0]
    assert "aside" in pieces[1]


def test_a_branch_passes_versions_that_it_was_not_made_on() -> None:
    rows = [("d", "a"), ("c", "b"), ("b", "a"), ("a", None)]
    pieces = svg.lanes(rows, ["c", "b", "a"])
    assert _dots(pieces) == [1, 0, 0, 0]
    assert (1, 0) in _bends(pieces[3])  # only at the version it was made on
    assert all((1, 0) not in _bends(piece) for piece in pieces[:3])
    assert pieces[1].count('class="rail" x1="24"') == 1


def test_after_a_rollback_the_newer_line_stands_aside() -> None:
    rows = [("c", "b"), ("b", "a"), ("a", None)]
    assert _dots(svg.lanes(rows, ["b", "a"])) == [1, 0, 0]


def test_many_branches_of_one_version_take_two_lanes() -> None:
    rows = [*((f"x{n}", "a") for n in range(40)), ("a", None)]
    assert max(_dots(svg.lanes(rows, ["a"]))) == 2


def test_names_are_escaped() -> None:
    assert "<script" not in svg.bars([("<script>", 1.0)], "<b>")
    assert "<script" not in svg.lines([("<script>", [(0.0, 1.0)]), ("b", [(0.0, 2.0)])], "<script>")
