"""Reasons for which an assessed task waits for people instead of being learnt at once."""

from components.promotion import candidates, train
from components.promotion.candidates import Candidate
from lcia.instance import Instance


def why_wait(instance: Instance, assessment: str | None) -> str | None:
    """A sentence, or None if the task can be learnt; `assessment` is its record, None for a change of wordings.

    It waits while the train is as long as `train.longest` allows, while a version on another base model is undecided,
    and, if `train.same_group` says so, while a version that changes the group it would join is.
    """
    rules = instance.settings.train
    with instance.db.read() as connection:
        pending = candidates.versions(connection, instance.assistant, "pending")
        line = train.members(connection, instance.assistant, instance.settings.policy.gate)
    other_base = next((one for one in pending if one.item is None), None)
    if other_base is not None:
        return f"{_name(other_base)} is on another base model and waits for people to decide"
    if len(line) >= rules.longest:
        first = line[0]
        others = f", {len(line)} with those made on it; train.longest is {rules.longest}" if line[1:] else ""
        return f"{_name(first)} waits for people to decide{others}"
    if rules.same_group == "wait" and assessment is not None:
        group = instance.store.get_json(assessment)["group"]
        changing = next((one for one in line if _changes(instance, one, group)), None)
        if changing is not None:
            return f"{_name(changing)} changes the group {group} too and waits for people to decide"
    return None


def _changes(instance: Instance, version: Candidate, group: str | None) -> bool:
    """True if a version's own task was learnt by the group."""
    own = instance.pool(version.digest).group_of(version.task)
    return own is not None and own.id == group


def _name(version: Candidate) -> str:
    return f"version {version.number} ({version.task_name})"
