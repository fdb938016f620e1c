"""Step: choose the point on the curve, predict every task, measure forgetting; an interrupted call goes on.

After a change without learning there is no curve, and only what it moves is predicted.
"""

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
    facts = {name: records[-1][name] for name in ("scores", "predicted", "carried")}
    if context.order.change is None:
        facts |= {"chosen": records[-1]["chosen"], "reason": f"point {records[-1]['reason']}"}
    log_metadata(facts)
    return digest, HTMLString(report(context.store, records, context.settings.evaluation.choice_margin))


def work(context: LearnContext, ranks: Ranks, tuning: str) -> str:
    """Evaluate, in each of the processes that share it."""
    from components.evaluation.carrying import Predictor
    from components.evaluation.forgetting import Forgetting
    from components.evaluation.prediction import Evaluator
    from components.evaluation.prior_tasks import ParentVersion, PriorTasks
    from components.evaluation.rerouting import Rerouting

    store, settings, change = context.store, context.settings, context.change()
    record = {} if change else {**store.get_json(tuning), "group": context.assessment()["group"]}
    bench = context.bench(ranks, adapters=[*context.adapters(), *record.get("points", {}).values()])
    evaluator = Evaluator(bench.trunk, bench.slot, settings.evaluation.batch_rows)
    champion = ParentVersion(context.order.parent, context.pool(bench.base.digest), context.evaluation())
    progress = ProgressCounter(context.report) if ranks.first else None
    work_area = store.scratch(context.order.scratch) if context.order.scratch else None
    config, replacements = context.config(bench.base.settings.longest), context.replacements()
    if change:
        tasks = PriorTasks(Predictor(store, settings, evaluator, work_area, progress), champion, context.origin())
        return Rerouting(tasks, replacements).run(change, config)
    return Forgetting(
        store,
        settings,
        evaluator,
        champion,
        context.snapshot(),
        progress,
        work_area,
        replacements,
        context.origin(),
    ).run(record, config)
