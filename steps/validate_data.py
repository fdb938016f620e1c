"""Step: Great Expectations checks of the snapshot."""

from typing import Annotated

from zenml import step
from zenml.types import HTMLString

from components.quality.validation import to_html, validate
from components.tasks.snapshot import load_snapshot
from steps.order import open_order


@step(enable_cache=False)
def validate_data(
    store: str, order: str, task: str
) -> tuple[Annotated[str, "validation"], Annotated[HTMLString, "validation_report"]]:
    """Digest of the validation record, with its report."""
    context = open_order(store, order)
    result = validate(load_snapshot(context.store, task), context.prior(), context.settings.quality.validation)
    html = to_html(result)
    record = {**result.to_json(), "report": context.put_html(html)}
    return context.store.put_json(record), HTMLString(html)
