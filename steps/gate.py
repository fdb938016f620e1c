"""Step: the statistical gate."""

from typing import Annotated, Any

from zenml import log_metadata, step
from zenml.types import HTMLString

from components.evaluation.reports import gate_html
from components.gate.gate import decide_gate
from components.promotion.evidence import change_gate_evidence, gate_evidence
from steps.order import open_learning


@step(enable_cache=False)
def gate(
    store: str, order: str, tuning: str, evaluation: str
) -> tuple[Annotated[str, "gate"], Annotated[HTMLString, "gate_report"]]:
    """Digest of the gate's report: pass, fail or inconclusive, one row per rule."""
    context = open_learning(store, order)
    objects = context.store
    facts: dict[str, Any] = {
        "attempt": context.order.attempt,
        "looks": context.order.looks,
        "declarations": context.order.superseded,
    }
    record = objects.get_json(evaluation)
    if context.order.change:
        evidence = change_gate_evidence(objects, context.settings, record, **facts)
    else:
        evidence = gate_evidence(
            objects,
            context.settings,
            context.assessment(),
            objects.get_json(tuning),
            record,
            drift_accepted=context.order.released,
            **facts,
        )
    verdict = decide_gate(evidence, context.settings.policy.gate).to_json()
    log_metadata({"verdict": verdict["verdict"], "not_passed": _not_passed(verdict["rows"])})
    return objects.put_json(verdict), HTMLString(gate_html(verdict))


def _not_passed(rows: list[dict[str, Any]]) -> list[str]:
    return [row["words"] for row in rows if row["verdict"] in ("fail", "inconclusive")]
