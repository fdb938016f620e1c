"""Step: choose the point on the curve, predict every task, measure forgetting; an interrupted call goes on."""

from typing import Annotated

from zenml import log_metadata, step
from zenml.types import HTMLString

from components.evaluation.history import report
from components.model.ranks import Ranks
from steps.order import LearnContext, open_learning
from steps.processes import together
from steps.progress import ProgressCounter


@step(enable_cache=False)
def evaluate_forgetting(
    store: str, order: str, tuning: str
) -> tuple[Annotated[str, "evaluation"], Annotated[HTMLString, "evaluation_report"]]:
    """Digest of the evaluation record, with its report."""
    context = open_learning(store, order)
    digest = context.order.known.get("evaluate_forgetting") or together(
        "evaluate_forgetting", work, context, store, order, tuning
    )
    records = [context.store.get_json(d) for d in (*context.order.lineage, digest)]
    facts = {name: records[-1][name] for name in ("chosen", "scores", "predicted", "carried")}
    log_metadata({**facts, "reason": f"point {records[-1]['reason']}"})
    return digest, HTMLString(report(context.store, records, context.settings.evaluation.choice_margin))


def work(context: LearnContext, ranks: Ranks, tuning: str) -> str:
    """Evaluate, in each of the processes that share it."""
    from components.evaluation.forgetting import Forgetting, ParentVersion
    from components.evaluation.prediction import Evaluator

    record = context.store.get_json(tuning)
    bench = context.bench(ranks, adapters=record["points"].values())
    return Forgetting(
        context.store,
        context.settings,
        Evaluator(bench.trunk, bench.slot, context.settings.evaluation.batch_rows),
        ParentVersion(context.order.parent, context.pool(bench.base.digest), context.evaluation()),
        context.snapshot(),
        ProgressCounter(context.report) if ranks.first else None,
        context.store.scratch(context.order.scratch) if context.order.scratch else None,
        context.replacements(),
    ).run(record, context.config(bench.base.settings.longest))
