"""`task.yaml`: a task apart from its rows, and the files of these; read as hostile input, every fault with its line."""

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.tasks.decoding_defaults import LEAST_TOKENS, MOST_TOKENS, Metric
from components.tasks.problems import (
    PackageError,
    Problem,
    characters_expected,
    decode,
    forbidden_character,
    path_fault,
    read_regular,
    show,
)
from components.tasks.rows import even_text
from components.tasks.yaml_lines import Document, parse_yaml

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
EVALUATED: tuple[Split, ...] = ("validation", "test")
"""Splits that are never learnt from."""
TASK_FILE = "task.yaml"
MAX_TASK_FILE_BYTES = 64 * 1024


def _plain(text: str) -> str:
    if not text.strip():
        raise ValueError("empty text, expected at least one visible character")
    character = forbidden_character(text)
    if character:
        raise ValueError(f"character {character}, expected {characters_expected(character)}")
    return text


def _inside(name: str) -> str:
    fault = path_fault(name)
    if fault:
        raise ValueError(f"{fault}, expected a file inside the package such as train.jsonl")
    if not name.endswith((".jsonl", ".parquet")):
        raise ValueError("expected a file name that ends in .jsonl or .parquet")
    return name


Wording = Annotated[str, Field(max_length=1000), AfterValidator(_plain)]
Line = Annotated[str, Field(max_length=200), AfterValidator(_plain)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}@[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
SplitFile = Annotated[str, Field(max_length=200), AfterValidator(_inside)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Decoding(_Strict):
    """Decoding of answers from the model; one contract for gate, ask and export."""

    mode: Literal["generate", "choose"] = "generate"
    """Greedy decoding, or the likeliest of the choices."""
    max_new_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = LEAST_TOKENS
    """Longest generated answer, in tokens; if `task.yaml` doesn't name it, the longest reference with some room."""
    length_normalisation: Literal["none", "tokens"] = "none"
    """`choose`: compare the sum or the mean of the answer's token log-likelihoods."""


class Retention(_Strict):
    """Rows that the owner allows to be kept after the task is learnt."""

    train_rows: Annotated[int, Field(ge=0)] = 0
    """Training rows kept for rehearsal, and unlabelled ones for recall with what they leave; 0 keeps none."""
    evaluation_rows: bool = True
    """True keeps validation and test rows; without them forgetting can't be measured."""
    until: date | None = None
    """Last day on which rows are kept; None sets no end."""


class Task(_Strict):
    """A task apart from its rows."""

    name: Name
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
    owner: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,62}$")]
    """The site that owns the rows."""
    description: Annotated[str, Field(max_length=2000), AfterValidator(_plain)]
    metric: Metric = "exact_match"
    """Score of an answer against `output`, a fraction."""
    decoding: Decoding = Decoding()
    choices: Annotated[tuple[Line, ...], Field(min_length=2)] | None = None
    """All answers there are, in the order in which they are shown; None for free text."""
    retention: Retention = Retention()
    wordings: Annotated[tuple[Wording, ...], Field(max_length=200)] = ()
    """Further ways in which people ask for the task, besides the instructions of its rows; the router knows them."""
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
    """File of each split, relative to the package; a default name may also end in `.parquet`."""

    train: SplitFile = "train.jsonl"
    validation: SplitFile = "validation.jsonl"
    test: SplitFile = "test.jsonl"
    unlabelled: SplitFile = "unlabelled.jsonl"
    """Rows without `output`; the file is optional unless `task.yaml` names it."""

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
    """`task.yaml`: the task and the files of its splits."""

    splits: SplitFiles = SplitFiles()

    @model_validator(mode="after")
    def _choices_differ_as_compared(self) -> Self:
        if self.choices and len(set(map(even_text, self.choices))) < len(self.choices):
            raise ValueError("choices holds an answer twice but for white space or Unicode form, expected each once")
        return self

    def task(self) -> Task:
        """The task without its file names, which are not content."""
        return Task.model_validate(self.model_dump(exclude={"splits"}))


def read_task_file(path: Path, files: list[str]) -> tuple[TaskFile | None, list[Problem]]:
    """The `task.yaml` of a package folder that holds `files`, or all problems with it."""
    if TASK_FILE not in files:
        rule = "a task.yaml with name, version, owner, description and licence"
        return None, [Problem(TASK_FILE, None, None, "no such file", rule)]
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
    except ValueError as error:  # an integer of thousands of digits
        return None, [Problem(TASK_FILE, None, None, show(str(error)), "numbers that fit")]


def check_header(header: Mapping[str, Any]) -> None:
    """Check that these values make a valid `task.yaml`.

    Raises:
        PackageError: they do not fit.
    """
    try:
        TaskFile.model_validate_json(json.dumps(dict(header)))
    except ValidationError as error:
        raise PackageError(str(header.get("name")), _explain(error, Document({}, {}, {}))) from error


def _explain(error: ValidationError, document: Document) -> list[Problem]:
    problems = []
    faults = error.errors()
    for fault in faults:
        if fault["type"] == "too_short" and any(other["loc"][:-1] == fault["loc"] != other["loc"] for other in faults):
            continue  # pydantic drops a faulty item, and then calls the list too short
        key = ".".join(str(part) for part in fault["loc"]) or None
        line = document.line(tuple(fault["loc"]))
        message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        actual, rule = show(fault["input"]), message
        if fault["type"] == "extra_forbidden":
            actual, rule = "an unknown key", f"one of {', '.join(_known_keys(fault['loc']))}"
        elif fault["type"] == "missing":
            actual, rule = "no such key", "a value"
        elif fault["type"] == "value_error":
            actual, _, rule = message.partition(", expected ")
        elif fault["type"] == "string_type" and (source := document.texts.get(tuple(fault["loc"]))) is not None:
            actual = _as_yaml_reads(source, fault["input"])
            rule += f" (write text in quotes: {json.dumps(source)})"
        problems.append(Problem(TASK_FILE, line, key, actual or show(fault["input"]), rule or message))
    return problems


def _as_yaml_reads(source: str, value: object) -> str:
    """An unquoted text with the value that YAML reads in it (for YAML 1.1, 12:30 is the number 750)."""
    if value is None:
        return f"{source or 'nothing'}, which YAML reads as null"
    if isinstance(value, bool):
        return f"{source}, which YAML reads as {json.dumps(value)}"
    return source if source == str(value) else f"{source}, which YAML reads as the number {value}"


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    sections: dict[str | int, type[BaseModel]] = {
        "decoding": Decoding,
        "retention": Retention,
        "splits": SplitFiles,
    }
    section = sections.get(location[0], TaskFile) if len(location) > 1 else TaskFile
    return list(section.model_fields)
