"""Rows of a task: one JSON object a line, read strictly because packages come from outside.

Encoding is UTF-8; a UTF-8 byte order mark at the start of a file is dropped, UTF-16 and UTF-32 are
refused. Lines end in LF or CRLF; empty lines are skipped. Every problem names file, line and field.
Files that end in `.parquet` hold the same fields as columns; `layouts` has the other ways to write a row.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, TypeVar

from components.storage.objects import canonical, digest_of
from components.tasks import layouts, parquet
from components.tasks.images import NO_IMAGES, Album, Picture
from components.tasks.layouts import Fault
from components.tasks.problems import (
    BYTE_ORDER_MARK,
    MAX_LINE_BYTES,
    MAX_PROBLEMS,
    MAX_ROWS,
    Problem,
    decode,
    forbidden_character,
    show,
)

TEXT_FIELDS = ("instruction", "input", "output")
KNOWN_FIELDS = {*TEXT_FIELDS, "choices", "image"}
Row = TypeVar("Row")
Get: TypeAlias = Callable[[str], bytes]
"""Bytes of an object by its digest."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row: what is asked and the answer wanted. An empty `input` is the same as none."""

    instruction: str
    input: str | None
    output: str
    choices: tuple[str, ...] | None = None
    images: tuple[Picture, ...] = ()

    def to_row(self) -> dict[str, Any]:
        """The canonical JSON object: absent fields left out."""
        row: dict[str, Any] = {"instruction": self.instruction, "output": self.output}
        if self.input is not None:
            row["input"] = self.input
        if self.choices is not None:
            row["choices"] = list(self.choices)
        if self.images:
            row["image"] = [picture.digest for picture in self.images]
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any], get: Get | None = None) -> "Example":
        """The example of a canonical row, which is trusted to be well formed; `get` gives its images."""
        choices = row.get("choices")
        return cls(
            instruction=row["instruction"],
            input=row.get("input"),
            output=row["output"],
            choices=None if choices is None else tuple(choices),
            images=_pictures(row, get),
        )

    @property
    def question(self) -> tuple[str, ...]:
        """What the model is asked, images by their digests: equal for rows that leak into or contradict each other."""
        return (self.instruction, self.input or "", *(picture.digest for picture in self.images))

    @property
    def words(self) -> str:
        """The question without its images, as one text."""
        return f"{self.instruction}\n{self.input or ''}"

    @property
    def subject(self) -> str:
        """What the instruction is applied to: the input, or the instruction itself where there is none."""
        return self.input or self.instruction

    @property
    def id(self) -> str:
        """Row id: sha256 hex of the canonical row."""
        return digest_of(canonical(self.to_row()))


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """One row without an answer: what is asked. An empty `input` is the same as none."""

    instruction: str
    input: str | None
    choices: tuple[str, ...] | None = None
    images: tuple[Picture, ...] = ()

    def to_row(self) -> dict[str, Any]:
        """The canonical JSON object: absent fields left out."""
        row = self.labelled("").to_row()
        del row["output"]
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any], get: Get | None = None) -> "Unlabelled":
        """The row of a canonical object, which is trusted to be well formed; `get` gives its images."""
        example = Example.from_row({**row, "output": ""}, get)
        return cls(example.instruction, example.input, example.choices, example.images)

    def labelled(self, output: str) -> Example:
        """The example with `output` as its answer."""
        return Example(self.instruction, self.input, output, self.choices, self.images)

    @property
    def question(self) -> tuple[str, ...]:
        """As `Example.question`."""
        return self.labelled("").question


def read_rows(
    content: bytes, name: str, choices: tuple[str, ...] | None, album: Album = NO_IMAGES
) -> tuple[list[tuple[int, Example]], list[Problem]]:
    """Parse the bytes of a split file into (line number, example) pairs and at most 20 problems.

    `choices` are the task's; a row's own `choices` go before them. `album` holds the images that rows may name.
    """
    return _read(content, name, lambda row: _check(row, choices), Example.from_row, album, labelled=True)


def read_unlabelled(
    content: bytes, name: str, album: Album = NO_IMAGES
) -> tuple[list[tuple[int, Unlabelled]], list[Problem]]:
    """As `read_rows`, for rows that must not have an output."""
    return _read(content, name, _check_unlabelled, Unlabelled.from_row, album, labelled=False)


def _read(
    content: bytes,
    name: str,
    check: "Callable[[dict[str, Any]], list[Fault]]",
    make: Callable[[dict[str, Any], None], Row],
    album: Album,
    *,
    labelled: bool,
) -> tuple[list[tuple[int, Row]], list[Problem]]:
    problems: list[Problem] = []
    rows: list[tuple[int, Row]] = []
    records = parquet.rows(content, name) if name.endswith(".parquet") else _records(content, name)
    for number, record in records:
        if len(problems) >= MAX_PROBLEMS:
            break
        if len(rows) >= MAX_ROWS:
            problems.append(Problem(name, number, None, f"more than {MAX_ROWS} rows", f"at most {MAX_ROWS}"))
            break
        if isinstance(record, Problem):
            problems.append(record)
            continue
        try:
            row = layouts.plain(record, labelled=labelled)
        except layouts.LayoutRefused as why:
            problems.append(Problem(name, number, *why.fault))
            continue
        found = check(row)
        pictures = list(album.pictures(row["image"])) if "image" in row else []
        found += [fault for fault in pictures if isinstance(fault, tuple)]
        problems += [Problem(name, number, field, seen, expected) for field, seen, expected in found]
        if not found:
            rows.append((number, make({**row, "input": row.get("input") or None, "image": pictures}, None)))
    if not rows and not problems:
        problems.append(Problem(name, None, None, "0 rows", "at least one JSON object, one a line"))
    return rows, problems[:MAX_PROBLEMS]


def _records(content: bytes, name: str) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    return ((number, _parse(line, name, number)) for number, line in _lines(content))


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(content.removeprefix(BYTE_ORDER_MARK).split(b"\n"), start=1):
        if line.strip():
            yield number, line


def _parse(line: bytes, name: str, number: int) -> dict[str, Any] | Problem:
    if len(line) > MAX_LINE_BYTES:
        seen = f"a row of {len(line)} bytes"
        return Problem(name, number, None, seen, f"at most {MAX_LINE_BYTES} bytes a row")
    text = decode(line, name)
    if isinstance(text, Problem):
        return Problem(name, number, None, text.seen, text.expected)
    try:
        row = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return Problem(name, number, None, f"{error} in {show(text)}", "one JSON object a line")
    if not isinstance(row, dict):
        return Problem(name, number, None, show(row), "a JSON object with instruction and output, or messages")
    return row


def _check(row: dict[str, Any], choices: tuple[str, ...] | None) -> list[Fault]:
    faults = [*_field_faults(row, TEXT_FIELDS), *_choices_faults(row)]
    allowed = row.get("choices") or choices
    if not faults and allowed and row["output"] not in allowed:
        faults.append(("output", show(row["output"]), f"one of the choices {show(list(allowed))}"))
    return faults


def _check_unlabelled(row: dict[str, Any]) -> list[Fault]:
    faults = [*_field_faults(row, TEXT_FIELDS[:2]), *_choices_faults(row)]
    if "output" in row:
        faults.append(("output", show(row["output"]), "no output: a row with an answer belongs in train"))
    return faults


def _field_faults(row: dict[str, Any], fields: Iterable[str]) -> Iterator[Fault]:
    for field in row:
        if field not in KNOWN_FIELDS:
            yield show(field), "an unknown field", f"only {', '.join(sorted(KNOWN_FIELDS))}"
    for field in fields:
        if field in row:
            fault = _text_fault(row[field], may_be_empty=field == "input")
            if fault:
                yield field, *fault
        elif field != "input":
            yield field, "no such field", "a non-empty string"


def _choices_faults(row: dict[str, Any]) -> Iterator[Fault]:
    choices = row.get("choices")
    if choices is None and "choices" not in row:
        return
    if not isinstance(choices, list) or not choices:
        yield "choices", show(choices), "a non-empty list of strings"
        return
    for choice in choices:
        fault = _text_fault(choice)
        if fault:
            yield "choices", *fault
            return
    if len(set(choices)) < len(choices):
        yield "choices", show(choices), "each choice once"


def _text_fault(value: object, may_be_empty: bool = False) -> tuple[str, str] | None:
    if not isinstance(value, str):
        return show(value), "a string"
    if not value.strip() and not (may_be_empty and not value):
        return show(value), "a non-empty string"
    character = forbidden_character(value)
    if character:
        return f"character {character} in {show(value)}", "text without control characters"
    return None


def _pictures(row: Mapping[str, Any], get: Get | None) -> tuple[Picture, ...]:
    """Images of a row: pictures already, or digests that `get` knows."""
    named = row.get("image") or ()
    if get is None:
        if not all(isinstance(one, Picture) for one in named):
            raise ValueError("a row with images was read without a store that has them")
        return tuple(named)
    return tuple(Picture.stored(digest, get) for digest in named)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {show(twice)} twice")
    return row


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no JSON value,")
