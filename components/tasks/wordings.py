"""Wordings: ways to ask for a task besides the instructions of its rows, and changes to them by people."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from components.errors import LciaError
from components.grouping.pool import GroupTask, Pool
from components.storage.objects import Json, ObjectStore
from components.tasks.problems import characters_expected, forbidden_character
from components.tasks.snapshot import load_snapshot
from components.tasks.task_file import Task

LONGEST, MOST = 1000, 200
"""Characters of a wording, and wordings of a task; as in task.yaml."""


class WordingsRefused(LciaError):
    """Wordings that can't be taken, or a change that would change nothing."""


@dataclass(frozen=True)
class WordingChange:
    """Wordings that a learnt task gains and loses; nothing is learnt for it."""

    task: str
    """Digest of the task's snapshot."""
    label: str
    """`name@version`."""
    number: int
    """Counts the changes to the task from 1, so that the same change made again is another one."""
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    link: ClassVar[str] = "wordings"
    """Field of an evidence record that names the change."""

    @property
    def version(self) -> str:
        """Version under which it stands in the queue; no package can have it, for `+` is not allowed there."""
        return f"{self.label.partition('@')[2]}+wordings.{self.number}"

    def apply_to(self, pool: Pool) -> Pool:
        """The pool's groups with the change; its router is still the one before.

        Raises:
            WordingsRefused: the pool has no such task, or the change changes nothing or takes what can't be taken.
        """
        entry = next((each for each in pool.tasks() if each.task == self.task), None)
        if entry is None:
            raise WordingsRefused(f"the champion has not learnt {self.label}, so it has no wordings to change")
        after = self._entry(entry)
        groups = [replace(g, tasks=tuple(after if e is entry else e for e in g.tasks)) for g in pool.groups]
        return replace(pool, groups=tuple(groups))

    def _entry(self, entry: GroupTask) -> GroupTask:
        have = entry.wordings
        for text in self.remove:
            if text not in have:
                why = "an instruction of its rows" if text in entry.instructions else "not among its wordings"
                raise WordingsRefused(f"{text!r} can't be taken from {self.label}: it is {why}")
        for text in self.add:
            if text in entry.texts:
                raise WordingsRefused(f"{self.label} has the wording {text!r} already")
        wordings = (*(text for text in have if text not in self.remove), *self.add)
        if wordings == have:
            raise WordingsRefused(f"the change of {self.label} adds nothing and takes nothing away")
        if not wordings:
            raise WordingsRefused(f"{self.label} would be left without any wording; add another one first")
        if len(wordings) > MOST:
            raise WordingsRefused(f"{self.label} would have {len(wordings)} wordings, at most {MOST} are allowed")
        return replace(entry, wordings=wordings)

    def to_json(self) -> dict[str, Json]:
        """The object of the store."""
        lists: dict[str, Json] = {"add": list(self.add), "remove": list(self.remove)}
        return {"kind": "wordings", "schema": 1, **vars(self), **lists}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read back `to_json`."""
        return cls(value["task"], value["label"], value["number"], tuple(value["add"]), tuple(value["remove"]))


def clean_wording(text: str) -> str:
    """A wording as it is kept: on one line, with single spaces.

    Raises:
        WordingsRefused: it is empty, too long, or holds a character that no package may hold.
    """
    plain = " ".join(text.split())
    if not plain or len(plain) > LONGEST:
        raise WordingsRefused(f"a wording of {len(plain)} characters, expected 1 to {LONGEST}")
    character = forbidden_character(plain)
    if character:
        raise WordingsRefused(f"a wording with character {character}, expected {characters_expected(character)}")
    return plain


def wordings_of(task: Task) -> tuple[str, ...]:
    """The ways to ask for a task besides the instructions of its rows: its description, and its owner's wordings."""
    return tuple(dict.fromkeys((task.description, *task.wordings)))


def with_wordings(store: ObjectStore, pool: Pool) -> Pool:
    """The pool with the wordings of all tasks whose object is still there; those that have some keep them."""

    def complete(entry: GroupTask) -> GroupTask:
        if entry.wordings or not store.exists(entry.task):
            return entry
        return replace(entry, wordings=wordings_of(load_snapshot(store, entry.task).task))

    groups = [replace(group, tasks=tuple(map(complete, group.tasks))) for group in pool.groups]
    return replace(pool, groups=tuple(groups))
