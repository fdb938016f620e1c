"""The pipeline of a change of wordings: evaluate, gate, register. Nothing is tuned."""

from zenml import pipeline

from steps.evaluate_forgetting import evaluate_forgetting
from steps.gate import gate
from steps.register_change import register_change


@pipeline(enable_cache=False)
def change_task(store: str, order: str) -> None:
    """Make one candidate with the adapters that the champion has."""
    evaluation, evaluation_report = evaluate_forgetting(store, order, "")
    verdict, gate_report = gate(store, order, "", evaluation)
    register_change(store, order, evaluation, verdict, evaluation_report, gate_report)
