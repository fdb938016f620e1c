"""Rows of a task: one JSON object a line, read strictly because packages come from outside.

Encoding is UTF-8; a UTF-8 byte order mark at the start of a file is dropped, UTF-16 and UTF-32 are
refused. Lines end in LF or CRLF; empty lines are skipped. Every problem names file, line and field.
"""

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, TypeVar

from components.errors import LciaError
from components.storage.objects import canonical, digest_of

MAX_PROBLEMS = 20
"""Problems reported per file; reading stops there."""
MAX_LINE_BYTES = 256 * 1024
"""Longest row, in bytes."""
MAX_FILE_BYTES = 64 * 1024 * 1024
"""Largest file of a package, in bytes."""
MAX_ROWS = 200_000
"""Most rows in a split."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
TEXT_FIELDS = ("instruction", "input", "output")
KNOWN_FIELDS = {*TEXT_FIELDS, "choices"}
Row = TypeVar("Row")


@dataclass(frozen=True)
class Problem:
    """One thing in a package that has to be mended: where, what was seen, what was expected."""

    file: str
    line: int | None
    field: str | None
    seen: str
    expected: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        field = "" if self.field is None else f" {self.field}"
        return f"{place}{field}: seen {self.seen}, expected {self.expected}"


class PackageError(LciaError):
    """A task package that cannot be taken in; `problems` lists the first findings of each file."""

    def __init__(self, package: str, problems: list[Problem]) -> None:
        self.package = package
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listing = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(
            f"package {printable(package)} is refused, {count} to mend:\n{listing}\nMend and submit it again."
        )


@dataclass(frozen=True, slots=True)
class Example:
    """One row: what is asked and the answer wanted. An empty `input` is the same as none."""

    instruction: str
    input: str | None
    output: str
    choices: tuple[str, ...] | None = None

    def to_row(self) -> dict[str, Any]:
        """The canonical JSON object: absent fields left out."""
        row: dict[str, Any] = {"instruction": self.instruction, "output": self.output}
        if self.input is not None:
            row["input"] = self.input
        if self.choices is not None:
            row["choices"] = list(self.choices)
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Example":
        """The example of a canonical row, which is trusted to be well formed."""
        choices = row.get("choices")
        return cls(
            instruction=row["instruction"],
            input=row.get("input"),
            output=row["output"],
            choices=None if choices is None else tuple(choices),
        )

    @property
    def question(self) -> tuple[str, str]:
        """What the model is asked: equal for two rows that leak into or contradict each other."""
        return (self.instruction, self.input or "")

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

    def to_row(self) -> dict[str, Any]:
        """The canonical JSON object: absent fields left out."""
        row = self.labelled("").to_row()
        del row["output"]
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Unlabelled":
        """The row of a canonical object, which is trusted to be well formed."""
        example = Example.from_row({**row, "output": ""})
        return cls(example.instruction, example.input, example.choices)

    def labelled(self, output: str) -> Example:
        """The example with `output` as its answer."""
        return Example(self.instruction, self.input, output, self.choices)

    @property
    def question(self) -> tuple[str, str]:
        """As `Example.question`."""
        return (self.instruction, self.input or "")


def printable(text: str) -> str:
    """Text with everything a terminal could act on or not show written as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def show(value: object) -> str:
    """A value as it is printed in a problem: escaped and cut, safe for a terminal."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def forbidden_character(text: str) -> str | None:
    """The first character that no field may hold, as an escape, or None.

    Forbidden are control characters but line feed and tab, lone surrogates and non-characters.
    """
    for character in text:
        code = ord(character)
        control = (code < 32 and character not in "\n\t") or 127 <= code < 160
        if control or 0xD800 <= code < 0xE000 or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code < 0xFDF0:
            return f"U+{code:04X}"
    return None


def read_regular(path: Path, name: str, limit: int) -> bytes | Problem:
    """Bytes of a regular file of at most `limit` bytes, never through a link; else what is wrong."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Problem(name, None, None, error.strerror or str(error), "a readable regular file, no link")
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return Problem(name, None, None, "no regular file", "a regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        return Problem(name, None, None, f"more than {limit} bytes", f"at most {limit} bytes")
    return content


def decode(content: bytes, name: str) -> str | Problem:
    """UTF-8 text with a leading byte order mark dropped, or the problem with its line."""
    content = content.removeprefix(BYTE_ORDER_MARK)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        seen = f"byte 0x{content[error.start]:02x} that is not UTF-8"
        return Problem(name, line, None, seen, "UTF-8 text: save the file as UTF-8")


def read_rows(
    content: bytes, name: str, choices: tuple[str, ...] | None
) -> tuple[list[tuple[int, Example]], list[Problem]]:
    """Parse the bytes of a split file into (line number, example) pairs and at most 20 problems.

    `choices` are the task's; a row's own `choices` go before them.
    """
    return _read(content, name, lambda row: _check(row, choices), Example.from_row)


def read_unlabelled(content: bytes, name: str) -> tuple[list[tuple[int, Unlabelled]], list[Problem]]:
    """As `read_rows`, for rows that must not have an output."""
    return _read(content, name, _check_unlabelled, Unlabelled.from_row)


def _read(
    content: bytes, name: str, check: "Callable[[dict[str, Any]], list[Fault]]", make: Callable[[dict[str, Any]], Row]
) -> tuple[list[tuple[int, Row]], list[Problem]]:
    problems: list[Problem] = []
    rows: list[tuple[int, Row]] = []
    for number, line in _lines(content):
        if len(problems) >= MAX_PROBLEMS:
            break
        if len(rows) >= MAX_ROWS:
            problems.append(Problem(name, number, None, f"more than {MAX_ROWS} rows", f"at most {MAX_ROWS}"))
            break
        row = _parse(line, name, number)
        if isinstance(row, Problem):
            problems.append(row)
            continue
        found = [Problem(name, number, field, seen, expected) for field, seen, expected in check(row)]
        problems += found
        if not found:
            rows.append((number, make({**row, "input": row.get("input") or None})))
    if not rows and not problems:
        problems.append(Problem(name, None, None, "0 rows", "at least one JSON object, one a line"))
    return rows, problems[:MAX_PROBLEMS]


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
        return Problem(name, number, None, show(row), "a JSON object with instruction and output")
    return row


Fault: TypeAlias = tuple[str, str, str]
"""Field, what was seen, what was expected."""


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
        if field == "image":
            yield field, "an image", "no image: image tasks are not supported yet"
        elif field not in KNOWN_FIELDS:
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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {show(twice)} twice")
    return row


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no JSON value,")
