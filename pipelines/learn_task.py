"""The second pipeline: tune, evaluate, gate, register. It uses a GPU if the stack has one."""

from zenml import pipeline

from steps.evaluate_forgetting import evaluate_forgetting
from steps.gate import gate
from steps.register_candidate import register_candidate
from steps.tune import tune


@pipeline(enable_cache=False)
def learn_task(store: str, order: str) -> None:
    """Make one candidate."""
    tuning, tuning_report = tune(store, order)
    evaluation, evaluation_report = evaluate_forgetting(store, order, tuning)
    verdict, gate_report = gate(store, order, tuning, evaluation)
    register_candidate(store, order, tuning, evaluation, verdict, tuning_report, evaluation_report, gate_report)
