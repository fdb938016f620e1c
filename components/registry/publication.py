"""Publication of a candidate in the registry: numbers, pictures, reports, card, adapters."""

from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluation.history import lineage_matrix
from components.gate.report import GateReport
from components.grouping.pool import Group, Pool
from components.registry.runs import MODEL_PATH
from components.serving import bundle
from components.storage.objects import Json, ObjectStore
from components.tasks.snapshot import load_snapshot
from components.tasks.wordings import WordingChange

PICTURES = frozenset({"heat_map", "history", "loss", "beta", "distance", "curve"})


def publication(
    store: ObjectStore, evidence: Mapping[str, Any], lineage: Sequence[str], costs: Mapping[str, float]
) -> dict[str, Json]:
    """Params, metrics, data sets and description, with curves (the tuning record) and artifacts by digest.

    `Registry.publish_candidate` gets the same with the contents instead of the digests.

    `lineage` are the evaluation records of the version and its ancestors, oldest first; `costs` are seconds.
    """
    evaluation = store.get_json(evidence["evaluation"])
    pool = Pool.from_manifest(store.get_json(evaluation["pool"]))
    matrix = lineage_matrix(store, [store.get_json(digest) for digest in lineage])
    gate = GateReport.from_json(store.get_json(evidence["gate"]))
    parts = bundle.parts(store, evaluation["pool"])
    metrics: dict[str, Json] = {
        name: value
        for name in ("avg_acc", "new_acc", "bwt", "forgetting")
        if (value := getattr(matrix, name)) is not None
    }
    metrics |= {f"acc/{name}": score for name, score in evaluation["scores"].items()}
    for row in gate.rows:
        if row.value is not None and row.rule != "cost":
            metrics["gate/" + "/".join(filter(None, (row.rule, row.task)))] = row.value
    metrics |= {f"cost/{name}_seconds": seconds for name, seconds in costs.items()}
    metrics |= {"cost/predicted": evaluation["predicted"], "cost/carried_over": evaluation["carried"]}
    learning = _learning(store, evidence, evaluation, pool) if evidence["tuning"] else _no_learning(store, evidence)
    return {
        "params": {
            "task": load_snapshot(store, evidence["task"]).task.label,
            "base_model": pool.base_model,
            "changed_settings": ", ".join(pool.overrides) or "none",
            **learning.pop("params"),
        },
        "metrics": {name.replace(" ", "_"): value for name, value in metrics.items()},
        **learning,
        "description": store.get(evidence["reports"]["card"]).decode(),
        "files": {
            **{f"{MODEL_PATH}/{place}": digest for place, digest in parts.files.items()},
            **{_place(name): digest for name, digest in evidence["reports"].items()},
        },
        "folders": {f"{MODEL_PATH}/{place}": digest for place, digest in parts.folders.items()},
    }


def _learning(
    store: ObjectStore, evidence: Mapping[str, Any], evaluation: Mapping[str, Any], pool: Pool
) -> dict[str, Any]:
    """Entries of a version that learnt a task."""
    tuning, group = store.get_json(evidence["tuning"]), pool.group_of(evaluation["task"])
    params: dict[str, Json] = {
        "group": group.id if group else "",
        "ema_rule": tuning["rule"],
        "chosen_point": evaluation["chosen"],
        "rows": tuning["rows"],
        "rehearsed_rows": tuning["rehearsed_rows"],
        "steps": len(tuning["losses"]),
    }
    datasets = _datasets(store, evaluation["task"], group, tuning)
    return {"params": params, "curves": evidence["tuning"], "datasets": datasets}


def _no_learning(store: ObjectStore, evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of a version that changed wordings alone, or took a task out."""
    if "reversal" in evidence:
        again = len(evidence.get("relearnt", {}).get("links", ()))
        return {"params": {"taken_out": evidence["task"], "learnt_again": again}, "datasets": []}
    change = WordingChange.from_json(store.get_json(evidence["wordings"]))
    return {"params": {"wordings_added": len(change.add), "wordings_removed": len(change.remove)}, "datasets": []}


def _datasets(store: ObjectStore, task: str, group: Group | None, tuning: Mapping[str, Any]) -> list[dict[str, Json]]:
    """The new task's splits, and the rehearsed rows of earlier tasks; by digest, never with rows."""
    snapshot = load_snapshot(store, task)
    datasets = [
        {"name": snapshot.task.label, "digest": ref.object, "context": split, "source": task, "rows": ref.rows}
        for split, ref in snapshot.splits.items()
    ]
    earlier = group.tasks if group and tuning["rehearsed_rows"] else ()
    return datasets + [
        {"name": f"{entry.name} (kept rows)", "digest": entry.kept_rows, "context": "rehearsal", "source": entry.task}
        for entry in earlier
        if entry.kept_rows and entry.task != task
    ]


def _place(report: str) -> str:
    suffix = ".png" if report in PICTURES else ".md" if report == "card" else ".html"
    return f"reports/{report}{suffix}"
