"""Step: how far the task is from what was learnt before."""

from typing import Annotated

from zenml import step
from zenml.types import HTMLString

from components.quality.drift import check_drift as measure_drift
from components.quality.drift import evidently_report, to_html
from components.tasks.snapshot import load_snapshot
from steps.order import open_order


@step(enable_cache=False)
def check_drift(
    store: str, order: str, task: str
) -> tuple[Annotated[str, "drift"], Annotated[HTMLString, "drift_report"], Annotated[HTMLString, "evidently_report"]]:
    """Digest of the drift record, with our report and Evidently's."""
    context = open_order(store, order)
    snapshot, prior = load_snapshot(context.store, task), context.prior()
    result = measure_drift(snapshot, prior, context.settings.quality.drift, context.settings.tuning.seed)
    html, evidently = to_html(result), evidently_report(snapshot, prior)
    reports = {"report": context.put_html(html), "evidently": context.put_html(evidently)}
    return context.store.put_json({**result.to_json(), **reports}), HTMLString(html), HTMLString(evidently)
