"""The task package: a folder with `task.yaml`, one JSON Lines file per split, and the images that rows name.

A package comes from outside and is read as hostile: no links, no paths that leave the folder, no
unknown keys or files, bounded sizes, and nothing in it is ever executed. `read_package` reports all it
finds at once, so that a site mends a package in one round.

Rows without an answer may stand in a split of their own, `unlabelled`, which is optional. Where `task.yaml` names no
`decoding.max_new_tokens`, it is derived from the longest reference.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.tasks.decoding_defaults import LEAST_TOKENS, MOST_TOKENS, Metric, answer_limit
from components.tasks.images import Album, is_image
from components.tasks.problems import (
    MAX_FILE_BYTES,
    PackageError,
    Problem,
    decode,
    forbidden_character,
    path_fault,
    read_regular,
    show,
)
from components.tasks.rows import Example, Unlabelled, read_rows, read_unlabelled
from components.tasks.splits import SHARES, cut
from components.tasks.yaml_lines import Document, parse_yaml

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TASK_FILE = "task.yaml"
MAX_TASK_FILE_BYTES = 64 * 1024
MAX_FILES = 32
MAX_PACKAGE_BYTES = 160 * 1024 * 1024
"""Most files of a package, and their bytes; images have limits of their own."""
MAX_IMAGES = 50_000
MAX_IMAGES_BYTES = 4 * 1024 * 1024 * 1024
SIDE_FILES = ("LICENSE", "LICENCE", "NOTICE", "ATTRIBUTION", "README", "CHANGELOG")
"""Texts a package may carry beside its data, with any or no suffix."""


def _plain(text: str) -> str:
    if not text.strip():
        raise ValueError("empty text, expected at least one visible character")
    character = forbidden_character(text)
    if character:
        raise ValueError(f"character {character}, expected text without control characters")
    return text


def _inside(name: str) -> str:
    fault = path_fault(name)
    if fault:
        raise ValueError(f"{fault}, expected a file inside the package such as train.jsonl")
    if not name.endswith((".jsonl", ".parquet")):
        raise ValueError("expected a file name that ends in .jsonl or .parquet")
    return name


Line = Annotated[str, Field(max_length=200), AfterValidator(_plain)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}@[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
SplitFile = Annotated[str, Field(max_length=200), AfterValidator(_inside)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Decoding(_Strict):
    """How an answer is read from the model; one contract for gate, ask and export."""

    mode: Literal["generate", "choose"] = "generate"
    """Greedy decoding, or the likeliest of the choices."""
    max_new_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = LEAST_TOKENS
    """Longest generated answer, in tokens; where `task.yaml` does not name it, the longest reference and room."""
    length_normalisation: Literal["none", "tokens"] = "none"
    """`choose`: compare the sum or the mean of the answer's token log-likelihoods."""


class Retention(_Strict):
    """What the owner allows to be kept after the task is learnt."""

    train_rows: Annotated[int, Field(ge=0)] = 0
    """Training rows kept for rehearsal; 0 keeps none."""
    evaluation_rows: bool = True
    """Whether validation and test rows are kept; without them forgetting is not measurable."""
    until: date | None = None
    """Last day on which rows are kept; None sets no end."""


class Task(_Strict):
    """What a task is, apart from its rows."""

    name: Name
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
    owner: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,62}$")]
    """The site that owns the rows."""
    description: Annotated[str, Field(max_length=2000), AfterValidator(_plain)]
    metric: Metric = "exact_match"
    """Score of an answer against `output`, a fraction."""
    decoding: Decoding = Decoding()
    choices: Annotated[tuple[Line, ...], Field(min_length=2)] | None = None
    """All answers that are allowed, in the order they are shown; None for free text."""
    retention: Retention = Retention()
    licence: Line
    """Licence of the rows, an SPDX identifier where there is one."""
    supersedes: Label | None = None
    """`name@version` of the task that this one refreshes."""
    target: Annotated[float, Field(ge=0, le=1)] | None = None
    """Score at which the owner calls the task learnt."""

    @model_validator(mode="after")
    def _choices_are_distinct(self) -> Self:
        if self.choices and len(set(self.choices)) < len(self.choices):
            raise ValueError("choices holds an answer twice, expected each once")
        return self

    @property
    def label(self) -> str:
        """`name@version`, as people call it."""
        return f"{self.name}@{self.version}"


class SplitFiles(_Strict):
    """File of each split, relative to the package; one that is not named may end in `.parquet` as well."""

    train: SplitFile = "train.jsonl"
    validation: SplitFile = "validation.jsonl"
    test: SplitFile = "test.jsonl"
    unlabelled: SplitFile = "unlabelled.jsonl"
    """Rows without `output`; need not be there unless it is named."""

    @model_validator(mode="after")
    def _files_are_distinct(self) -> Self:
        if len(set(self.files)) < len(self.files):
            raise ValueError("two splits name the same file, expected one file each")
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """The files of all splits."""
        return (self.train, self.validation, self.test, self.unlabelled)


class TaskFile(Task):
    """`task.yaml`: the task and where its splits are."""

    splits: SplitFiles = SplitFiles()

    @model_validator(mode="after")
    def _choices_differ_when_compared(self) -> Self:
        bare = [choice.strip() for choice in self.choices or ()]
        twice = next((choice for choice in bare if bare.count(choice) > 1), None)
        if twice is not None:
            raise ValueError(
                f"choices {show(twice)} and the same with other white space around it, expected choices that differ "
                "in more: answers are compared without it"
            )
        return self

    def task(self) -> Task:
        """The task without its file names, which are not content."""
        return Task.model_validate(self.model_dump(exclude={"splits"}))


@dataclass(frozen=True)
class Package:
    """A package that was read without a problem."""

    path: Path
    task: Task
    splits: Mapping[str, tuple[Example, ...]]
    """Examples of `train`, `validation` and `test`, in file order."""
    files: tuple[str, ...]
    """Relative POSIX names of all files."""
    unlabelled: tuple[Unlabelled, ...] = ()
    """Rows without an answer, in file order."""
    cut: tuple[str, ...] = ()
    """Splits that the package does not have and that were cut from its training rows."""
    answer_limit_derived: bool = False
    """Whether `decoding.max_new_tokens` follows from the longest reference, as `task.yaml` does not name it."""


def read_package(path: Path | str, called: str | None = None) -> Package:
    """Read a task package strictly; nothing is written and nothing outside `path` is read.

    `called` names the package in messages where `path` means nothing to its owner, as for a restored copy.

    Raises:
        PackageError: everything found, up to 20 problems a file.
    """
    path = Path(path)
    called = called or str(path)
    files, problems = list_files(path)
    if problems:
        raise PackageError(called, problems)
    definition, problems = _read_task_file(path, files)
    names = definition.splits if definition else SplitFiles()
    choices = definition.choices if definition else None
    names = _found(names, files)
    missing = [split for split in SHARES if split not in names.model_fields_set and getattr(names, split) not in files]
    lines: dict[str, list[tuple[int, Example]]] = {}
    album = Album(path, files)
    for split in SPLITS:
        if split not in missing:
            lines[split], found = _read_split(path, files, getattr(names, split), choices, album)
            problems += found
    if missing:
        lines = cut(lines, missing)
        problems += [_too_few(names, lines, split) for split in SPLITS if not lines[split] and not problems]
    unlabelled, found = _read_unlabelled(path, files, names, album)
    problems += found
    problems += _leaks(lines, names)
    problems += _strangers(files, names, album, every=not problems)
    if definition is not None:
        problems += _needs_choices(definition, {**lines, "unlabelled": unlabelled}, names)
    if problems or definition is None:
        raise PackageError(called, problems)
    splits = {split: tuple(example for _, example in rows) for split, rows in lines.items()}
    rows = tuple(row for _, row in unlabelled)
    task = _with_answer_limit(definition, splits)
    derived = task.decoding != definition.decoding
    return Package(path, task, splits, tuple(files), rows, tuple(missing), derived)


def _with_answer_limit(definition: TaskFile, splits: Mapping[str, Sequence[Example]]) -> Task:
    """The task with an answer limit for its references, where an answer is generated and no limit is named."""
    task = definition.task()
    if task.decoding.mode == "choose" or "max_new_tokens" in definition.decoding.model_fields_set:
        return task
    limit = answer_limit(example.output for rows in splits.values() for example in rows)
    return task.model_copy(update={"decoding": task.decoding.model_copy(update={"max_new_tokens": limit})})


def list_files(path: Path) -> tuple[list[str], list[Problem]]:
    """Relative POSIX names of the regular files below `path`, sorted, and what may not be there."""
    if path.is_symlink() or not path.is_dir():
        kind = "a link" if path.is_symlink() else "no such folder" if not path.exists() else "a file"
        return [], [Problem(str(path), None, None, kind, "a package folder that holds task.yaml")]
    names: list[str] = []
    problems: list[Problem] = []
    count, size = {False: 0, True: 0}, {False: 0, True: 0}  # of images: True
    for folder, folders, files in os.walk(path, followlinks=False):
        for entry in sorted([*folders, *files]):
            full = Path(folder, entry)
            name = full.relative_to(path).as_posix()
            fault = path_fault(name)
            if fault or full.is_symlink():
                seen = fault or "a link"
                problems.append(Problem(show(name), None, None, seen, "regular files with plain names"))
            elif full.is_file():
                names.append(name)
                count[is_image(name)] += 1
                size[is_image(name)] += full.stat().st_size
            elif not full.is_dir():
                problems.append(Problem(show(name), None, None, "no regular file", "regular files only"))
        if count[False] > MAX_FILES or size[False] > MAX_PACKAGE_BYTES:
            seen = f"more than {MAX_FILES} files or {MAX_PACKAGE_BYTES} bytes"
            problems.append(Problem(str(path), None, None, seen, "a smaller package"))
            break
        if count[True] > MAX_IMAGES or size[True] > MAX_IMAGES_BYTES:
            seen = f"more than {MAX_IMAGES} images or {MAX_IMAGES_BYTES} bytes of them"
            problems.append(Problem(str(path), None, None, seen, "a smaller package"))
            break
    return sorted(names), problems


def _read_task_file(path: Path, files: list[str]) -> tuple[TaskFile | None, list[Problem]]:
    if TASK_FILE not in files:
        expected = "a task.yaml with name, version, owner, description and licence"
        return None, [Problem(TASK_FILE, None, None, "no such file", expected)]
    content = read_regular(path / TASK_FILE, TASK_FILE, MAX_TASK_FILE_BYTES)
    text = content if isinstance(content, Problem) else decode(content, TASK_FILE)
    if isinstance(text, Problem):
        return None, [text]
    document, problems = parse_yaml(text, TASK_FILE)
    if document is None or problems:
        return None, problems
    try:
        return TaskFile.model_validate_json(json.dumps(document.values)), []
    except ValidationError as error:
        return None, _explain(error, document)


def _explain(error: ValidationError, document: Document) -> list[Problem]:
    problems = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"]) or None
        line = document.line(tuple(fault["loc"]))
        message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        seen, expected = show(fault["input"]), message
        if fault["type"] == "extra_forbidden":
            seen, expected = "an unknown key", f"one of {', '.join(_known_keys(fault['loc']))}"
        elif fault["type"] == "missing":
            seen, expected = "no such key", "a value"
        elif fault["type"] == "value_error":
            seen, _, expected = message.partition(", expected ")
        elif isinstance(fault["input"], bool):
            expected += " (YAML reads yes, no, on and off as booleans: write text in quotes)"
        elif isinstance(fault["input"], int | float):
            expected += " (write text in quotes)"
        problems.append(Problem(TASK_FILE, line, place, seen or show(fault["input"]), expected or message))
    return problems


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    sections: dict[str | int, type[BaseModel]] = {
        "decoding": Decoding,
        "retention": Retention,
        "splits": SplitFiles,
    }
    section = sections.get(location[0], TaskFile) if len(location) > 1 else TaskFile
    return list(section.model_fields)


def _found(names: SplitFiles, files: list[str]) -> SplitFiles:
    """File names with `.parquet` where a split that `task.yaml` does not name is there as such alone."""
    other = {split: name.replace(".jsonl", ".parquet") for split, name in SplitFiles().model_dump().items()}
    changed = {
        split: name
        for split, name in other.items()
        if split not in names.model_fields_set and name in files and getattr(names, split) not in files
    }
    return SplitFiles.model_validate({**names.model_dump(include=names.model_fields_set), **changed})


def _too_few(names: SplitFiles, lines: Mapping[str, Sequence[object]], split: str) -> Problem:
    seen = f"{sum(map(len, lines.values()))} rows, none of which falls to {split} when {' and '.join(SHARES)} are cut"
    return Problem(names.train, None, None, seen, f"more rows, or a file {getattr(names, split)}")


def _read_split(
    path: Path, files: list[str], name: str, choices: tuple[str, ...] | None, album: Album
) -> tuple[list[tuple[int, Example]], list[Problem]]:
    if name not in files:
        expected = "one JSON object a line, or a Parquet file of that name"
        return [], [Problem(name, None, None, "no such file", expected)]
    content = read_regular(path / name, name, MAX_FILE_BYTES)
    if isinstance(content, Problem):
        return [], [content]
    return read_rows(content, name, choices, album)


def _read_unlabelled(
    path: Path, files: list[str], names: SplitFiles, album: Album
) -> tuple[list[tuple[int, Unlabelled]], list[Problem]]:
    name = names.unlabelled
    if name not in files and "unlabelled" not in names.model_fields_set:
        return [], []
    if name not in files:
        return [], [Problem(name, None, None, "no such file", "one JSON object a line, or no `unlabelled` in splits")]
    content = read_regular(path / name, name, MAX_FILE_BYTES)
    return ([], [content]) if isinstance(content, Problem) else read_unlabelled(content, name, album)


def _leaks(lines: Mapping[str, list[tuple[int, Example]]], names: SplitFiles) -> list[Problem]:
    trained = {example.question: number for number, example in lines["train"]}
    return [
        Problem(
            names.test,
            number,
            "instruction+input+image" if example.images else "instruction+input",
            f"the question of {names.train}:{trained[example.question]}",
            "test rows that do not occur in train: remove one of the two",
        )
        for number, example in lines["test"]
        if example.question in trained
    ][:20]


def _strangers(files: list[str], names: SplitFiles, album: Album, *, every: bool) -> list[Problem]:
    """Files that nothing names; images among them only where `every` row was read."""
    known = {TASK_FILE, *names.files, *album.asked}
    expected = f"only task.yaml, the split files, images that rows name, and texts named {', '.join(SIDE_FILES)}"
    return [
        Problem(name, None, None, "an image that no row names" if is_image(name) else "an unknown file", expected)
        for name in files
        if name not in known and PurePosixPath(name).name.partition(".")[0].upper() not in SIDE_FILES
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
                expected = "choices in task.yaml or in each row, as choice_accuracy and choose need them"
                return [Problem(getattr(names, split), number, "choices", "none", expected)]
    return []
