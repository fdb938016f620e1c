"""Problems of files from outside (where, what was seen, what was expected), and reading such files safely."""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from components.errors import LciaError

MAX_PROBLEMS = 20
"""Kinds of problem reported per file; the same problem in many rows is one, with the number of rows."""
_INDEX = re.compile(r"\[\d+\]")
_LAST_OF_PLANES = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_FORBIDDEN = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_LAST_OF_PLANES}]")
LISTED_ROWS = 5
"""Rows that a problem of many rows names."""
MAX_LINE_BYTES = 256 * 1024
"""Longest row, in bytes."""
MAX_FILE_BYTES = 256 * 1024 * 1024
"""Largest file of a package, in bytes."""
PIECE = 1024 * 1024
"""Bytes of a file that are read at a time."""
MAX_ROWS = 200_000
"""Most rows in a split."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
SYSTEM_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files that operating systems leave beside others; they don't belong to a package."""


def is_system_file(name: str) -> bool:
    """True if a relative path names a file that macOS or Windows adds to folders and archives unasked."""
    parts = name.split("/")
    return "__MACOSX" in parts[:-1] or parts[-1] in {*SYSTEM_FILES, "__MACOSX"} or parts[-1].startswith("._")


@dataclass(frozen=True)
class Problem:
    """One fault of a package, for its owner to mend: where, what was seen, what was expected."""

    file: str
    line: int | None
    field: str | None
    seen: str
    expected: str
    lines: tuple[int, ...] = ()
    """The first rows with this problem, if there are several."""
    count: int = 1
    """Number of rows with this problem."""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        field = "" if self.field is None else f" {self.field}"
        more = ", ..." if self.count > len(self.lines) else ""
        rows = f" ({self.count} rows: {', '.join(map(str, self.lines))}{more})" if self.count > 1 else ""
        return f"{place}{field}: seen {self.seen}, expected {self.expected}{rows}"


class Findings:
    """Problems by kind (file, field, what was expected): the first of each, with the number of rows that have it."""

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        self._kinds: dict[tuple[str, str | None, str, bool], Problem] = {}
        for problem in problems:
            self.add(problem)

    def add(self, problem: Problem) -> None:
        """Count a problem; kinds beyond `MAX_PROBLEMS` are left out."""
        field = problem.field and _INDEX.sub("[]", problem.field)
        kind = (problem.file, field, problem.expected, problem.line is None)
        first = self._kinds.get(kind)
        if first is None:
            if len(self._kinds) < MAX_PROBLEMS:
                self._kinds[kind] = problem
        elif problem.line is not None and first.line is not None:
            lines = first.lines or (first.line,)
            lines = (*lines, problem.line) if len(lines) < LISTED_ROWS else lines
            self._kinds[kind] = replace(first, lines=lines, count=first.count + problem.count)

    @property
    def problems(self) -> list[Problem]:
        """One of each kind, in the order in which they came up."""
        return list(self._kinds.values())


class PackageError(LciaError):
    """A task package that is refused; `problems` lists its faults, each kind once."""

    kind = "package"
    advice = "Mend and submit it again."

    def __init__(self, package: str, problems: list[Problem]) -> None:
        self.package = package
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listing = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{self.kind} {printable(package)} is refused, {count} to mend:\n{listing}\n{self.advice}")


def printable(text: str) -> str:
    """The text with escapes for all characters that a terminal would act on or not show."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def show(value: object) -> str:
    """A value as problems print it: escaped and cut, safe for a terminal."""
    try:
        text = ascii(value)
    except RecursionError:
        text = f"a {type(value).__name__} nested too deep to print"
    except ValueError:  # Python refuses to print integers of more than 4300 digits
        text = f"a {type(value).__name__} too large to print"
    return text if len(text) <= 80 else f"{text[:77]}..."


def forbidden_character(text: str) -> str | None:
    """The first character that no field may hold, as an escape, or None.

    Forbidden are control characters but line feed and tab, lone surrogates and non-characters.
    """
    match = _FORBIDDEN.search(text)
    return f"U+{ord(match[0]):04X}" if match else None


def characters_expected(character: str) -> str:
    """Advice on a forbidden character, which is named as `forbidden_character` returns it."""
    code = int(character.removeprefix("U+"), 16)
    if 0x80 <= code < 0xA0:
        return (
            "text without control characters: this one is Windows-1252 read as Latin-1; `lcia import --repair` mends it"
        )
    if 0xD800 <= code < 0xE000:
        return "whole characters: this is half of one, of a text that was cut or escaped wrongly"
    return "text without control characters"


def path_fault(name: str) -> str | None:
    """The fault of a relative name that a package may not use, or None."""
    if not name or len(name.encode("utf-8", "surrogatepass")) > 512:
        return f"a name of {len(name)} characters"
    if name.startswith("/") or "\\" in name or ":" in name:
        return f"{show(name)}, which is absolute or not written with /"
    if forbidden_character(name) or "\n" in name or "\t" in name:
        return f"{show(name)}, which holds control characters"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return f"{show(name)}, which leaves the package"
    return None


def read_regular(path: Path, name: str, limit: int) -> bytes | Problem:
    """Bytes of a regular file of at most `limit` bytes, never through a link; or the problem with it."""
    pieces: list[bytes] = []
    return _read_pieces(path, name, limit, pieces.append) or b"".join(pieces)


def digest_regular(path: Path, name: str, limit: int) -> str | Problem:
    """The sha256 of the same file, with no more than a piece of it in memory."""
    digest = hashlib.sha256()
    return _read_pieces(path, name, limit, digest.update) or digest.hexdigest()


def _read_pieces(path: Path, name: str, limit: int, take: Callable[[bytes], object]) -> Problem | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Problem(name, None, None, error.strerror or str(error), "a readable regular file, no link")
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return Problem(name, None, None, "no regular file", "a regular file")
        remaining = limit
        while piece := file.read(min(PIECE, remaining + 1)):
            remaining -= len(piece)
            if remaining < 0:
                return Problem(name, None, None, f"more than {limit} bytes", f"at most {limit} bytes")
            take(piece)
    return None


def decode(content: bytes, name: str) -> str | Problem:
    """UTF-8 text without its byte order mark, or the problem with its line."""
    content = content.removeprefix(BYTE_ORDER_MARK)
    if content.startswith(UTF_16_MARKS):
        return Problem(name, None, None, "UTF-16 text", "UTF-8 text: save the file as UTF-8")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        actual = f"byte 0x{content[error.start]:02x} that is not UTF-8"
        return Problem(name, line, None, actual, "UTF-8 text: save the file as UTF-8")
