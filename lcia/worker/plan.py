"""Plan of a package: its assessment, and how often the policy passes a harmless candidate; nothing is changed."""

from pathlib import Path
from typing import Any

from components.errors import LciaError
from components.gate.power import LEAST_POWER, TaskRows, policy_power, rows_needed
from components.promotion.evidence import present_rows
from components.quality.fingerprints import result_name, store_fingerprints
from components.storage import results
from components.tasks.isolation import take
from components.tasks.snapshot import Snapshot, load_snapshot
from infra.runs import StepFailed, run_pipeline
from lcia.instance import Instance
from lcia.operations.tasks import OUTCOME
from lcia.worker import estimates
from lcia.worker.runs import make_order

NEW_GROUP = "(new)"


class PlanFailed(LciaError):
    """The assessment itself failed."""


def lineage_power(instance: Instance) -> dict[str, Any] | None:
    """Least probability, over the groups of the version to learn on, that a harmless candidate passes; None before any.

    One candidate changes one group, so each group's tasks are a family of their own.
    """
    groups: dict[str, list[TaskRows]] = {}
    for task in _present(instance):
        groups.setdefault(task.group, []).append(task)
    powers = [_power(instance, group, tasks) for group, tasks in groups.items()]
    return min(powers, key=lambda one: float(one["pass_probability"]), default=None)


def plan(instance: Instance, package: Path) -> dict[str, Any]:
    """Assess a package as `lcia run` would, without queue, training or version; see `docs/json.md`.

    Raises:
        PackageError: it can't be read, or is refused when it is read.
        PlanFailed: a step of the assessment failed.
    """
    from pipelines.assess_task import assess_task

    read = take(package, instance.store, instance.settings.packages, instance.home / "unpacked")
    snapshot, task, base = read.snapshot, read.task, instance.base()
    order = make_order(instance, read.package, base.digest if base else None)
    order = order.model_copy(update={"fingerprints": _fingerprints(instance, snapshot, order.parent)})
    digest = instance.store.put_json(order.model_dump(mode="json"))
    name = f"plan-{task.name}-{task.version}"
    try:
        run = run_pipeline(assess_task, name, instance.settings, instance.home, digest)
    except StepFailed as failure:
        raise PlanFailed(str(failure)) from failure
    limit = {"max_new_tokens": task.decoding.max_new_tokens, "derived": read.answer_limit_derived}
    intake = {"cut": list(read.cut), "remarks": list(read.remarks), "answer_limit": limit}
    return {**_summary(instance, run.outputs["group_instructions"]), **intake}


def _fingerprints(instance: Instance, snapshot: Snapshot, parent: str | None) -> dict[str, str]:
    """Keyed hashes of the package, and of earlier tasks as far as runs have made them."""
    earlier = [entry.task for entry in instance.pool(parent).tasks()] if parent else []
    if not earlier:
        return {}
    key = instance.leak_key()
    with instance.db.read() as connection:
        earlier_results = {task: results.find(connection, result_name(task, key)) for task in earlier}
    hashes = {task: result.output for task, result in earlier_results.items() if result}
    return {**hashes, snapshot.digest: store_fingerprints(snapshot, key, instance.store)}


def _summary(instance: Instance, digest: str) -> dict[str, Any]:
    record = instance.store.get_json(digest)
    task = load_snapshot(instance.store, record["task"])
    validation = instance.store.get_json(record["validation"])
    drift = instance.store.get_json(record["drift"])
    beside = [rows for rows in _present(instance) if rows.group == record["group"]]
    state = {"hold": "held", "refuse": "refused"}.get(record["verdict"], "")
    attempt = instance.next_attempt(task.task.name, task.task.owner)
    return {
        "name": task.task.name,
        "version": task.task.version,
        "verdict": record["verdict"],
        "reasons": record["reasons"],
        "not_checked": record["not_checked"],
        "group": record["group"],
        "validation": {
            "verdict": validation["verdict"],
            "failed": list(dict.fromkeys(check["name"] for check in validation["checks"] if not check["success"])),
            "reasons": [
                f"{c['name']}: seen {c['seen']}, expected {c['expected']}"
                for c in validation["checks"]
                if not c["success"]
            ],
        },
        "drift": {"verdict": drift["verdict"], "reasons": drift["reasons"]},
        "grouping": record["grouping"],
        "estimate": record["estimate"],
        "length": record["length"],
        "cost": estimates.estimate(instance, record["estimate"]),
        "gate": {
            "now": _power(instance, record["group"], beside, attempt) if beside else None,
            "attempt": attempt,
            "attempts_allowed": instance.settings.policy.gate.max_attempts,
            "later": _later(instance, task.splits["test"].rows, beside)
            if task.task.retention.evaluation_rows
            else None,
        },
        "reports": record["reports"],
        "exit_code": OUTCOME.get(state, 0),
    }


def _later(instance: Instance, rows: int, beside: list[TaskRows]) -> dict[str, Any]:
    """Outlook once the task is learnt: its test rows, and whether they let harmless candidates of its group pass."""
    policy = instance.settings.policy.gate
    group = beside[0].group if beside else NEW_GROUP
    own = TaskRows.typical("this task", group, rows, policy)
    power = policy_power([*beside, own], policy)
    least_rows = rows_needed(len(beside) + 1, policy)
    return {
        "test_rows": rows,
        "rows_needed": least_rows,
        "enough": least_rows is not None and rows >= least_rows,
        "tasks": len(beside) + 1,
        "pass_probability": power.pass_probability,
    }


def _power(instance: Instance, group: str, tasks: list[TaskRows], attempt: int = 1) -> dict[str, Any]:
    policy = instance.settings.policy.gate
    power = policy_power(tasks, policy, attempt)
    enough = power.pass_probability >= LEAST_POWER
    return {
        "group": group,
        "tasks": [{"name": task.name, "test_rows": task.rows, "look": task.look} for task in tasks],
        "pass_probability": power.pass_probability,
        "enough": enough,
        "rows_needed": None if enough else rows_needed(len(tasks), policy),
        "words": power.words,
    }


def _present(instance: Instance) -> list[TaskRows]:
    base = instance.base()
    if base is None:
        return []
    evaluation = instance.store.get_json(str(instance.evidence(base)["evaluation"]))
    share = instance.settings.policy.gate.reserve_share
    return present_rows(instance.store, evaluation, share, instance.anchor_looks(), instance.replacements())
