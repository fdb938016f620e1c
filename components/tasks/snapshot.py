"""The immutable snapshot of a task: canonical rows, their images, and one small object that names the rows.

The snapshot's digest is the task digest. It covers content only: packages that differ in key order, white space,
escapes, file names, or in the formats of images with the same pixels, have the same snapshot. The object of a task
without unlabelled rows doesn't mention them, so its digest doesn't depend on that split.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from components.errors import LciaError
from components.storage.objects import Json, ObjectStore
from components.tasks.package import Package
from components.tasks.rows import Example, Unlabelled
from components.tasks.task_file import SPLITS, Split, Task

SCHEMA = 1
UNLABELLED = "unlabelled"


class SnapshotError(LciaError):
    """An object that is no task snapshot of a schema this version reads."""


@dataclass(frozen=True)
class SplitRef:
    """The object that holds the rows of a split, and their number."""

    object: str
    rows: int


@dataclass(frozen=True)
class Snapshot:
    """A task in the object store; its rows are read on first use."""

    digest: str
    task: Task
    splits: dict[Split, SplitRef]
    store: ObjectStore = field(repr=False, compare=False)
    unlabelled_split: SplitRef | None = None
    """Rows without an answer; the owner's `retention` applies to them as to training rows."""
    learnt_instructions: tuple[str, ...] | None = None
    """Instructions of all training rows, if only some of the rows are kept."""
    _read: dict[Split, tuple[Example, ...]] = field(default_factory=dict, repr=False, compare=False)

    def rows(self, split: Split) -> tuple[Example, ...]:
        """Examples of a split in their original order.

        Raises:
            ObjectMissing, ObjectCorrupt: the rows were erased or damaged.
        """
        if split not in self._read:
            lines = self.store.get_lines(self.splits[split].object)
            self._read[split] = tuple(Example.from_row(line, self.store.get) for line in lines)
        return self._read[split]

    def unlabelled_rows(self) -> tuple[Unlabelled, ...]:
        """Rows without an answer in their original order; none if the task has no such split.

        Raises:
            ObjectMissing, ObjectCorrupt: the rows were erased or damaged.
        """
        if self.unlabelled_split is None:
            return ()
        lines = self.store.get_lines(self.unlabelled_split.object)
        return tuple(Unlabelled.from_row(line, self.store.get) for line in lines)

    @property
    def has_images(self) -> bool:
        """True if any of its rows has an image.

        Raises:
            ObjectMissing, ObjectCorrupt: the rows were erased or damaged.
        """
        return any(row.images for split in SPLITS for row in self.rows(split))

    def instructions(self, split: Split = "train") -> tuple[str, ...]:
        """The distinct instruction texts of a split, sorted."""
        if split == "train" and self.learnt_instructions is not None:
            return self.learnt_instructions
        return tuple(sorted({example.instruction for example in self.rows(split)}))

    def taught_from(self, rows: str, instructions: Sequence[str], wordings: Sequence[str] | None = None) -> "Snapshot":
        """The same task with the training rows that are still kept (`rows` is their object), and no unlabelled ones.

        `instructions` are those of all the training rows it had, `wordings` those that people have given it since.
        """
        train = SplitRef(rows, len(self.store.get_lines(rows)))
        task = self.task if wordings is None else self.task.model_copy(update={"wordings": tuple(wordings)})
        return Snapshot(
            self.digest, task, {**self.splits, "train": train}, self.store, learnt_instructions=tuple(instructions)
        )


def take_snapshot(package: Package, store: ObjectStore) -> Snapshot:
    """Store a package's images, its rows and its task object; doing it again changes nothing.

    Raises:
        SnapshotError: an image file changed since the package was read.
    """
    pictures = [row.images for row in package.unlabelled_rows]
    pictures += [row.images for split in SPLITS for row in package.splits[split]]
    for picture in {picture.digest: picture for images in pictures for picture in images}.values():
        if store.put(picture.content()) != picture.digest:
            raise SnapshotError(f"an image of {package.path} changed while it was read; submit the package again")
    splits: dict[Split, SplitRef] = {
        split: SplitRef(store.put_lines([example.to_row() for example in rows]), len(rows))
        for split, rows in ((split, package.splits[split]) for split in SPLITS)
    }
    rows = package.unlabelled_rows
    unlabelled_split = SplitRef(store.put_lines([row.to_row() for row in rows]), len(rows)) if rows else None
    return assemble(package.task, splits, unlabelled_split, store)


def assemble(
    task: Task, splits: dict[Split, SplitRef], unlabelled_split: SplitRef | None, store: ObjectStore
) -> Snapshot:
    """The snapshot of a task whose rows are in the store; stores its object."""
    digest = store.put_json(_manifest(task, splits, unlabelled_split))
    return Snapshot(digest, task, splits, store, unlabelled_split)


def load_snapshot(store: ObjectStore, digest: str) -> Snapshot:
    """The snapshot that a task digest names.

    Raises:
        ObjectMissing, ObjectCorrupt: its object is gone or damaged.
        SnapshotError: the object is something else, or of another schema.
    """
    value = store.get_json(digest)
    if not isinstance(value, dict) or value.get("kind") != "task" or value.get("schema") != SCHEMA:
        kind = value.get("kind") if isinstance(value, dict) else type(value).__name__
        raise SnapshotError(
            f"object {digest} is {kind!r}, expected a task of schema {SCHEMA}; "
            "name a task digest as `lcia status` prints it"
        )
    task, (splits, unlabelled_split) = header(digest, value), _splits(digest, value)
    return Snapshot(digest, task, splits, store, unlabelled_split)


def header(digest: str, value: dict[str, Json]) -> Task:
    """The task in the task object `value`, apart from its rows.

    Raises:
        SnapshotError: it does not fit the schema.
    """
    content = {key: value[key] for key in value if key not in ("kind", "schema", "splits")}
    try:
        return Task.model_validate(content, strict=False)
    except ValidationError as error:
        raise SnapshotError(f"task object {digest} does not fit its schema: {error}; submit the task again") from error


def _manifest(task: Task, splits: dict[Split, SplitRef], unlabelled_split: SplitRef | None) -> dict[str, Any]:
    content = task.model_dump(mode="json")
    if not task.wordings:  # tasks without any have the digest that earlier releases gave them
        del content["wordings"]
    entries = [*splits.items(), *([(UNLABELLED, unlabelled_split)] if unlabelled_split else [])]
    refs = {split: {"object": ref.object, "rows": ref.rows} for split, ref in entries}
    return {"kind": "task", "schema": SCHEMA, **content, "splits": refs}


def _splits(digest: str, value: dict[str, Json]) -> tuple[dict[Split, SplitRef], SplitRef | None]:
    entries = value.get("splits")
    if not isinstance(entries, dict) or set(entries) - {UNLABELLED} != set(SPLITS):
        raise SnapshotError(f"task object {digest} has no splits {', '.join(SPLITS)}; submit the task again")
    refs = {split: SplitRef(str(ref["object"]), int(ref["rows"])) for split, ref in entries.items()}
    return {split: refs[split] for split in SPLITS}, refs.get(UNLABELLED)


def without_rows(snapshot: Snapshot, omit: Collection[tuple[str, str]], store: ObjectStore) -> Snapshot:
    """The task without the given `(split, row id)` pairs (quarantined rows); the same snapshot if there are none."""
    if not omit:
        return snapshot
    splits: dict[Split, SplitRef] = {}
    for split in SPLITS:
        rows = [example.to_row() for example in snapshot.rows(split) if (split, example.id) not in omit]
        splits[split] = SplitRef(store.put_lines(rows), len(rows))
    unlabelled_split = snapshot.unlabelled_split
    digest = store.put_json(_manifest(snapshot.task, splits, unlabelled_split))
    return Snapshot(digest, snapshot.task, splits, store, unlabelled_split)
