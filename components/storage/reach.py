"""What refers to what in the object store: the mark half of mark and sweep.

Records are canonical JSON objects with a `kind`; any 64 hex digits in one that name a stored object are a reference.
That is conservative: a record of a kind this release has never heard of keeps what it names. Rows (JSON Lines) refer to
their images alone, whatever their texts say; reports, images and weights refer to nothing.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from components.storage.objects import NotCanonical, ObjectMissing, ObjectStore, StoredFile, parse_json

_NAMED = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
RECORD_KINDS = frozenset({"task", "assessment", "tuning", "evaluation", "pool", "evidence"})
"""Kinds whose content the rules of retention read; of the others only the references are kept in memory."""


@dataclass(frozen=True)
class Held:
    """One stored object."""

    file: StoredFile
    kind: str
    """`kind` of a record, `rows` of those that show images, or `bytes`."""
    task: str | None
    """The task digest that a record names, if it names one."""
    names: frozenset[str]
    """Digests it refers to, stored or not."""


@dataclass
class Index:
    """Every object of a store by digest, and the content of those that rules read."""

    held: dict[str, Held] = field(default_factory=dict)
    records: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    of_task: dict[tuple[str, str | None], list[str]] = field(default_factory=dict)
    """Records by kind and the task they name."""

    @classmethod
    def of(cls, store: ObjectStore) -> "Index":
        """Read every record of the store; objects that vanish meanwhile are left out.

        Raises:
            ObjectCorrupt: a record was altered, so that nobody knows what it keeps.
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
            shown = images(content)
            self.held[file.name] = Held(file, "rows" if shown else "bytes", None, shown)
            return
        kind, task = str(value["kind"]), value.get("task")
        self.held[file.name] = Held(file, kind, task if isinstance(task, str) else None, frozenset(named(content)))
        self.of_task.setdefault((kind, self.held[file.name].task), []).append(file.name)
        if kind in RECORD_KINDS:
            self.records[file.name] = value

    def of_kind(self, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Digest and content of every record of one of `RECORD_KINDS`."""
        return ((digest, value) for digest, value in self.records.items() if value["kind"] == kind)

    def files_of(self, folder: str) -> AbstractSet[str]:
        """A folder object with its files, or an object alone."""
        held = self.held.get(folder)
        return {folder} | (held.names if held is not None and held.kind == "folder" else set())

    def reach(self, roots: Iterable[str], stop: AbstractSet[str] = frozenset()) -> set[str]:
        """Stored objects that `roots` lead to, themselves included; nothing in `stop` is entered."""
        found: set[str] = set()
        queue = [digest for digest in roots if digest in self.held and digest not in stop]
        while queue:
            digest = queue.pop()
            if digest not in found:
                found.add(digest)
                queue += [name for name in self.held[digest].names if name in self.held and name not in stop]
        return found


def named(content: bytes) -> set[str]:
    """Every digest that stands in some bytes."""
    return {match.decode("ascii") for match in _NAMED.findall(content)}


def images(content: bytes) -> frozenset[str]:
    """Digests of the images that the rows of a JSON Lines object show."""
    if not content.endswith(b"\n") or b'"image":["' not in content:
        return frozenset()
    try:
        rows = [parse_json(line) for line in content.split(b"\n")[:-1]]
    except NotCanonical:
        return frozenset()
    shown = (row.get("image") for row in rows if isinstance(row, dict))
    return frozenset(str(digest) for every in shown if isinstance(every, list) for digest in every)


def _record(content: bytes) -> dict[str, Any] | None:
    if not content.startswith(b"{") or content.endswith(b"\n"):
        return None
    try:
        value = parse_json(content)
    except NotCanonical:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("kind"), str) else None
