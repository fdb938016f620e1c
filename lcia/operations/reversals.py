"""Reversals: the wish to take a learnt task out of the assistant; the worker makes a candidate of it."""

from components.audit.log import Actor
from components.storage.objects import Json
from components.tasks import proposals
from components.tasks.reversal import Reversal
from lcia.instance import Instance
from lcia.operations.wordings import need_task, submit_change


def revert(instance: Instance, actor: Actor, task: str, reason: str) -> dict[str, Json]:
    """Take a task out of the assistant again; a worker makes a candidate of that, which people decide about.

    Raises:
        WordingsRefused: the champion has not learnt the task.
        ReversalRefused: it is the champion's only task.
    """
    learnt = need_task(instance, task)
    base = instance.base()
    if base is not None:
        Reversal(learnt.entry.task, learnt.label, 1).apply_to(instance.pool(base.digest))
    with instance.db.begin() as connection:
        earlier = proposals.changes_of(connection, instance.assistant, learnt.label)
        number = 1 + sum("+revert." in item.version for item in earlier)
        change = Reversal(learnt.entry.task, learnt.label, number)
        return submit_change(instance, connection, actor, learnt, change, reason).to_json()
