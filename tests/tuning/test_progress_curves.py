"""Curves of a record: where a long run's merged history stands."""

from components.tuning.progress_curves import curves


def test_merged_entries_stand_at_their_last_step() -> None:
    history = {"beta_median": [0.1, 0.2, 0.3], "distance": [1.0, 2.0, 3.0]}
    record = {"rule": "fixed", "losses": [1.0] * 10, "old_losses": [None] * 9 + [0.5], "history": history}
    found = curves(record)
    assert found["beta"] == [(4, 0.1), (8, 0.2), (10, 0.3)]
    assert found["loss_earlier_tasks"] == [(10, 0.5)]
    assert found["loss"] == [(step, 1.0) for step in range(1, 11)]
