"""Rows of a task, checked strictly because they come from outside; every problem names file, line and field.

`records` reads the lines, `parquet` the columns of a file; `layouts` has the other ways to write a row. A few faulty
rows of a large file are set aside, counted and named; with more of them the file is refused.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeAlias, TypeVar

from components.storage.objects import canonical, digest_of
from components.tasks import layouts, records
from components.tasks.images import NO_IMAGES, Album, Picture
from components.tasks.layouts import Fault
from components.tasks.problems import MAX_ROWS, Findings, Problem, characters_expected, forbidden_character, show

TEXT_FIELDS = ("instruction", "input", "output")
KNOWN_FIELDS = {*TEXT_FIELDS, "choices", "image"}
SET_ASIDE_SHARE = 0.01
"""Largest share of faulty rows that a file may have: they are set aside, the others are taken."""
Row = TypeVar("Row")
Get: TypeAlias = Callable[[str], bytes]
"""Bytes of an object by its digest."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row: a question and its answer. An empty `input` is the same as none."""

    instruction: str
    input: str | None
    output: str
    choices: tuple[str, ...] | None = None
    images: tuple[Picture, ...] = ()

    def to_row(self) -> dict[str, Any]:
        """The canonical JSON object, without absent fields."""
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
        """The example of a canonical row, trusted to be well formed; `get` reads its images."""
        choices = row.get("choices")
        return cls(
            instruction=row["instruction"],
            input=row.get("input"),
            output=row["output"],
            choices=None if choices is None else tuple(choices),
            images=_pictures(row, get),
        )

    @property
    def stem(self) -> tuple[str, ...]:
        """The question without its options; images by their digests."""
        return (self.instruction, self.input or "", *(picture.digest for picture in self.images))

    @property
    def question(self) -> tuple[str, ...]:
        """The question with its options in any order: equal for rows that leak into or contradict each other."""
        return (*self.stem, "choices", *sorted(self.choices)) if self.choices else self.stem

    @property
    def words(self) -> str:
        """The question without its images, as one text."""
        return f"{self.instruction}\n{self.input or ''}"

    @property
    def subject(self) -> str:
        """The text that the instruction applies to: the input, or the instruction itself if there is none."""
        return self.input or self.instruction

    @property
    def id(self) -> str:
        """Row id: sha256 hex of the canonical row."""
        return digest_of(canonical(self.to_row()))


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """One row without an answer. An empty `input` is the same as none."""

    instruction: str
    input: str | None
    choices: tuple[str, ...] | None = None
    images: tuple[Picture, ...] = ()

    def to_row(self) -> dict[str, Any]:
        """The canonical JSON object, without absent fields."""
        row = self.with_answer("").to_row()
        del row["output"]
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any], get: Get | None = None) -> "Unlabelled":
        """The row of a canonical object, trusted to be well formed; `get` reads its images."""
        example = Example.from_row({**row, "output": ""}, get)
        return cls(example.instruction, example.input, example.choices, example.images)

    def with_answer(self, output: str) -> Example:
        """The example with `output` as its answer."""
        return Example(self.instruction, self.input, output, self.choices, self.images)

    @property
    def question(self) -> tuple[str, ...]:
        """As `Example.question`."""
        return self.with_answer("").question


@dataclass(frozen=True)
class Rows(Generic[Row]):
    """The content of a split file: its rows with their numbers, or the problems that refuse it."""

    rows: list[tuple[int, Row]]
    problems: list[Problem]
    """Each kind once; none if `rows` may be used."""
    set_aside: list[Problem]
    """Problems of the few faulty rows that were left out."""
    remarks: Counter[str]
    """Sentences about what was rewritten, with numbers of rows."""
    faulty: int = 0
    """Number of rows that were left out."""

    @classmethod
    def none(cls) -> "Rows[Row]":
        """No rows, and nothing wrong with that."""
        return cls([], [], [], Counter())

    @classmethod
    def refusal(cls, problem: Problem) -> "Rows[Row]":
        """No rows, for one reason."""
        return cls([], [problem], [], Counter())


def read_rows(content: bytes, name: str, choices: tuple[str, ...] | None, album: Album = NO_IMAGES) -> Rows[Example]:
    """Read the bytes of a split file.

    `choices` are the task's; a row's own `choices` replace them. `album` holds the images that rows may name.
    """
    return check_rows(_records(content, name), name, RowCheck(choices, album))


def read_unlabelled(content: bytes, name: str, album: Album = NO_IMAGES) -> Rows[Unlabelled]:
    """As `read_rows`, for rows that must not have an output."""
    read = check_rows(_records(content, name), name, RowCheck(None, album, needs_output=False))
    rows = [(number, Unlabelled(row.instruction, row.input, row.choices, row.images)) for number, row in read.rows]
    return Rows(rows, read.problems, read.set_aside, read.remarks)


@dataclass(frozen=True)
class PlainRow:
    """A row as a package writes it, with images by their paths, and its example."""

    fields: records.Record
    example: Example


@dataclass(frozen=True)
class RowCheck:
    """Check of a record that makes it a row."""

    choices: tuple[str, ...] | None = None
    """The task's choices; a row's own replace them."""
    album: Album = NO_IMAGES
    needs_output: bool = True

    def __call__(self, record: records.Record, remarks: Counter[str]) -> Example | list[Fault]:
        """The row of a record, or its faults; `remarks` counts what was rewritten."""
        plain = self.plain(record, remarks)
        return plain if isinstance(plain, list) else plain.example

    def plain(self, record: records.Record, remarks: Counter[str]) -> "PlainRow | list[Fault]":
        """The same, with the fields as a package writes them."""
        even = records.with_plain_line_ends(record)
        try:
            plain = layouts.plain(records.without_nulls(even), needs_output=self.needs_output)
        except layouts.LayoutRefused as why:
            return [why.fault]
        row = plain.row
        faults = [*_field_faults(row, TEXT_FIELDS if self.needs_output else TEXT_FIELDS[:2]), *_choices_faults(row)]
        if not self.needs_output and "output" in row:
            faults.append(("output", show(row["output"]), "no output: a row with an answer belongs in train"))
        pictures = list(self.album.pictures(row["image"])) if "image" in row else []
        faults += [fault for fault in pictures if isinstance(fault, tuple)]
        choices = row.get("choices") or self.choices
        if not faults and self.needs_output and choices and not self._is_choice(row, choices):
            same = self._same_choice(row, choices)
            if same is None:
                return [("output", show(row["output"]), f"one of the choices {show(list(choices))}")]
            row = {**row, "output": same}
            remarks[
                "an output is a choice apart from white space around it or its Unicode form: read as the choice"
            ] += 1
        if faults:
            return faults
        if even is not record:
            remarks["CR LF inside a text: read as LF"] += 1
        remarks.update(f"a field `{field}` that nothing reads: left out" for field in plain.extras)
        if not row.get("input"):
            row = {field: value for field, value in row.items() if field != "input"}
        return PlainRow(row, Example.from_row({"output": "", **row, "image": pictures}))

    def _is_choice(self, row: Mapping[str, Any], choices: Sequence[str]) -> bool:
        return row["output"] in (self._exact if choices is self.choices else choices)

    def _same_choice(self, row: Mapping[str, Any], choices: Sequence[str]) -> str | None:
        """The choice that equals an output but for white space around it and its Unicode form."""
        by_text = self._even if choices is self.choices else _by_even_text(choices)
        return by_text.get(even_text(row["output"]))

    @cached_property
    def _exact(self) -> frozenset[str]:
        return frozenset(self.choices or ())

    @cached_property
    def _even(self) -> Mapping[str, str]:
        return _by_even_text(self.choices or ())


def _by_even_text(choices: Sequence[str]) -> dict[str, str]:
    return {even_text(choice): choice for choice in reversed(choices)}


def check_rows(
    lines: Iterable[tuple[int, records.Record | Problem]],
    name: str,
    check: Callable[[records.Record, Counter[str]], Row | list[Fault]],
    share: float = SET_ASIDE_SHARE,
) -> Rows[Row]:
    """Check every record of a file; up to `share` of them may be faulty."""
    rows: list[tuple[int, Row]] = []
    faulty, whole = Findings(), Findings()  # problems of rows, and of the file
    remarks: Counter[str] = Counter()
    faulty_rows = 0
    for number, record in lines:
        if len(rows) + faulty_rows >= MAX_ROWS:
            whole.add(Problem(name, number, None, f"more than {MAX_ROWS} rows", f"at most {MAX_ROWS}"))
            break
        if isinstance(record, Problem):
            (whole if record.line is None else faulty).add(record)
            faulty_rows += 1
            continue
        row = check(record, remarks)
        if isinstance(row, list):
            faulty_rows += 1
            for fault in row:
                faulty.add(Problem(name, number, *fault))
        else:
            rows.append((number, row))
    if not rows and not faulty_rows and not whole.problems:
        whole.add(Problem(name, None, None, "0 rows", "at least one JSON object, one a line"))
    few = faulty_rows <= share * (len(rows) + faulty_rows)
    if few and not whole.problems:
        return Rows(rows, [], faulty.problems, remarks, faulty_rows)
    return Rows(rows, [*whole.problems, *faulty.problems], [], remarks)


def even_text(text: str) -> str:
    """A text in the form in which answers are compared: no white space around it, composed Unicode (NFC)."""
    return unicodedata.normalize("NFC", text.strip())


def _records(content: bytes, name: str) -> Iterator[tuple[int, records.Record | Problem]]:
    if not name.endswith(".parquet"):
        return records.json_lines(content, name)
    from components.tasks import parquet

    return parquet.rows(content, name)


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
    if len({even_text(choice) for choice in choices}) < len(choices):
        yield "choices", show(choices), "each choice once (white space around it does not count)"


def _text_fault(value: object, may_be_empty: bool = False) -> tuple[str, str] | None:
    if not isinstance(value, str):
        return show(value), "a string"
    if not value.strip() and not (may_be_empty and not value):
        return show(value), "a non-empty string"
    character = forbidden_character(value)
    if character:
        return f"character {character} in {show(value)}", characters_expected(character)
    return None


def _pictures(row: Mapping[str, Any], get: Get | None) -> tuple[Picture, ...]:
    """Images of a row: pictures already, or digests that `get` reads."""
    entries = row.get("image") or ()
    if get is None:
        if not all(isinstance(one, Picture) for one in entries):
            raise ValueError("a row with images was read without a store that has them")
        return tuple(entries)
    return tuple(Picture.by_digest(digest, get) for digest in entries)
