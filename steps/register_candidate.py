"""Step: the candidate's evidence and model card; the worker makes it a row, a log entry and a registry version."""

from typing import Annotated

from zenml import log_metadata, step
from zenml.types import HTMLString

from components.evaluation.history import curve_picture, lineage_matrix
from components.evaluation.pictures import heat_map_png, history_png
from components.evaluation.tuning_report import tuning_pictures
from components.gate.report import GateReport
from components.grouping.pool import Pool
from components.promotion.evidence import evidence_record, model_card
from steps.order import LearnContext, open_learning


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
    for name, picture in _pictures(context, tuning, evaluation).items():
        reports[name] = objects.put(picture)
    evidence = objects.put_json(evidence_record(evaluation, context.order.assessment, tuning, gate, reports, content))
    log_metadata({"version": content["pool"], "evidence": evidence, "verdict": verdict.verdict})
    return evidence


def _pictures(context: LearnContext, tuning: str, evaluation: str) -> dict[str, bytes]:
    objects = context.store
    records = [objects.get_json(digest) for digest in (*context.order.lineage, evaluation)]
    matrix = lineage_matrix(objects, records)
    pool = Pool.from_manifest(objects.get_json(records[-1]["pool"]))
    pictures = {
        **tuning_pictures(objects.get_json(tuning)),
        "heat_map": heat_map_png(matrix),
        "history": history_png(matrix, pool.groups_by_name()),
    }
    curve = curve_picture(records[-1], context.settings.evaluation.choice_margin)
    return pictures | ({"curve": curve} if curve else {})
