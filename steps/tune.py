"""Step: tune the group's adapter on the task."""

from typing import Annotated

from zenml import log_metadata, step
from zenml.types import HTMLString

from components.evaluation.tuning_report import tuning_html
from components.model.ranks import Ranks
from steps.order import NO_BASE_MODEL, LearnContext, open_learning
from steps.processes import together
from steps.progress import ProgressCounter


@step(enable_cache=False)
def tune(store: str, order: str) -> tuple[Annotated[str, "tuning"], Annotated[HTMLString, "tuning_report"]]:
    """Digest of the tuning record; continues at the last checkpoint of an interrupted call."""
    context = open_learning(store, order)
    digest = context.order.known.get("tune") or together("tune", work, context, store, order)
    record = context.store.get_json(digest)
    log_metadata(
        {
            "rule": record["rule"],
            "rows": record["rows"],
            "rehearsed_rows": record["rehearsed_rows"],
            "recalled_rows": record["recalled_rows"],
            "steps": len(record["losses"]),
            "loss": record["losses"][-1],
            "fallback_share": record["fallback_share"],
        }
    )
    return digest, HTMLString(tuning_html(record))


def work(context: LearnContext, ranks: Ranks) -> str:
    """Tune, in each of the processes that share it."""
    from components.tuning.starting_point import adapters_read
    from components.tuning.task import tune_task

    progress = ProgressCounter(context.report) if ranks.first else None
    snapshot, group = context.snapshot(), context.assessment()["group"]
    adapters = adapters_read(context.settings, snapshot, context.pool(NO_BASE_MODEL), group)
    bench = context.bench(ranks, progress.say if progress else None, adapters)
    return tune_task(
        context.store,
        context.settings,
        bench,
        snapshot,
        context.pool(bench.base.digest),
        group,
        context.order.scratch,
        progress,
        context.replacements(),
    )
