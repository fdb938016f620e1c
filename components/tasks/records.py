"""Rows as a file holds them: one JSON object a line, read strictly because files come from outside.

The encoding is UTF-8; a byte order mark at the start of a file is dropped, UTF-16 and UTF-32 are refused. Lines end in
LF or CR LF; empty lines are skipped. A field that is null counts as absent, except in `NEEDED`. Line ends inside a text
become LF.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeAlias

from components.tasks.problems import BYTE_ORDER_MARK, MAX_LINE_BYTES, Problem, decode, show

Record: TypeAlias = dict[str, Any]
MAX_DEPTH = 32
"""Deepest nesting of lists and objects in a row."""
NEEDED = ("instruction", "output", "image")
"""Fields in which null is a fault; elsewhere null means that the field is absent."""
POINTERS = {
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer; `git lfs pull` brings the file",
    b"/annex/objects/": "a git-annex pointer; `git annex get` brings the file",
}
"""Beginnings of small files that stand for a large one -> description, with the command that fetches the large one."""


class NotJson(Exception):
    """Text that is no JSON value that a row may hold; `line` counts from 1 inside the text."""

    def __init__(self, actual: str, line: int = 1) -> None:
        super().__init__(actual)
        self.seen, self.line = actual, line


def json_lines(content: bytes, name: str) -> Iterator[tuple[int, Record | Problem]]:
    """Line numbers, from 1, with the object of each line."""
    for number, line in lines(content):
        yield number, parse(line, name, number)


def lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The non-empty lines of a file, with their numbers."""
    for number, line in enumerate(content.removeprefix(BYTE_ORDER_MARK).split(b"\n"), start=1):
        if line.strip():
            yield number, line


def parse(line: bytes, name: str, number: int) -> Record | Problem:
    """The object of one line."""
    value = parse_value(line, name, number)
    if isinstance(value, Problem | dict):
        return value
    rule = "a JSON object with instruction and output, or messages"
    if isinstance(value, list):
        rule += ", one a line; `lcia import` reads JSON arrays"
    return Problem(name, number, None, show(value), rule)


def parse_value(line: bytes, name: str, number: int) -> Any:  # noqa: ANN401 - any JSON value
    """The JSON value of one line, or the problem with it."""
    if len(line) > MAX_LINE_BYTES:
        return Problem(name, number, None, f"a row of {len(line)} bytes", f"at most {MAX_LINE_BYTES} bytes a row")
    text = decode(line, name)
    if isinstance(text, Problem):
        return Problem(name, number, None, text.seen, text.expected)
    try:
        return load(text)
    except NotJson as error:
        return Problem(name, number, None, f"{error.seen} in {show(text)}", "one JSON object a line")


def load(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """A JSON value, read strictly: no key twice, no NaN, no nesting deeper than `MAX_DEPTH`.

    Raises:
        NotJson: the text is something else.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise NotJson("nesting beyond the recursion limit") from error
    except json.JSONDecodeError as error:
        raise NotJson(f"no JSON ({error.msg}, at character {error.colno})", error.lineno) from error
    except ValueError as error:
        raise NotJson(str(error)) from error
    if deeper(value, MAX_DEPTH + 2):  # plus the array and the row itself: a file may be an array of rows
        raise NotJson(f"nesting deeper than {MAX_DEPTH}")
    return value


def deeper(value: object, depth: int) -> bool:
    """True if lists and objects are nested deeper than `depth`."""
    level = [value]
    for _ in range(depth + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def without_nulls(row: Record) -> Record:
    """The row without null fields; those in `NEEDED` stay, so that the checks name them as a fault."""
    return {field: value for field, value in row.items() if value is not None or field in NEEDED}


def with_plain_line_ends(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """The value with LF for each CR LF and CR in its texts, at any depth; the same object if there is none."""
    return mapped_texts(value, _plain_line_ends)


def mapped_texts(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - any JSON value
    """The value with `change` applied to its texts, not to keys; the same object if nothing changed.

    Callers compare by identity, which says cheaply whether a row changed at all.
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        fields = {key: mapped_texts(inner, change) for key, inner in value.items()}
        return fields if any(fields[key] is not inner for key, inner in value.items()) else value
    if isinstance(value, list):
        items = [mapped_texts(inner, change) for inner in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def twice_named(names: Iterable[str]) -> str | None:
    """The first name that occurs twice, or None."""
    counts = Counter(names)
    return next((name for name, count in counts.items() if count > 1), None)


def pointer(content: bytes) -> str | None:
    """A description of a file that only stands for another one, or None."""
    if len(content) > 1024:
        return None
    return next((words for start, words in POINTERS.items() if content.startswith(start)), None)


def _plain_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _unique(pairs: list[tuple[str, Any]]) -> Record:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"the key {show(twice_named(name for name, _ in pairs))} twice")
    return row


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no JSON value,")
