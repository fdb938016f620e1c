"""Output of commands: one place makes hidden signs visible, whoever wrote the words."""

import contextlib
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TextIO

from components.visible import visible, visible_json


class _Guarded:
    """A stream on which nothing can move the cursor or end in the wrong encoding."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text, hidden signs spelt out; newlines and tabs are taken as the program's own."""
        self.stream.write(visible(text, lines=True))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write several."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self.stream, name)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Everything printed within is safe to show, also what libraries print."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = _Guarded(before[0]), _Guarded(before[1])  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def fields_visible(value: Any, as_is: Collection[str] = ()) -> Any:  # noqa: ANN401 - any JSON value
    """A value whose words are visible, each in one line; those under the keys `as_is` stay."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {
            fields_visible(key): part if key in as_is else fields_visible(part, as_is) for key, part in value.items()
        }
    return [fields_visible(part, as_is) for part in value] if isinstance(value, list | tuple) else value


def json_text(text: str, ascii_text: str) -> str:
    """JSON that the terminal shows as it is; `ascii_text` is the same for streams that have no other signs."""
    shown = visible_json(text)
    try:
        shown.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return ascii_text
    return shown


def print_document(text: str) -> None:
    """Print bytes that others check to the last one: exactly where a file or program takes them."""
    stream: Any = sys.stdout
    if isinstance(stream, _Guarded) and not stream.isatty():
        stream = stream.stream
    print(text, file=stream)
