"""Reading files from outside in a process of its own, for service, inbox, command line and steps alike.

The process (`parser`, started by `parser_process`) has no secrets, no database and no network (`confinement`). Its
answers are checked again here: lengths, rows, names. A package that needs more than its budget (`settings.packages`) is
refused.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components.settings import PackageSettings
from components.storage.objects import ObjectStore, canonical, parse_json
from components.tasks import frames, sources
from components.tasks.columns import Columns
from components.tasks.conversion import Reading
from components.tasks.images import ImageRefused, Picture, parse_pixels
from components.tasks.importing import fresh
from components.tasks.parser_process import Parser, ParserBroken, over, process
from components.tasks.problems import MAX_FILE_BYTES, MAX_ROWS, forbidden_character, path_fault
from components.tasks.quarantine import folder_object
from components.tasks.snapshot import UNLABELLED, Snapshot, SplitRef, assemble
from components.tasks.task_file import SPLITS, Split, Task, check_header

MB = 1024 * 1024


@dataclass(frozen=True)
class Taken:
    """A package that is now in the object store."""

    task: Task
    snapshot: Snapshot
    package: str
    """Folder object of its raw files; empty if the caller didn't ask for them."""
    cut: tuple[str, ...]
    """Splits that the package lacks, cut from its training rows."""
    remarks: tuple[str, ...]
    """Sentences for people about rows that were rewritten."""
    answer_limit_derived: bool
    confinement: tuple[str, ...]
    """Names of the limits that confined the process."""


def take(
    package: Path,
    store: ObjectStore,
    budget: PackageSettings,
    scratch: Path,
    *,
    label: str | None = None,
    check_owner: Callable[[str], None] | None = None,
    files: bool = True,
) -> Taken:
    """Read a package, a folder or a container, and store its snapshot and, if asked for, its raw files.

    `label` names the package in messages; `check_owner` raises on an owner that may not submit, before anything is
    stored.

    Raises:
        PackageError: it is refused, or needs more than its budget.
    """
    label = label or str(package)
    request = {"do": "take", "path": str(package.absolute()), "called": label, "files": files}
    request["pixels"] = budget.megapixels * 1_000_000
    with process(request, [package.absolute()], budget, scratch, label) as parser:
        header = parser.json(frames.HEADER)
        task = Task.model_validate_json(json.dumps(header["task"]))
        if check_owner is not None:
            check_owner(task.owner)
        intake = _Intake(parser, store, budget)
        intake.read()
        snapshot = assemble(task, intake.splits, intake.unlabelled_split, store)
        raw = store.put(folder_object(intake.files)) if files else ""
    return Taken(
        task,
        snapshot,
        raw,
        tuple(map(str, header["cut"])),
        tuple(map(str, header["remarks"])),
        bool(header["answer_limit_derived"]),
        parser.confinement,
    )


def import_data(
    source: Path,
    folder: Path,
    header: Mapping[str, Any],
    columns: Columns,
    reading: Reading,
    budget: PackageSettings,
) -> dict[str, Any]:
    """Write a package from a data set's folder or file; returns `Imported.to_json`.

    Raises:
        PackageError, SourceUnclear, ImportRefused, FolderTaken: see `importing.import_folder`.
    """
    check_header(header)
    data = sources.find(source, reading.splits)
    inputs = [data.root, *sources.homes(data.root), *(path for paths in data.splits.values() for path in paths)]
    request = {"do": "import", "source": str(source), "header": dict(header), "cwd": str(Path.cwd())}
    request |= {"columns": asdict(columns), "reading": asdict(reading)}
    readable = [path.absolute() for path in inputs]
    with (
        fresh(folder),
        tempfile.TemporaryDirectory(prefix="lcia-import-") as scratch,
        process(request, readable, budget, Path(scratch), str(source)) as parser,
    ):
        total = _Total(budget)
        while (frame := parser.next(frames.FILE, frames.VALUE))[0] == frames.FILE:
            name, size = _file(frame[1])
            total.add(size)
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as out:
                parser.copy(size, out)
        value: dict[str, Any] = json.loads(frame[1])
        parser.next(frames.END)
    return {**value, "folder": str(folder)}


def pictures(files: Sequence[tuple[str, bytes]], budget: PackageSettings) -> list[Picture]:
    """Images of a question, kept in memory; `files` are their names for messages, and their bytes.

    Raises:
        ImageRefused: one is no image that a task may hold; the message names it.
        PackageError: reading them takes more than its budget.
    """
    if not files:
        return []
    request = {"do": "pictures", "sizes": [len(content) for _, content in files]}
    images: list[Picture] = []
    with tempfile.TemporaryDirectory(prefix="lcia-images-") as scratch:
        after = [content for _, content in files]
        with process(request, [], budget, Path(scratch), "images", after) as parser:
            while (frame := parser.next(frames.IMAGE, frames.VALUE, frames.END))[0] == frames.IMAGE:
                parse_pixels(frame[1])
                images.append(Picture.of_pixels(frame[1]))
            if frame[0] == frames.VALUE:
                why = json.loads(frame[1])
                raise ImageRefused(f"{files[len(images)][0]}: {why['seen']}", str(why["expected"]))
    return images


def confinement(budget: PackageSettings) -> tuple[str, ...]:
    """Names of the limits that hold on this machine; starts the process only to ask it."""
    with (
        tempfile.TemporaryDirectory(prefix="lcia-parser-") as scratch,
        process({"do": "pictures", "sizes": []}, [], budget, Path(scratch), "nothing") as parser,
    ):
        parser.next(frames.END)
        return parser.confinement


class _Total:
    """Bytes of a package that may still be kept."""

    def __init__(self, budget: PackageSettings) -> None:
        self.most, self.left = budget.output_mb, budget.output_mb * MB

    def add(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise over(f"more than {self.most} MB to keep", f"packages.output_mb = {self.most}")


@dataclass
class _Intake:
    """Rows, images and files on their way into the store."""

    parser: Parser
    store: ObjectStore
    budget: PackageSettings
    images: set[str] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)
    splits: dict[Split, SplitRef] = field(default_factory=dict)
    unlabelled_split: SplitRef | None = None

    def read(self) -> None:
        total, pixels = _Total(self.budget), self.budget.megapixels * 1_000_000
        while True:
            kind, content = self.parser.next(frames.IMAGE, frames.SPLIT, frames.FILE, frames.END)
            if kind == frames.END:
                break
            if kind == frames.IMAGE:
                pixels -= parse_pixels(content).size // 3
                if pixels < 0:
                    raise over("more pixels than may be kept", f"packages.megapixels = {self.budget.megapixels}")
                digest = self.store.put(content)
                self.images.add(digest)
                total.add(self.store.size(digest))
            elif kind == frames.SPLIT:
                self._split(json.loads(content), total)
            else:
                name, size = _file(content)
                total.add(size)
                with tempfile.NamedTemporaryFile(dir=self.parser.folder) as spool:
                    self.parser.copy(size, spool.file)
                    spool.flush()
                    self.files[name] = self.store.put_file(Path(spool.name))
        if set(self.splits) != set(SPLITS):
            raise ParserBroken(f"the parser sent splits {sorted(self.splits)}")

    def _split(self, announcement: Mapping[str, Any], total: _Total) -> None:
        """Rows of one split, each checked, in canonical form."""
        count = int(announcement["rows"])
        split = next((name for name in SPLITS if name == announcement["split"]), None)
        if (split is None and announcement["split"] != UNLABELLED) or not 0 <= count <= MAX_ROWS * len(SPLITS):
            raise ParserBroken(f"the parser sent {count} rows of {announcement['split']!r}")
        remaining = count
        with tempfile.NamedTemporaryFile(dir=self.parser.folder) as spool:
            while remaining or count == 0:
                lines = self.parser.next(frames.ROWS)[1].splitlines()
                for line in lines:
                    row = canonical(self._row(line, needs_output=split is not None)) + b"\n"
                    total.add(len(row))
                    spool.write(row)
                remaining -= len(lines)
                if remaining < 0 or not lines:
                    break
            if remaining:
                raise ParserBroken(f"the parser sent another number of rows than {count}")
            spool.flush()
            if split is None:
                self.unlabelled_split = SplitRef(self.store.put_file(Path(spool.name)), count) if count else None
            else:
                self.splits[split] = SplitRef(self.store.put_file(Path(spool.name)), count)

    def _row(self, line: bytes, *, needs_output: bool) -> dict[str, Any]:
        """A row as a snapshot may hold it."""
        row: dict[str, Any] = parse_json(line)
        texts = {name: row[name] for name in ("instruction", "input", "output") if name in row}
        lists = {name: row[name] for name in ("choices", "image") if name in row}
        whole = len(texts) + len(lists) == len(row) and "instruction" in row and ("output" in row) is needs_output
        whole &= all(isinstance(value, list) and value for value in lists.values())
        flat = [*texts.values(), *(one for value in lists.values() for one in value)]
        if not whole or not all(isinstance(text, str) and not forbidden_character(text) for text in flat):
            raise ParserBroken("the parser sent a row of another shape")
        if not self.images.issuperset(row.get("image", ())):
            raise ParserBroken("the parser sent a row with an image that it did not send")
        return row


def _file(content: bytes) -> tuple[str, int]:
    entry = json.loads(content)
    name, size = str(entry["name"]), int(entry["size"])
    if path_fault(name) or not 0 <= size <= MAX_FILE_BYTES:
        raise ParserBroken("the parser sent a file with another name or size than it may have")
    return name, size
