"""The pipeline of a task that is tuned before its turn: its tuning alone. Whoever learns it later finds the result."""

from zenml import pipeline

from steps.tune import tune


@pipeline(enable_cache=False)
def tune_task(store: str, order: str) -> None:
    """Tune one group on one task."""
    tune(store, order)
