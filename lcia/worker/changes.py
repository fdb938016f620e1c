"""A change without learning on its way to a candidate: other wordings, or a task taken out.

Nothing is tuned for it, but tasks that their group learnt after one that is taken out are learnt again without it.
"""

from typing import TYPE_CHECKING, Any

from components.grouping.pool import Group
from components.storage.keys import step_key
from components.tasks.queue import QueueItem
from components.tasks.reversal import Change, Reversal, ReversalRefused, read_change
from components.tasks.wordings import WordingsRefused, with_wordings
from infra.runs import StepFailed, describe_run
from lcia.instance import Instance
from lcia.worker import relearning
from lcia.worker.runs import LEARN, Learning, make_order, with_gate_history

if TYPE_CHECKING:
    from lcia.worker.loop import Advance


def advance(worker: "Advance", item: QueueItem, parent: str | None) -> QueueItem:
    """Bring a change as far as it can go now."""
    if item.state in ("submitted", "assessing"):
        item = _assess(worker, item, parent)
    return _evaluate(worker, item, parent) if item.state == "learning" else item


def _assess(worker: "Advance", item: QueueItem, parent: str | None) -> QueueItem:
    """Check that the version to build on can take the change."""
    item = worker.move(item, "assessing", "the change is put to the newest version")
    if parent is None:
        return worker.move(item, "refused", "there is no champion yet, so there is nothing to change")
    try:
        change = _change(worker.instance, item, parent)
        change.apply_to(with_wordings(worker.instance.store, worker.instance.pool(parent)))
    except (WordingsRefused, ReversalRefused) as refusal:
        return worker.move(item, "refused", str(refusal))
    again = relearning.followers(worker.instance, change, parent) if isinstance(change, Reversal) else ()
    names = ", ".join(entry.name for entry in again)
    return worker.begin(item, f"learns again without it: {names}" if names else "nothing is tuned")


def _evaluate(worker: "Advance", item: QueueItem, parent: str | None) -> QueueItem:
    """Evaluate, gate and register; finished work is found again."""
    assert parent is not None  # noqa: S101 - else it was refused
    instance, change = worker.instance, _change(worker.instance, item, parent)
    digest = instance.store.put_json(change.to_json())
    order = make_order(instance, item.package, parent).to_learn("", change=digest, superseded=instance.replacements())
    order = with_gate_history(instance, item, order, **{change.link: digest})
    inputs = {"change": digest, "parent": parent, "superseded": order.superseded, "origin": order.origin}
    evaluate = step_key("evaluate", inputs, instance.settings.content(), ("model", "grouping", "evaluation", "tasks"))
    facts: dict[str, Any] = {"evaluate": evaluate, "attempt": order.attempt, "looks": order.looks}
    key = step_key("learn", facts, instance.settings.content(), LEARN)
    evidence = worker.runs.find(key)
    try:
        if evidence is None:
            earlier = {"evaluate_forgetting": worker.runs.find(evaluate)}
            order = order.model_copy(update={"scratch": evaluate, "known": {k: v for k, v in earlier.items() if v}})
            worker.say(f"{item.name}@{item.version}: change_task (evaluate, gate, register)")
            run = worker.runs.run("change_task", item, order)
            worker.runs.record(evaluate, "evaluate_forgetting", run.outputs["evaluate_forgetting"])
            evidence = worker.runs.record(key, "learn", run.outputs["register_change"])
            instance.store.scratch(evaluate).clear()
            describe_run(run.name, instance.store.get_json(evidence)["candidate"], instance.registry.models_page())
        learning = Learning(evidence, evaluate)
        if isinstance(change, Reversal) and relearning.followers(instance, change, parent):
            learning = relearning.learn_followers(worker, change, parent, learning, order)
    except StepFailed as failure:
        worker.say(f"  failed: {failure}")
        return worker.move(item, "failed", str(failure))
    return worker.register(item, parent, learning)


def _change(instance: Instance, item: QueueItem, parent: str) -> Change:
    """The change of an item; a reversal with what its group was before the task was learnt.

    Raises:
        ReversalRefused: the version to build on has not learnt the task.
    """
    change = read_change(instance.store.get_json(item.package))
    if not isinstance(change, Reversal):
        return change
    record = next((one for one in reversed(instance.learnt(parent)) if one["task"] == change.task), None)
    if record is None:
        raise ReversalRefused(f"the assistant has not learnt {change.label}")
    if record["parent"] is None:  # its group had nothing before
        return change
    own = instance.pool(record["candidate"]).group_of(change.task)
    earlier = instance.pool(record["parent"])
    group: Group | None = next((each for each in earlier.groups if own is not None and each.id == own.id), None)
    if group is not None:
        weights = instance.store.why_erased(group.adapter)
        if weights is not None:
            raise ReversalRefused(
                f"the adapter that the group had before it learnt {change.label} is gone ({weights}); `lcia withdraw` "
                "erases its rows, and new versions of the group's tasks can be submitted"
            )
    return change.based_on(group, instance.evaluation_of(record["parent"]))
