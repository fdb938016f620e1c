"""Step: the candidate's evidence and model card; the worker makes it a row, a log entry and a registry version."""

from typing import Annotated

from zenml import log_metadata, step
from zenml.types import HTMLString

from components.evaluation.history import pictures
from components.evaluation.tuning_report import tuning_pictures
from components.gate.report import GateReport
from components.promotion.evidence import evidence_record, model_card
from steps.order import open_learning


@step(enable_cache=False)
def register_candidate(
    store: str,
    order: str,
    tuning: str,
    evaluation: str,
    gate: str,
    tuning_report: HTMLString,
    evaluation_report: HTMLString,
    gate_report: HTMLString,
) -> Annotated[str, "evidence"]:
    """Digest of the evidence record."""
    context = open_learning(store, order)
    objects = context.store
    content, verdict = objects.get_json(evaluation), GateReport.from_json(objects.get_json(gate))
    reports = {
        **context.assessment()["reports"],
        "tuning": context.put_html(str(tuning_report)),
        "evaluation": context.put_html(str(evaluation_report)),
        "gate": context.put_html(str(gate_report)),
        "card": objects.put(model_card(objects, content, objects.get_json(tuning), verdict).encode()),
    }
    records = [*map(objects.get_json, context.order.lineage), content]
    images = tuning_pictures(objects.get_json(tuning)) | pictures(objects, records, context.settings.evaluation)
    reports |= {name: objects.put(picture) for name, picture in images.items()}
    evidence = objects.put_json(
        evidence_record(
            content,
            content["task"],
            gate,
            reports,
            evaluation=evaluation,
            assessment=context.order.assessment,
            tuning=tuning,
            **context.origin_link(),
        )
    )
    log_metadata({"version": content["pool"], "evidence": evidence, "verdict": verdict.verdict})
    return evidence
