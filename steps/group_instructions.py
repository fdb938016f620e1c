"""Step: the group that learns the task, and the verdict of the assessment."""

from typing import Annotated

from zenml import log_metadata, step
from zenml.types import HTMLString

from components.grouping.map import task_map
from components.grouping.report import grouping_html
from components.quality.assessment import assess
from components.tasks.snapshot import load_snapshot
from steps.order import NO_BASE_MODEL, open_order


@step(enable_cache=False)
def group_instructions(
    store: str, order: str, task: str, validation: str, drift: str
) -> tuple[Annotated[str, "assessment"], Annotated[HTMLString, "grouping_report"]]:
    """Digest of the assessment record: learn, hold, nothing_to_learn or refuse."""
    context = open_order(store, order)
    snapshot, pool = load_snapshot(context.store, task), context.pool(NO_BASE_MODEL)
    instructions, settings = snapshot.instructions(), context.settings.grouping
    decision = context.decision(snapshot)
    html = grouping_html(decision, snapshot.task.label, task_map(pool, instructions, settings, snapshot.task.label))
    record = assess(
        context.store,
        context.settings,
        snapshot,
        pool,
        decision,
        validation=validation,
        drift=drift,
        parent=context.order.parent,
        release=context.order.released,
        force=context.order.forced,
    )
    record["reports"]["grouping"] = context.put_html(html)
    facts = {name: record[name] for name in ("verdict", "reasons", "estimate")}
    log_metadata({**facts, "group": record["group"] or "a new one"})
    return context.store.put_json(record), HTMLString(html)
