"""Step: distance of the task from what was learnt before, and a try of the champion on it."""

from typing import TYPE_CHECKING, Annotated, Any

from zenml import log_metadata, step
from zenml.types import HTMLString

from components.quality.drift import DriftResult
from components.quality.drift import check_drift as measure_drift
from components.quality.drift_report import drift_html, evidently_report
from components.settings import Settings
from components.tasks.rows import Example
from components.tasks.sampling import sample_rows
from components.tasks.snapshot import Snapshot, load_snapshot
from steps.order import Context, open_order

if TYPE_CHECKING:
    from components.model.workbench import Workbench


@step(enable_cache=False)
def check_drift(
    store: str, order: str, task: str, validation: str
) -> tuple[Annotated[str, "drift"], Annotated[HTMLString, "drift_report"], Annotated[HTMLString, "evidently_report"]]:
    """Digest of the drift record, with our report and Evidently's."""
    from components.evaluation.champion_score import bits_per_character

    context = open_order(store, order)
    snapshot, prior = load_snapshot(context.store, task), context.prior()
    checks = context.store.get_json(validation)
    bench, reason = _bench(context, data_refused=checks["verdict"] == "refuse")
    result = measure_drift(
        snapshot,
        prior,
        context.settings.quality.drift,
        context.settings.tuning.seed,
        context.proposal(snapshot),
        (lambda texts: bits_per_character(bench, texts)) if bench else None,
        reason,
    )
    aside = {row["id"] for row in checks["quarantined_rows"] if row["split"] == "validation"}
    champion = _champion(context, bench, snapshot, aside, result) if bench else None
    html, evidently = drift_html(result), evidently_report(snapshot, prior)
    record = {
        **result.to_json(),
        "champion": champion,
        "champion_skipped": "" if champion else reason or _why_untried(context),
        "report": context.put_html(html),
        "evidently": context.put_html(evidently),
    }
    log_metadata({"verdict": result.verdict, "nearest": result.nearest or "none", "reasons": list(result.reasons)})
    return context.store.put_json(record), HTMLString(html), HTMLString(evidently)


def _bench(context: Context, *, data_refused: bool) -> tuple["Workbench | None", str]:
    """The loaded base model, or the reason for which it is not loaded."""
    if context.order.parent is None:
        return None, "there is no champion yet"
    if data_refused:
        return None, "its data are refused"
    from components.model.base import BaseModelError
    from components.model.ranks import ALONE

    try:
        return context.bench(ALONE, adapters=context.adapters()), ""
    except BaseModelError as error:
        return None, f"the base model is not on this machine ({error})"


def _why_untried(context: Context) -> str:
    """Reason for which a champion did not predict the task."""
    return "no validation row is left" if context.settings.quality.known.rows else "quality.known.rows is 0"


def _champion(
    context: Context, bench: "Workbench", snapshot: Snapshot, aside: set[str], result: DriftResult
) -> dict[str, Any] | None:
    rows = rows_to_try(snapshot, aside, context.settings)
    if not rows:
        return None
    from components.evaluation.champion_score import champion_score

    pool = context.pool(bench.base.digest)
    arguments = (snapshot, rows, result.nearest, context.evaluation())
    return champion_score(context.store, context.settings, bench, pool, *arguments).to_json()


def rows_to_try(snapshot: Snapshot, aside: set[str], settings: Settings) -> list[Example]:
    """Validation rows, without those set `aside`, that the champion predicts: drawn at random, the same each time."""
    usable = [row for row in snapshot.rows("validation") if row.id not in aside]
    return sample_rows(usable, settings.quality.known.rows, f"{snapshot.digest} {settings.tuning.seed}")
