"""The task package: a folder with `task.yaml`, one JSON Lines file per split, and the images that rows name.

A package comes from outside and is read as hostile input: no links, no paths that leave the folder, no unknown keys or
files, bounded sizes, and nothing in it is ever executed. `read_package` reports all faults at once, so that a site can
mend a package in one round.

Rows without an answer may stand in a split of their own, `unlabelled`, which is optional. If `task.yaml` doesn't name
`decoding.max_new_tokens`, the longest reference sets it.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from components.tasks.decoding_defaults import answer_limit
from components.tasks.images import MAX_ALL_PIXELS, Album, TooManyPixels, is_image
from components.tasks.problems import (
    MAX_FILE_BYTES,
    Findings,
    PackageError,
    Problem,
    is_system_file,
    path_fault,
    read_regular,
    show,
)
from components.tasks.rows import Example, Rows, Unlabelled, read_rows, read_unlabelled
from components.tasks.splits import SHARES, cut
from components.tasks.task_file import SPLITS, TASK_FILE, SplitFiles, Task, TaskFile, read_task_file

MAX_FILES = 32
MAX_PACKAGE_BYTES = 640 * 1024 * 1024
"""Most files of a package, and most bytes of them; images have limits of their own."""
MAX_IMAGES = 50_000
MAX_IMAGES_BYTES = 4 * 1024 * 1024 * 1024
MAX_ENTRIES = 2 * MAX_IMAGES
"""Most files and folders in all, including system files and folders, which no other limit counts."""
SIDE_FILES = ("LICENSE", "LICENCE", "NOTICE", "ATTRIBUTION", "README", "CHANGELOG")
"""Texts a package may carry beside its data, with any or no suffix."""


@dataclass(frozen=True)
class Package:
    """A package that has no problem."""

    path: Path
    task: Task
    splits: Mapping[str, tuple[Example, ...]]
    """Examples of `train`, `validation` and `test`, in file order."""
    files: tuple[str, ...]
    """Relative POSIX names of all files."""
    unlabelled_rows: tuple[Unlabelled, ...] = ()
    """Rows without an answer, in file order."""
    cut: tuple[str, ...] = ()
    """Splits that the package lacks, cut from its training rows."""
    set_aside: tuple[Problem, ...] = ()
    """Problems of the few faulty rows that `splits` leaves out."""
    remarks: tuple[str, ...] = ()
    """Sentences for people about rows that were rewritten."""
    answer_limit_derived: bool = False
    """True if `decoding.max_new_tokens` comes from the longest reference, because `task.yaml` doesn't name it."""


def read_package(path: Path | str, label: str | None = None, most_pixels: int = MAX_ALL_PIXELS) -> Package:
    """Read a task package strictly; write nothing, and read nothing outside `path`.

    `label` names the package in messages if `path` means nothing to its owner, as for a restored copy. `most_pixels`
    limits all its images together.

    Raises:
        PackageError: with every problem, up to 20 a file.
    """
    path = Path(path)
    label = label or str(path)
    files, problems = list_files(path, label)
    if problems:
        raise PackageError(label, problems)
    try:
        return _read(path, label, files, most_pixels)
    except TooManyPixels as why:
        raise PackageError(label, why.problems) from None


def _read(path: Path, label: str, files: list[str], most_pixels: int) -> Package:
    definition, problems = read_task_file(path, files)
    names = definition.splits if definition else SplitFiles()
    choices = definition.choices if definition else None
    names = _with_parquet_names(names, files)
    missing = [split for split in SHARES if split not in names.model_fields_set and getattr(names, split) not in files]
    album = Album(path, files, most_pixels)
    read: dict[str, Rows[Example]] = {
        split: _read_split(path, files, getattr(names, split), choices, album)
        for split in SPLITS
        if split not in missing
    }
    lines = {split: rows.rows for split, rows in read.items()}
    bare = _read_unlabelled(path, files, names, album)
    everything: list[Rows[Any]] = [*read.values(), bare]
    problems += [problem for rows in everything for problem in rows.problems]
    if missing:
        lines = cut(lines, missing)
        problems += [_too_few(names, lines, split) for split in SPLITS if not lines[split] and not problems]
    problems += leaks(
        [(names.train, *line) for line in lines["train"]],
        [(names.test if "test" in read else names.train, *line) for line in lines["test"]],
    )
    problems += _strangers(files, names, album, every=not problems)
    if definition is not None:
        problems += _needs_choices(definition, {**lines, "unlabelled": bare.rows}, names)
    if problems or definition is None:
        raise PackageError(label, problems)
    splits = {split: tuple(example for _, example in rows) for split, rows in lines.items()}
    questions = tuple(row for _, row in bare.rows)
    aside = tuple(problem for rows in everything for problem in rows.set_aside)
    counts = sum((rows.remarks for rows in everything), Counter[str]())
    remarks = (*remarks_on(aside), *(f"{count} rows: {words}" for words, count in sorted(counts.items())))
    task = _with_answer_limit(definition, splits)
    is_derived = task.decoding != definition.decoding
    return Package(path, task, splits, tuple(files), questions, tuple(missing), aside, remarks, is_derived)


def remarks_on(set_aside: Sequence[Problem]) -> list[str]:
    """Sentences about the faulty rows that were left out."""
    return [f"set aside {problem}" for problem in set_aside]


def _with_answer_limit(definition: TaskFile, splits: Mapping[str, Sequence[Example]]) -> Task:
    """The task with an answer limit for its references, unless it chooses among answers or names a limit itself."""
    task = definition.task()
    if task.decoding.mode == "choose" or "max_new_tokens" in definition.decoding.model_fields_set:
        return task
    limit = answer_limit(example.output for rows in splits.values() for example in rows)
    return task.model_copy(update={"decoding": task.decoding.model_copy(update={"max_new_tokens": limit})})


def list_files(path: Path, label: str | None = None) -> tuple[list[str], list[Problem]]:
    """Relative POSIX names of the regular files below `path`, sorted, and problems with the rest.

    `label` names the folder in messages.
    """
    label = label or str(path)
    if path.is_symlink() or not path.is_dir():
        kind = "a link" if path.is_symlink() else "no such folder" if not path.exists() else "a file"
        return [], [Problem(label, None, None, kind, "a package folder that holds task.yaml")]
    names: list[str] = []
    problems: list[Problem] = []
    count, size = {False: 0, True: 0}, {False: 0, True: 0}  # of images: True
    entries = 0
    for folder, folders, files in os.walk(path, followlinks=False):
        folders[:] = [entry for entry in folders if entry != "__MACOSX"]
        entries += len(folders) + len(files)
        for entry in sorted([*folders, *files]):
            full = Path(folder, entry)
            name = full.relative_to(path).as_posix()
            if is_system_file(name):
                continue
            fault = path_fault(name)
            if fault or full.is_symlink():
                actual = fault or "a link"
                problems.append(Problem(show(name), None, None, actual, "regular files with plain names"))
            elif full.is_file():
                names.append(name)
                count[is_image(name)] += 1
                size[is_image(name)] += full.stat().st_size
            elif not full.is_dir():
                problems.append(Problem(show(name), None, None, "no regular file", "regular files only"))
        if much := _too_much(entries, count, size):
            problems.append(Problem(label, None, None, much, "a smaller package"))
            break
    return sorted(names), problems


def _too_much(entries: int, count: Mapping[bool, int], size: Mapping[bool, int]) -> str | None:
    """A limit that a folder breaks; numbers of images are under `True`."""
    if entries > MAX_ENTRIES:
        return f"more than {MAX_ENTRIES} files and folders"
    if count[False] > MAX_FILES or size[False] > MAX_PACKAGE_BYTES:
        return f"more than {MAX_FILES} files or {MAX_PACKAGE_BYTES} bytes"
    if count[True] > MAX_IMAGES or size[True] > MAX_IMAGES_BYTES:
        return f"more than {MAX_IMAGES} images or {MAX_IMAGES_BYTES} bytes of them"
    return None


def _with_parquet_names(names: SplitFiles, files: list[str]) -> SplitFiles:
    """The splits' file names: a split that `task.yaml` doesn't name is a Parquet file if there is no `.jsonl`."""
    other = {split: name.replace(".jsonl", ".parquet") for split, name in SplitFiles().model_dump().items()}
    parquet = {
        split: name
        for split, name in other.items()
        if split not in names.model_fields_set and name in files and getattr(names, split) not in files
    }
    return SplitFiles.model_validate({**names.model_dump(include=names.model_fields_set), **parquet})


def _too_few(names: SplitFiles, lines: Mapping[str, Sequence[tuple[int, Example]]], split: str) -> Problem:
    rows = sum(map(len, lines.values()))
    actual = f"{rows} rows, none of which falls to {split} when {' and '.join(SHARES)} are cut"
    questions = {example.stem for part in lines.values() for _, example in part}
    if len(questions) * 2 <= rows:
        actual += f" (they ask only {len(questions)} different questions, and equal ones stay together)"
    return Problem(names.train, None, None, actual, f"more rows, or a file {getattr(names, split)}")


def _read_split(
    path: Path, files: list[str], name: str, choices: tuple[str, ...] | None, album: Album
) -> Rows[Example]:
    if name not in files:
        return Rows.refusal(
            Problem(name, None, None, "no such file", "one JSON object a line, or a Parquet file of that name")
        )
    content = read_regular(path / name, name, MAX_FILE_BYTES)
    return Rows.refusal(content) if isinstance(content, Problem) else read_rows(content, name, choices, album)


def _read_unlabelled(path: Path, files: list[str], names: SplitFiles, album: Album) -> Rows[Unlabelled]:
    name = names.unlabelled
    if name not in files and "unlabelled" not in names.model_fields_set:
        return Rows.none()
    if name not in files:
        rule = "one JSON object a line, or no `unlabelled` in splits"
        return Rows.refusal(Problem(name, None, None, "no such file", rule))
    content = read_regular(path / name, name, MAX_FILE_BYTES)
    return Rows.refusal(content) if isinstance(content, Problem) else read_unlabelled(content, name, album)


def leaks(train: Iterable[tuple[str, int, Example]], test: Iterable[tuple[str, int, Example]]) -> list[Problem]:
    """Problems of test rows that ask a training row's question; rows come with their file and number."""
    sources = {example.question: f"{file}:{number}" for file, number, example in train}
    return Findings(
        Problem(
            file,
            number,
            "instruction+input+image" if example.images else "instruction+input",
            f"the question of {sources[example.question]}",
            "test rows that do not occur in train: remove one of the two",
        )
        for file, number, example in test
        if example.question in sources
    ).problems


def _strangers(files: list[str], names: SplitFiles, album: Album, *, every: bool) -> list[Problem]:
    """Files that nothing names. Images count only if `every` row could be read: a faulty row might name them."""
    in_use = {TASK_FILE, *names.files, *album.names}
    rule = f"only task.yaml, the split files, images that rows name, and texts named {', '.join(SIDE_FILES)}"
    return [
        Problem(name, None, None, "an image that no row names" if is_image(name) else "an unknown file", rule)
        for name in files
        if name not in in_use and PurePosixPath(name).name.partition(".")[0].upper() not in SIDE_FILES
        if every or not is_image(name)
    ][:20]


def _needs_choices(
    task: Task, lines: Mapping[str, Sequence[tuple[int, Example | Unlabelled]]], names: SplitFiles
) -> list[Problem]:
    if task.choices or (task.metric != "choice_accuracy" and task.decoding.mode != "choose"):
        return []
    for split, rows in lines.items():
        for number, example in rows:
            if example.choices is None:
                rule = "choices in task.yaml or in each row, as choice_accuracy and choose need them"
                return [Problem(getattr(names, split), number, "choices", "none", rule)]
    return []
