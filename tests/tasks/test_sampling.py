"""Rows that are drawn: at random, as many as asked for, the same each time, in their order."""

from hypothesis import given
from hypothesis import strategies as st

from components.tasks.sampling import sample_rows


@given(st.lists(st.integers(), max_size=50), st.one_of(st.none(), st.integers(0, 60)), st.text())
def test_as_many_as_asked_for_in_their_order(rows: list[int], limit: int | None, seed: str) -> None:
    drawn = sample_rows(rows, limit, seed)
    assert len(drawn) == min(len(rows), len(rows) if limit is None else limit)
    rest = iter(rows)
    assert all(row in rest for row in drawn)
    assert sample_rows(rows, limit, seed) == drawn


def test_a_sorted_split_is_not_read_from_its_start() -> None:
    drawn = sample_rows(range(1000), 100, "a task")
    assert 400 < sum(drawn) / len(drawn) < 600
    assert drawn != sample_rows(range(1000), 100, "another task")
