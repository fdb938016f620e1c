"""The pool manifest: the groups with their adapters, and the router's state. A pool is a version.

Plain frozen data. Digests are sha256 hex strings of objects in the store; this module reads and writes none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from components.errors import LciaError
from components.grouping.input_profile import InputProfile

Assurance = Literal["asserted", "server"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_GROUP = re.compile(r"g([1-9][0-9]*)")


class PoolError(LciaError):
    """A pool manifest, or a change to a pool, that does not hold together."""


class EncoderStateError(LciaError):
    """The router's encoder in a pool manifest is not one this release can read or this machine has."""


@dataclass(frozen=True)
class GroupTask:
    """One task learnt by a group: its snapshot, distinct instructions, and rows kept for rehearsal."""

    task: str
    name: str
    instructions: tuple[str, ...]
    kept_rows: str | None = None
    has_inputs: bool = True
    """False if every row is an instruction alone."""
    kept_questions: str | None = None
    """Unlabelled rows kept for recall."""
    wordings: tuple[str, ...] = ()
    """Its description and further ways to ask for it, besides the instructions of its rows."""
    inputs: InputProfile | None = None
    """Typical inputs, where the owner lets rows be kept."""

    def __post_init__(self) -> None:
        _check_digest(self.task, f"task {self.name!r}")
        _check_digest(self.kept_rows, f"kept_rows of task {self.name!r}", optional=True)
        _check_digest(self.kept_questions, f"kept_questions of task {self.name!r}", optional=True)
        if not self.instructions or len(set(self.instructions)) != len(self.instructions):
            raise PoolError(
                f"task {self.name!r} has {len(self.instructions)} instructions with repetitions or none "
                f"at all, "
                "expected at least one, each once; pass distinct_instructions(rows)"
            )

    @property
    def texts(self) -> tuple[str, ...]:
        """All its ways to ask: instructions, then wordings that are none of them."""
        return (*self.instructions, *(text for text in self.wordings if text not in self.instructions))


@dataclass(frozen=True)
class Group:
    """Instructions that share one adapter (a folder object) and its accumulated Fisher tensor, if any."""

    id: str
    adapter: str
    curvature: str | None
    tasks: tuple[GroupTask, ...]

    def __post_init__(self) -> None:
        if not _GROUP.fullmatch(self.id):
            raise PoolError(f"group id {self.id!r}, expected g1, g2, ...")
        if not self.tasks:
            raise PoolError(f"group {self.id} has no task, expected at least one")
        _check_digest(self.adapter, f"adapter of group {self.id}")
        _check_digest(self.curvature, f"curvature of group {self.id}", optional=True)


@dataclass(frozen=True)
class Pool:
    """One version of the assistant. `task` and `config` are what the last run learnt and how."""

    assistant: str
    base_model: str
    parents: tuple[str, ...] = ()
    task: str | None = None
    config: str | None = None
    router: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    assurance: Assurance = "asserted"
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ids = [group.id for group in self.groups]
        if len(set(ids)) != len(ids):
            raise PoolError(f"group ids {ids} repeat, expected each once")
        tasks = [entry.task for group in self.groups for entry in group.tasks]
        if len(set(tasks)) != len(tasks):
            raise PoolError("a task snapshot occurs twice in the pool, expected each in exactly one group")
        if self.assurance not in ("asserted", "server"):
            raise PoolError(f"assurance {self.assurance!r}, expected 'asserted' or 'server'")
        for name, digest in [("task", self.task), ("config", self.config)]:
            _check_digest(digest, name, optional=True)
        for digest in (*self.parents, self.base_model):
            _check_digest(digest, "parent or base model")

    @classmethod
    def empty(cls, assistant: str, base_model: str) -> Self:
        """The pool before any task: no groups, every request goes to the base model."""
        return cls(assistant=assistant, base_model=base_model)

    def group(self, group_id: str) -> Group:
        """The group of that id.

        Raises:
            PoolError: no such group.
        """
        for group in self.groups:
            if group.id == group_id:
                return group
        ids = ", ".join(group.id for group in self.groups) or "none"
        raise PoolError(f"no group {group_id!r} in this pool, expected one of: {ids}")

    def group_of(self, task: str) -> Group | None:
        """The group that learnt this task snapshot, or None."""
        for group in self.groups:
            if any(entry.task == task for entry in group.tasks):
                return group
        return None

    def tasks(self) -> tuple[GroupTask, ...]:
        """All tasks, group by group, each group's in the order learnt."""
        return tuple(entry for group in self.groups for entry in group.tasks)

    def groups_by_name(self) -> dict[str, str]:
        """Group id by name of each task."""
        return {entry.name: group.id for group in self.groups for entry in group.tasks}

    def precedence(self) -> tuple[str, ...] | None:
        """Names of the tasks by their claim on what several have in common, the strongest last.

        The newest that no other replaces comes last. None in versions of earlier releases: there the first in the pool
        has it, and goes on having it.
        """
        learnt = self.router.get("learnt")
        if learnt is None:
            return None
        names = {entry.name for entry in self.tasks()}
        if len(learnt) != len(names) or set(learnt) != names:
            raise PoolError(
                f"the pool's router names the tasks {sorted(learnt)}, expected those of its groups, {sorted(names)}; "
                "restore the manifest object from a backup"
            )
        weak = set(self.router.get("replaced", ()))
        return tuple(sorted(learnt, key=lambda name: name not in weak))

    def next_group_id(self) -> str:
        """An id that no group has."""
        return f"g{1 + max((int(group.id[1:]) for group in self.groups), default=0)}"

    def with_task(
        self,
        entry: GroupTask,
        *,
        group: str | None,
        adapter: str,
        curvature: str | None,
        parent: str | None,
        config: str,
        router: Mapping[str, Any],
        assurance: Assurance = "asserted",
        overrides: Sequence[str] = (),
    ) -> Self:
        """A new pool in which `entry` was learnt by `group` (None opens one) on the version `parent`.

        `router` is the state fitted on the groups as they will be: use `router.extend`, which does both.

        Raises:
            PoolError: unknown group, or the task is already in the pool.
        """
        if group is None:
            groups = (*self.groups, Group(self.next_group_id(), adapter, curvature, (entry,)))
        else:
            target = self.group(group)
            larger = replace(target, adapter=adapter, curvature=curvature, tasks=(*target.tasks, entry))
            groups = tuple(larger if each.id == group else each for each in self.groups)
        return replace(
            self,
            parents=() if parent is None else (parent,),
            task=entry.task,
            config=config,
            router=router,
            groups=groups,
            assurance=assurance,
            overrides=tuple(sorted(set(overrides))),
        )

    def to_manifest(self) -> dict[str, Any]:
        """The canonical JSON object of the store; its digest is the version's digest."""
        return {
            "kind": "pool",
            "schema": 1,
            "assistant": self.assistant,
            "parents": list(self.parents),
            "task": self.task,
            "config": self.config,
            "base_model": self.base_model,
            "router": dict(self.router),
            "groups": [
                {
                    "id": group.id,
                    "adapter": group.adapter,
                    "curvature": group.curvature,
                    "tasks": [
                        {
                            "task": entry.task,
                            "name": entry.name,
                            "instructions": list(entry.instructions),
                            "kept_rows": entry.kept_rows,
                            **({} if entry.has_inputs else {"has_inputs": False}),
                            **({"kept_questions": entry.kept_questions} if entry.kept_questions else {}),
                            **({"wordings": list(entry.wordings)} if entry.wordings else {}),
                            **({"inputs": entry.inputs.to_json()} if entry.inputs else {}),
                        }
                        for entry in group.tasks
                    ],
                }
                for group in self.groups
            ],
            "assurance": self.assurance,
            "overrides": list(self.overrides),
        }

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Self:
        """Read back `to_manifest`.

        Raises:
            PoolError: not a pool manifest of schema 1, a missing or unknown key, or contents that do not fit.
        """
        if manifest.get("kind") != "pool" or manifest.get("schema") != 1:
            raise PoolError(
                f"an object of kind {manifest.get('kind')!r}, schema {manifest.get('schema')!r}, "
                f"expected a pool "
                "manifest of schema 1; check the digest, or use the release that wrote it"
            )
        values = _fields(manifest, _POOL_KEYS, "pool manifest")
        groups = [_fields(group, ("id", "adapter", "curvature", "tasks"), "group") for group in values["groups"]]
        return cls(
            assistant=values["assistant"],
            base_model=values["base_model"],
            parents=tuple(values["parents"]),
            task=values["task"],
            config=values["config"],
            router=values["router"],
            groups=tuple(
                Group(
                    id=group["id"],
                    adapter=group["adapter"],
                    curvature=group["curvature"],
                    tasks=tuple(_read_task(entry) for entry in group["tasks"]),
                )
                for group in groups
            ),
            assurance=values["assurance"],
            overrides=tuple(values["overrides"]),
        )


_POOL_KEYS = (
    "kind", "schema", "assistant", "parents", "task", "config", "base_model", "router", "groups", "assurance",
    "overrides",
)  # fmt: skip


def distinct_instructions(instructions: Sequence[str]) -> tuple[str, ...]:
    """The instructions of a task's rows, each once, sorted: the task's part of the codebook."""
    return tuple(sorted(set(instructions)))


def _read_task(entry: Mapping[str, Any]) -> GroupTask:
    usual = ("task", "name", "instructions", "kept_rows")
    further = ("has_inputs", "kept_questions", "wordings", "inputs")
    values = _fields(entry, (*usual, *(key for key in further if key in entry)), "task of a group")
    try:
        inputs = InputProfile.from_json(values["inputs"]) if values.get("inputs") else None
    except (KeyError, TypeError, ValueError) as error:
        raise PoolError(f"the inputs of task {values['name']!r} can't be read: {error}") from error
    return GroupTask(
        values["task"],
        values["name"],
        tuple(values["instructions"]),
        values["kept_rows"],
        bool(values.get("has_inputs", True)),
        values.get("kept_questions"),
        tuple(values.get("wordings", ())),
        inputs,
    )


def _fields(value: object, keys: Sequence[str], what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or set(value) != set(keys):
        contents = sorted(value) if isinstance(value, Mapping) else type(value).__name__
        raise PoolError(f"{what} with {contents}, expected the keys {sorted(keys)}; the object is not one lcia wrote")
    return value


def _check_digest(digest: object, what: str, optional: bool = False) -> None:
    if digest is None and optional:
        return
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise PoolError(f"{what} is {digest!r}, expected a sha256 digest of 64 hexadecimal digits")
