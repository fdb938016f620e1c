"""A change of wordings on its way to a candidate: nothing is tuned, every test row is routed again."""

from typing import TYPE_CHECKING, Any

from components.storage.keys import step_key
from components.tasks.queue import QueueItem
from components.tasks.wordings import WordingChange, WordingsRefused, with_wordings
from infra.runs import StepFailed, describe_run
from lcia.worker.runs import LEARN, Learning, judged, make_order

if TYPE_CHECKING:
    from lcia.worker.loop import Advance


def advance(worker: "Advance", item: QueueItem, parent: str | None) -> QueueItem:
    """Bring a change of wordings as far as it can go now."""
    if item.state in ("submitted", "assessing"):
        item = _assess(worker, item, parent)
    return _evaluate(worker, item, parent) if item.state == "learning" else item


def _assess(worker: "Advance", item: QueueItem, parent: str | None) -> QueueItem:
    """Check that the version to build on can take the change."""
    item = worker.move(item, "assessing", "its wordings are put to the newest version")
    if parent is None:
        return worker.move(item, "refused", "there is no champion yet, so no task has wordings to change")
    try:
        _change(worker, item).apply_to(with_wordings(worker.instance.store, worker.instance.pool(parent)))
    except WordingsRefused as refusal:
        return worker.move(item, "refused", str(refusal))
    return worker.begin(item, "nothing is tuned; every test row is routed again")


def _evaluate(worker: "Advance", item: QueueItem, parent: str | None) -> QueueItem:
    """Evaluate, gate and register; finished work is found again."""
    instance = worker.instance
    order = make_order(instance, item.package, parent).to_learn(
        "", wordings=item.package, superseded=instance.replacements()
    )
    order = judged(instance, item, order, wordings=item.package)
    inputs = {"wordings": item.package, "parent": parent, "superseded": order.superseded, "origin": order.origin}
    evaluate = step_key("evaluate", inputs, instance.settings.content(), ("model", "grouping", "evaluation", "tasks"))
    facts: dict[str, Any] = {"evaluate": evaluate, "attempt": order.attempt, "looks": order.looks}
    key = step_key("learn", facts, instance.settings.content(), LEARN)
    evidence = worker.runs.find(key)
    if evidence is None:
        earlier = {"evaluate_forgetting": worker.runs.find(evaluate)}
        order = order.model_copy(update={"scratch": evaluate, "known": {k: v for k, v in earlier.items() if v}})
        worker.say(f"{item.name}@{item.version}: reword_task (evaluate, gate, register)")
        try:
            run = worker.runs.run("reword_task", item, order)
        except StepFailed as failure:
            worker.say(f"  failed: {failure}")
            return worker.move(item, "failed", str(failure))
        worker.runs.record(evaluate, "evaluate_forgetting", run.outputs["evaluate_forgetting"])
        evidence = worker.runs.record(key, "learn", run.outputs["register_wordings"])
        instance.store.scratch(evaluate).clear()
        describe_run(run.name, instance.store.get_json(evidence)["candidate"], instance.registry.models_page())
    return worker.register(item, parent, Learning(evidence, evaluate))


def _change(worker: "Advance", item: QueueItem) -> WordingChange:
    return WordingChange.from_json(worker.instance.store.get_json(item.package))
