"""The first pipeline: is the task fit to be learnt, and by which group? CPU only; `lcia plan` is this."""

from zenml import pipeline

from steps.check_drift import check_drift
from steps.group_instructions import group_instructions
from steps.ingest_task import ingest_task
from steps.validate_data import validate_data


@pipeline(enable_cache=False)
def assess_task(store: str, order: str) -> None:
    """Validate the data, check drift, find the group."""
    task = ingest_task(store, order)
    validation, _ = validate_data(store, order, task)
    drift, _, _ = check_drift(store, order, task, validation)
    group_instructions(store, order, task, validation, drift)
