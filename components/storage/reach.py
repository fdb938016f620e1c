"""References between objects in the object store: the mark half of mark and sweep.

Records are canonical JSON objects with a `kind`; any 64 hex digits in one that name a stored object are a reference.
That is conservative: a record of a kind that this release doesn't know keeps all objects it names. Rows (JSON Lines)
refer only to their images, no matter what their texts contain; reports, images and weights refer to nothing.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from components.storage.objects import NotCanonical, ObjectMissing, ObjectStore, StoredFile, parse_json

_NAMED = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
RECORD_KINDS = frozenset({"task", "assessment", "tuning", "evaluation", "pool", "evidence"})
"""Kinds whose content the rules of retention read; for the others only the references stay in memory."""


@dataclass(frozen=True)
class StoredObject:
    """One stored object."""

    file: StoredFile
    kind: str
    """`kind` of a record, `rows` for rows with images, or `bytes`."""
    task: str | None
    """The task digest that a record names, if it names one."""
    names: frozenset[str]
    """Digests it refers to, stored or not."""


@dataclass
class Index:
    """Every object of a store by digest, with the content of those that rules read."""

    objects: dict[str, StoredObject] = field(default_factory=dict)
    records: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    of_task: dict[tuple[str, str | None], list[str]] = field(default_factory=dict)
    """Records by kind and the task they name."""

    @classmethod
    def of(cls, store: ObjectStore) -> "Index":
        """Read every record of the store; objects that vanish meanwhile are left out.

        Raises:
            ObjectCorrupt: a record was altered, so its references are unknown.
        """
        index = cls()
        for file in store.objects():
            try:
                index._add(file, store.get(file.name) if store.begins(file.name, b"{") else b"")
            except ObjectMissing:
                continue
        return index

    def _add(self, file: StoredFile, content: bytes) -> None:
        value = _record(content)
        if value is None:
            pictures = images(content)
            self.objects[file.name] = StoredObject(file, "rows" if pictures else "bytes", None, pictures)
            return
        kind, task = str(value["kind"]), value.get("task")
        self.objects[file.name] = StoredObject(
            file, kind, task if isinstance(task, str) else None, frozenset(digests_in(content))
        )
        self.of_task.setdefault((kind, self.objects[file.name].task), []).append(file.name)
        if kind in RECORD_KINDS:
            self.records[file.name] = value

    def of_kind(self, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Digest and content of every record of one of `RECORD_KINDS`."""
        return ((digest, value) for digest, value in self.records.items() if value["kind"] == kind)

    def files_of(self, folder: str) -> AbstractSet[str]:
        """A folder object with its files, or any other object alone."""
        entry = self.objects.get(folder)
        return {folder} | (entry.names if entry is not None and entry.kind == "folder" else set())

    def reach(self, roots: Iterable[str], stop: AbstractSet[str] = frozenset()) -> set[str]:
        """Stored objects that `roots` lead to, the roots included; objects in `stop` are not followed."""
        digests: set[str] = set()
        queue = [digest for digest in roots if digest in self.objects and digest not in stop]
        while queue:
            digest = queue.pop()
            if digest not in digests:
                digests.add(digest)
                queue += [name for name in self.objects[digest].names if name in self.objects and name not in stop]
        return digests


def digests_in(content: bytes) -> set[str]:
    """Every digest in some bytes."""
    return {match.decode("ascii") for match in _NAMED.findall(content)}


def images(content: bytes) -> frozenset[str]:
    """Digests of the images of a JSON Lines object's rows."""
    if not content.endswith(b"\n") or b'"image":["' not in content:
        return frozenset()
    try:
        rows = [parse_json(line) for line in content.split(b"\n")[:-1]]
    except NotCanonical:
        return frozenset()
    lists = (row.get("image") for row in rows if isinstance(row, dict))
    return frozenset(str(digest) for every in lists if isinstance(every, list) for digest in every)


def _record(content: bytes) -> dict[str, Any] | None:
    if not content.startswith(b"{") or content.endswith(b"\n"):
        return None
    try:
        value = parse_json(content)
    except NotCanonical:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("kind"), str) else None
