"""Rows of data set files in the formats of other programs, read as strictly as a package's own.

JSON Lines and JSON arrays, CSV (RFC 4180, with `,` `;` tab or `|` between fields and a header), Parquet and Arrow;
those of text also packed with gzip. A CSV field is text, so `NA` and `007` stay as they are.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import eq
from pathlib import Path
from typing import Any, TypeAlias

from components.tasks import records
from components.tasks.problems import MAX_FILE_BYTES, MAX_LINE_BYTES, UTF_16_MARKS, Problem, read_regular, show
from components.tasks.records import Record
from components.tasks.repair import Repair
from components.tasks.sources import format_of, homes

Numbered: TypeAlias = Iterator[tuple[int, Record | Problem]]
Labels: TypeAlias = Mapping[str, list[str]]
"""Column -> names of its classes."""
DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class FileRows:
    """The rows of a file."""

    rows: Iterable[tuple[int, Record | Problem]]
    """Numbers from 1, lines where the format has them, with the fields of each row."""
    labels: Labels = field(default_factory=dict)


def read_table(path: Path, name: str, root: Path, header: Sequence[str] | None, repair: Repair) -> FileRows:
    """The rows of a file; `name` is its name for people, `root` the folder that links may not leave.

    `header` names the columns of a CSV file that has no header.
    """
    content = _content(path, name, root)
    if isinstance(content, Problem):
        return FileRows([(1, content)])
    kind = str(format_of(path)).removesuffix(".gz")
    if content.startswith(UTF_16_MARKS):
        text = repair.decode(content, name)
        if isinstance(text, Problem):
            return FileRows([(1, text)])
        content = text.encode("utf-8", "surrogatepass")
    if kind in (".parquet", ".arrow"):
        from components.tasks import parquet

        return FileRows(parquet.rows(content, name, kind), parquet.class_labels(content, kind))
    if kind in (".jsonl", ".ndjson") or (kind == ".json" and _is_lines(content)):
        return FileRows(_json_lines(content, name, repair))
    text = repair.decode(content, name)
    if isinstance(text, Problem):
        return FileRows([(1, replace(text, line=None))])
    return FileRows(_array(text, name) if kind == ".json" else _csv_rows(text, name, header))


def _content(path: Path, name: str, root: Path) -> bytes | Problem:
    """Bytes of a file, unpacked; a link is followed inside its data set or hub cache alone."""
    real = path.resolve()
    if path.is_symlink() and not any(real.is_relative_to(folder) for folder in homes(root)):
        return Problem(name, None, None, f"a link to {show(str(real))}", "a file of the data set itself: copy it there")
    content = read_regular(real, name, MAX_FILE_BYTES)
    if isinstance(content, Problem):
        return content
    if words := records.pointer(content):
        return Problem(name, None, None, words, "the file itself")
    return _unpack(content, name) if path.name.lower().endswith(".gz") else content


def _unpack(content: bytes, name: str) -> bytes | Problem:
    try:
        with gzip.open(io.BytesIO(content)) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        return Problem(name, None, None, f"{type(error).__name__}: {show(str(error))}", "a whole gzip file")
    if len(content) > MAX_FILE_BYTES:
        return Problem(name, None, None, f"more than {MAX_FILE_BYTES} bytes, unpacked", "a smaller file")
    return content


def _is_lines(content: bytes) -> bool:
    """True if a .json file holds one object a line, as many files of this name do."""
    first = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    line = first.split(b"\n", 1)[0]
    return first.startswith(b"{") and line.rstrip().endswith(b"}")


def _json_lines(content: bytes, name: str, repair: Repair) -> Numbered:
    """Objects, or lists of turns, one a line; an array on a single line holds the rows itself."""
    lines = list(records.lines(content))
    for number, line in lines:
        text = repair.decode(line, name)
        if isinstance(text, Problem):
            yield number, replace(text, line=number)
            continue
        value = records.parse_value(text.encode("utf-8", "surrogatepass"), name, number)
        if isinstance(value, list) and _are_turns(value):
            value = {"conversations": value}
        if isinstance(value, list) and len(lines) == 1:
            yield from _rows_of(value, name)
        elif isinstance(value, dict | Problem):
            yield number, value
        else:
            yield number, Problem(name, number, None, show(value), "a JSON object, or a list of turns, one a line")


def _are_turns(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(i, dict) and ({"role", "from"} & i.keys()) for i in items)


def _array(text: str, name: str) -> Numbered:
    try:
        value = records.load(text)
    except records.NotJson as error:
        yield error.line, Problem(name, error.line, None, error.seen, "a JSON array of rows")
        return
    if not isinstance(value, list):
        keys = f"an object with {', '.join(map(show, list(value)[:6]))}" if isinstance(value, dict) else show(value)
        yield 1, Problem(name, None, None, keys, "a JSON array of rows, or one object a line: save the rows alone")
        return
    yield from _rows_of(value, name)


def _rows_of(items: list[Any], name: str) -> Numbered:
    for number, item in enumerate(items, start=1):
        if isinstance(item, list) and _are_turns(item):
            yield number, {"conversations": item}
        elif isinstance(item, dict):
            yield number, item
        else:
            yield number, Problem(name, number, None, show(item), "a JSON object in each place of the array")


def _csv_rows(text: str, name: str, header: Sequence[str] | None) -> Numbered:
    csv.field_size_limit(MAX_LINE_BYTES)
    first = text.split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=first.count)
    lines, plain = io.StringIO(text, newline=""), delimiter == "\t" and _is_unquoted(text)
    reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL, strict=True)
    columns = list(header) if header else None
    start = 1
    try:
        for fields in reader:
            number, start = start, reader.line_num + 1
            if not any(field.strip() for field in fields):
                continue
            if columns is None:
                columns = [field.strip() for field in fields]
                if twice := records.twice_named([column for column in columns if column]):
                    yield 1, Problem(name, None, twice, "two columns of this name", "each column once")
                    return
            elif header and number == 1 and sum(map(eq, map(str.strip, fields), header)) * 2 > len(header):
                actual = f"a first line that names columns itself: {show(first.strip())}"
                yield 1, Problem(name, None, "--header", actual, "a file without a header: leave out --header")
                return
            elif len(fields) != len(columns):
                actual = f"{len(fields)} fields"
                yield (
                    number,
                    Problem(name, number, None, actual, f"{len(columns)}, as {show(delimiter)} divides the header"),
                )
            else:
                yield number, {column: field for column, field in zip(columns, fields, strict=True) if column}
    except csv.Error as error:
        rule = "CSV with texts in double quotes, and a double quote inside one doubled"
        yield start, Problem(name, None, None, f"{error} in the row that begins in line {start}", rule)


def _is_unquoted(text: str) -> bool:
    """True if a tab-separated file doesn't quote, as in GLUE: every line has all fields, and a `"` is plain text."""
    lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    counts = {line.count("\t") for line in lines}
    fields = [field for line in lines for field in line.split("\t") if field.startswith('"')]
    return len(counts) == 1 and not all(len(field) > 1 and field.endswith('"') for field in fields)
