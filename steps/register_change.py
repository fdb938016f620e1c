"""Step: the evidence and model card of a change without learning; the worker makes it a candidate."""

from typing import Annotated

from zenml import log_metadata, step
from zenml.types import HTMLString

from components.evaluation.history import pictures
from components.gate.report import GateReport
from components.promotion.evidence import change_card, evidence_record
from components.tasks.reversal import read_change
from steps.order import open_learning


@step(enable_cache=False)
def register_change(
    store: str, order: str, evaluation: str, gate: str, evaluation_report: HTMLString, gate_report: HTMLString
) -> Annotated[str, "evidence"]:
    """Digest of the evidence record."""
    context = open_learning(store, order)
    objects, digest = context.store, str(context.order.change)
    content, verdict = objects.get_json(evaluation), GateReport.from_json(objects.get_json(gate))
    change = read_change(objects.get_json(digest))
    reports = {
        "evaluation": context.put_html(str(evaluation_report)),
        "gate": context.put_html(str(gate_report)),
        "card": objects.put(change_card(objects, content, change, verdict).encode()),
    }
    images = pictures(objects, [*map(objects.get_json, context.order.lineage), content], context.settings.evaluation)
    reports |= {name: objects.put(picture) for name, picture in images.items()}
    evidence = objects.put_json(
        evidence_record(
            content,
            change.task,
            gate,
            reports,
            evaluation=evaluation,
            **{change.link: digest},
            **context.origin_link(),
        )
    )
    log_metadata({"version": content["pool"], "evidence": evidence, "verdict": verdict.verdict})
    return evidence
