"""Reasons for which an assessed task waits for people instead of being learnt at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from components.promotion import candidates, train
from components.promotion.candidates import Candidate
from lcia.instance import Instance


@dataclass(frozen=True)
class Undecided:
    """The versions that people have to decide about, as far as tasks wait for them."""

    instance: Instance
    line: Sequence[Candidate]
    """The train."""
    other_base: Candidate | None
    """A version on another base model."""

    @classmethod
    def of(cls, instance: Instance) -> Self:
        """As it stands now."""
        with instance.db.read() as connection:
            pending = candidates.versions(connection, instance.assistant, "pending")
            line = train.members(connection, instance.assistant, instance.settings.policy.gate)
        return cls(instance, line, next((one for one in pending if one.item is None), None))

    def why_wait(self, assessment: str | None) -> str | None:
        """A sentence, or None if a task can be learnt; `assessment` is its record, None for a change without learning.

        It waits while the train is as long as `train.longest` allows, while a version on another base model is
        undecided, and, if `train.same_group` says so, while a version that changes the group it would join is.
        """
        rules, line = self.instance.settings.train, self.line
        if self.other_base is not None:
            return f"{_name(self.other_base)} is on another base model and waits for people to decide"
        if len(line) >= rules.longest:
            others = f", {len(line)} with those made on it; train.longest is {rules.longest}" if line[1:] else ""
            return f"{_name(line[0])} waits for people to decide{others}"
        if rules.same_group == "wait" and assessment is not None:
            group = self.instance.store.get_json(assessment)["group"]
            changing = next((one for one in line if self._changes(one, group)), None)
            if changing is not None:
                return f"{_name(changing)} changes the group {group} too and waits for people to decide"
        return None

    def _changes(self, version: Candidate, group: str | None) -> bool:
        """True if a version's own task was learnt by the group."""
        own = self.instance.pool(version.digest).group_of(version.task)
        return own is not None and own.id == group


def _name(version: Candidate) -> str:
    return f"version {version.number} ({version.task_name})"
