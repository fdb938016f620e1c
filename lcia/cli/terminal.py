"""Output of commands: hidden characters are made visible here, for every text that a command prints."""

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
        """Write a text with hidden characters spelt out; newlines and tabs count as the program's own."""
        self.stream.write(visible(text, lines=True))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - anything the stream has
        return getattr(self.stream, name)


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """Make everything printed inside safe to show, also what libraries print."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = _Guarded(before[0]), _Guarded(before[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def fields_visible(value: Any, as_is: Collection[str] = ()) -> Any:  # noqa: ANN401 - any JSON value
    """A value with hidden characters and line breaks in its texts spelt out, except under the keys `as_is`."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {
            fields_visible(key): part if key in as_is else fields_visible(part, as_is) for key, part in value.items()
        }
    return [fields_visible(part, as_is) for part in value] if isinstance(value, list | tuple) else value


def json_text(text: str, ascii_text: str) -> str:
    """JSON with hidden characters escaped; `ascii_text`, the same value, if the stream's encoding can't hold it."""
    plain = visible_json(text)
    try:
        plain.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return ascii_text
    return plain


def print_document(text: str) -> None:
    """Print a signed document: unchanged if a file or program reads it, made visible on a terminal."""
    stream: Any = sys.stdout
    if isinstance(stream, _Guarded) and not stream.isatty():
        stream = stream.stream
    print(text, file=stream)
