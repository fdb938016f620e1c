from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from components.tuning.rehearsal import batches, select_rows

SIZES = {
    "new": st.integers(1, 50), "kept": st.integers(0, 50), "steps": st.integers(1, 300),
    "batch_size": st.integers(1, 9), "share": st.floats(0, 1), "seed": st.integers(0, 5),
}  # fmt: skip


@given(**SIZES)
def test_the_share_is_kept_to_within_one_row(new, kept, steps, batch_size, share, seed) -> None:
    rehearsed = 0
    for step, batch in enumerate(batches(new, kept, steps, batch_size, share, seed), 1):
        assert len(batch) == batch_size
        assert all(0 <= row < new + kept for row in batch)
        rehearsed += sum(row >= new for row in batch)
        wanted = share * batch_size * step if kept else 0
        assert wanted - 1 - 1e-6 < rehearsed <= wanted + 1e-6


def test_the_share_is_exact_over_many_steps() -> None:
    for share, batch_size in ((0.2, 4), (0.1, 4), (1 / 3, 3), (0.3, 7)):
        plan = batches(100, 10, 3000, batch_size, share, 0)
        assert sum(row >= 100 for batch in plan for row in batch) == round(share * batch_size * 3000)


@given(**SIZES)
def test_every_row_is_seen_equally_often(new, kept, steps, batch_size, share, seed) -> None:
    seen = Counter(row for batch in batches(new, kept, steps, batch_size, share, seed) for row in batch)
    for rows in (range(new), range(new, new + kept)):
        counts = [seen[row] for row in rows]
        assert not counts or max(counts) - min(counts) <= 1


def test_a_resumed_run_sees_the_same_order_and_another_seed_another() -> None:
    assert batches(20, 5, 30, 4, 0.2, 0) == batches(20, 5, 30, 4, 0.2, 0)
    assert batches(20, 5, 30, 4, 0.2, 0) != batches(20, 5, 30, 4, 0.2, 1)
    assert batches(20, 5, 30, 4, 0.2, 0) == batches(20, 5, 60, 4, 0.2, 0)[:30]


@given(count=st.integers(0, 80), limit=st.none() | st.integers(0, 80), seed=st.integers(0, 5))
def test_selected_rows_are_distinct_sorted_and_limited(count, limit, seed) -> None:
    chosen = select_rows(count, limit, seed)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == (count if limit is None else min(count, limit))
    assert set(chosen) <= set(range(count))
    assert chosen == select_rows(count, limit, seed)
