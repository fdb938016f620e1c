from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from components.settings import PseudoRehearsalSettings, RehearsalSettings, TuningSettings
from components.tuning.rehearsal import batches, scale_shares, select_rows

SHARES = st.floats(0, 0.45)
SIZES = {
    "new": st.integers(1, 50), "kept": st.integers(0, 50), "recalled": st.integers(0, 50),
    "shares": st.tuples(SHARES, SHARES), "steps": st.integers(1, 300), "batch_size": st.integers(1, 9),
    "seed": st.integers(0, 5),
}  # fmt: skip


def plan_of(new, kept, recalled, shares, steps, batch_size, seed) -> list[list[int]]:
    return batches(new, [(kept, shares[0]), (recalled, shares[1])], steps, batch_size, seed)


@given(**SIZES)
def test_every_step_has_its_new_rows_and_the_shares_hold_to_within_one_row(**sizes) -> None:
    new, kept = sizes["new"], sizes["kept"]
    counts = [kept, sizes["recalled"]]
    shares = [share if count else 0 for share, count in zip(sizes["shares"], counts, strict=True)]
    spans = [range(new, new + kept), range(new + kept, new + sum(counts))]
    seen = [0, 0]
    for step, batch in enumerate(plan_of(**sizes), 1):
        assert sum(row < new for row in batch) == sizes["batch_size"]
        assert all(0 <= row < new + sum(counts) for row in batch)
        rows = sizes["batch_size"] * step / (1 - sum(shares))
        for k, span in enumerate(spans):
            seen[k] += sum(row in span for row in batch)
            assert shares[k] * rows - 1 - 1e-6 < seen[k] <= shares[k] * rows + 1e-6


def test_the_share_is_exact_over_many_steps() -> None:
    for share, batch_size in ((0.2, 4), (0.1, 9), (0.5, 3), (0.25, 6)):
        plan = batches(100, [(10, share)], 3000, batch_size, 0)
        old = sum(row >= 100 for batch in plan for row in batch)
        assert old == round(share * sum(map(len, plan)))


@given(**SIZES)
def test_every_row_is_seen_equally_often(**sizes) -> None:
    new, kept, recalled = sizes["new"], sizes["kept"], sizes["recalled"]
    seen = Counter(row for batch in plan_of(**sizes) for row in batch)
    for rows in (range(new), range(new, new + kept), range(new + kept, new + kept + recalled)):
        counts = [seen[row] for row in rows]
        assert not counts or max(counts) - min(counts) <= 1


def test_a_resumed_run_sees_the_same_order_and_another_seed_another() -> None:
    def plan(steps: int, seed: int) -> list[list[int]]:
        return batches(20, [(5, 0.2), (7, 0.1)], steps, 4, seed)

    assert plan(30, 0) == plan(30, 0)
    assert plan(30, 0) != plan(30, 1)
    assert plan(30, 0) == plan(60, 0)[:30]


@given(count=st.integers(0, 80), limit=st.none() | st.integers(0, 80), seed=st.integers(0, 5))
def test_selected_rows_are_distinct_sorted_and_limited(count, limit, seed) -> None:
    chosen = select_rows(count, limit, seed)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == (count if limit is None else min(count, limit))
    assert set(chosen) <= set(range(count))
    assert chosen == select_rows(count, limit, seed)


def test_old_rows_take_their_share_by_the_tasks_they_stand_for() -> None:
    settings = TuningSettings(
        rehearsal=RehearsalSettings(share=0.2), pseudo_rehearsal=PseudoRehearsalSettings(share=0.3)
    )

    def shares(rehearsed: int, recalled: int, tasks: int) -> tuple[float, float]:
        scaled = scale_shares(settings, rehearsed, recalled, tasks)
        return round(scaled.rehearsal.share, 9), round(scaled.pseudo_rehearsal.share, 9)

    assert shares(4, 0, 4) == (0.2, 0)
    assert shares(1, 3, 4) == (0.05, 0.375), "three tasks of four have their part of both shares recalled"
    assert shares(0, 4, 4) == (0, 0.5)
    assert shares(4, 4, 4) == (0.2, 0.3)
    assert shares(0, 0, 0) == (0, 0)
