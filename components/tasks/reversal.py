"""Reversals: a learnt task is taken out of the assistant again, and its group is what it was before."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, TypeAlias

from components.errors import LciaError
from components.grouping.pool import Group, GroupTask, Pool
from components.storage.objects import Json
from components.tasks.wordings import WordingChange


class ReversalRefused(LciaError):
    """The task can't be taken out of the assistant."""


@dataclass(frozen=True)
class Reversal:
    """The wish to take a task out, and once a worker looked it up, what its group was before."""

    task: str
    """Digest of the task's snapshot."""
    label: str
    """`name@version`."""
    number: int
    """Counts the reversals of the task from 1, so that a second one is another object."""
    adapter: str | None = None
    """The group's adapter before it learnt the task; None if the group had no other task then."""
    curvature: str | None = None
    keeps: tuple[str, ...] = ()
    """Digests of the tasks that the group had learnt before."""
    link: ClassVar[str] = "reversal"
    """Field of an evidence record that names the change."""
    before: str | None = None
    """Evaluation record of the version before, whose predictions hold for these tasks again."""

    @property
    def version(self) -> str:
        """Version under which it stands in the queue; no package can have it, for `+` is not allowed there."""
        return f"{self.label.partition('@')[2]}+revert.{self.number}"

    def based_on(self, group: Group | None, evaluation: str | None) -> Self:
        """The reversal with what the group was before, and the evaluation record of that version."""
        if group is None:
            return replace(self, before=evaluation)
        keeps = tuple(entry.task for entry in group.tasks)
        return replace(self, adapter=group.adapter, curvature=group.curvature, keeps=keeps, before=evaluation)

    def followers(self, pool: Pool) -> tuple[GroupTask, ...]:
        """Tasks that the group learnt after it; they have to be learnt again without it.

        Raises:
            ReversalRefused: the pool has not learnt the task.
        """
        return tuple(each for each in self._group(pool).tasks if each.task not in (self.task, *self.keeps))

    def apply_to(self, pool: Pool) -> Pool:
        """The pool's groups without the task and its followers; its router is still the one before.

        Raises:
            ReversalRefused: the pool has not learnt the task, or has no other.
        """
        group = self._group(pool)
        if len(pool.tasks()) == 1:
            raise ReversalRefused(
                f"{self.label} is the only task of the assistant; `lcia rollback` goes back to an earlier version"
            )
        tasks = tuple(entry for entry in group.tasks if entry.task in self.keeps)
        if not tasks or self.adapter is None:
            return replace(pool, groups=tuple(each for each in pool.groups if each is not group))
        earlier = replace(group, adapter=self.adapter, curvature=self.curvature, tasks=tasks)
        return replace(pool, groups=tuple(earlier if each is group else each for each in pool.groups))

    def _group(self, pool: Pool) -> Group:
        group = pool.group_of(self.task)
        if group is None:
            raise ReversalRefused(f"the assistant has not learnt {self.label}, or it was taken out already")
        return group

    def to_json(self) -> dict[str, Json]:
        """The object of the store."""
        return {"kind": "reversal", "schema": 1, **vars(self), "keeps": list(self.keeps)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read back `to_json`."""
        fields = {name: part for name, part in value.items() if name not in ("kind", "schema")}
        return cls(**{**fields, "keeps": tuple(value["keeps"])})


Change: TypeAlias = WordingChange | Reversal
"""A change of the assistant for which nothing is tuned."""


def read_change(value: Mapping[str, Any]) -> Change:
    """The change that an object of the store holds."""
    return Reversal.from_json(value) if value["kind"] == "reversal" else WordingChange.from_json(dict(value))
