"""Starting, reading from and ending the process that reads files from outside (`parser`).

It gets an empty environment, no open files but its pipes, and a folder that is removed afterwards. If it exceeds its
budget or dies, that is a refusal that names the setting.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from components.errors import LciaError
from components.settings import PackageSettings
from components.storage.objects import NotCanonical, parse_json
from components.tasks import frames
from components.tasks.conversion import ImportRefused
from components.tasks.problems import PackageError, Problem
from components.tasks.sources import SourceUnclear

MB = 1024 * 1024
PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from components.tasks.parser import main; main()",
    str(Path(__file__).parents[2]),
)
ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""The whole environment of the process."""
REFUSALS: Mapping[str, type[PackageError]] = {
    kind.__name__: kind for kind in (PackageError, ImportRefused, SourceUnclear)
}
PACKAGE = "the package"
READERS = 4
"""Most readings at a time in one process of ours: each may take the whole budget of memory."""
_TURNS = threading.BoundedSemaphore(READERS)


class ParserBusy(LciaError):
    """Too many packages are being read at the moment."""


class ParserBroken(LciaError):
    """The process that reads files from outside sent something that it may not send."""


def over(actual: str, setting: str) -> PackageError:
    """The refusal of a package that needs more than its budget; `setting` names the limit."""
    rule = f"at most {setting}: a smaller package, or a larger setting"
    return PackageError("", [Problem(PACKAGE, None, None, actual, rule)])


class Parser:
    """The process, seen from the process that asked."""

    def __init__(self, child: "subprocess.Popen[bytes]", budget: PackageSettings, folder: Path, label: str) -> None:
        assert child.stdout  # noqa: S101 - a pipe
        self.child, self.budget, self.folder, self.label = child, budget, folder, label
        self._out = child.stdout.fileno()
        self._left = float(budget.seconds)
        self.confinement: tuple[str, ...] = ()

    def json(self, kind: frames.Kind) -> dict[str, Any]:
        """The content of the next frame, which must be of this kind."""
        value: dict[str, Any] = parse_json(self.next(kind)[1])
        return value

    def next(self, *kinds: frames.Kind) -> tuple[frames.Kind, bytes]:
        """The next frame, which must be of one of these kinds.

        Raises:
            PackageError: the process refused the package, or died.
            ParserBroken: it sent anything else.
        """
        kind, size = frames.PREFIX.unpack(self._read(frames.PREFIX.size))
        if kind not in (*kinds, frames.REFUSED) or size > frames.LONGEST[kind]:
            raise ParserBroken(f"the parser sent {size} bytes of kind {kind!r}")
        content = self._read(size)
        if kind == frames.REFUSED:
            raise self._refusal(content)
        return kind, content

    def copy(self, size: int, out: Any) -> None:  # noqa: ANN401 - a file that is written
        """Write `size` bytes of the pieces that follow."""
        while size > 0:
            piece = self.next(frames.PIECE)[1]
            size -= len(piece)
            if size < 0 or not piece:
                raise ParserBroken("the parser sent a file of another size than it said")
            out.write(piece)

    def _read(self, size: int) -> bytes:
        content = bytearray()
        while len(content) < size:
            began = time.monotonic()
            ready = select.select([self._out], [], [], max(0.0, self._left))[0]
            self._left -= time.monotonic() - began
            piece = os.read(self._out, min(size - len(content), MB)) if ready else None
            if piece is None:
                self.end()
                raise self._late()
            if not piece:
                raise self._death()
            content += piece
        return bytes(content)

    def _refusal(self, content: bytes) -> PackageError:
        refusal = parse_json(content)
        problems = [Problem(**{**one, "lines": tuple(one["lines"])}) for one in refusal["problems"]]
        kind = REFUSALS.get(refusal["error"], PackageError)
        error = kind(self.label if kind is PackageError else str(refusal["package"]), problems)
        for note in refusal["notes"]:
            error.add_note(str(note))
        return error

    def _late(self) -> PackageError:
        seconds = self.budget.seconds
        return over(f"more than {seconds} seconds needed to read it", f"packages.seconds = {seconds}")

    def _death(self) -> PackageError:
        """The refusal when the process ended without an answer."""
        code = self.child.wait()
        if code == -signal.SIGXCPU:
            return self._late()
        memory = f"packages.memory_mb = {self.budget.memory_mb}"
        if code == -signal.SIGKILL:
            return over("a process that was killed while it read it, as when memory runs out", memory)
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        actual = f"files on which the process that reads them ended ({how})"
        return PackageError("", [Problem(PACKAGE, None, None, actual, f"files that can be read with {memory}")])

    def end(self) -> None:
        """End the process, no matter what it is doing."""
        with suppress(ProcessLookupError):
            self.child.kill()
        self.child.wait()


@contextmanager
def process(
    request: Mapping[str, Any],
    readable: Sequence[Path],
    budget: PackageSettings,
    scratch: Path,
    label: str,
    after: Sequence[bytes] = (),
) -> Iterator[Parser]:
    """A process that answers one request; `after` follows the request on its input. It ends with the block.

    Raises:
        ParserBusy: `READERS` of them run already.
    """
    if not _TURNS.acquire(timeout=budget.seconds):
        raise ParserBusy(f"{READERS} packages are being read already; wait a little and send it again")
    try:
        with _start(request, readable, budget, scratch, label, after) as parser:
            yield parser
    finally:
        _TURNS.release()


@contextmanager
def _start(
    request: Mapping[str, Any],
    readable: Sequence[Path],
    budget: PackageSettings,
    scratch: Path,
    label: str,
    after: Sequence[bytes],
) -> Iterator[Parser]:
    scratch.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=scratch.absolute(), prefix="package-") as work,
        tempfile.TemporaryFile() as stdin,
    ):
        inner = Path(work) / "work"
        inner.mkdir()
        message = {**request, "work": str(inner), "readable": list(map(str, readable))}
        message |= {"memory_mb": budget.memory_mb, "seconds": budget.seconds}
        _write(stdin, json.dumps(message).encode() + b"\n", *after)
        child = subprocess.Popen(  # noqa: S603 - this Python, and our own program
            [sys.executable, "-I", "-c", *PROGRAM],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**ENVIRONMENT, "TMPDIR": str(inner)},
            cwd=request.get("cwd", str(inner)),
            close_fds=True,
            start_new_session=True,  # Ctrl-C reaches us alone, and we end the process
        )
        parser = Parser(child, budget, Path(work), label)
        try:
            parser.confinement = tuple(map(str, parser.json(frames.HELD)["held"]))
            yield parser
        except PackageError as error:
            raise _with_label(error, label) from error.__cause__
        except (NotCanonical, KeyError, TypeError, ValueError) as error:
            raise ParserBroken(
                f"the process that reads files from outside answered {label} wrongly: {error!r}"
            ) from error
        finally:
            parser.end()
            assert child.stdout  # noqa: S101 - a pipe
            child.stdout.close()


def _with_label(error: PackageError, label: str) -> PackageError:
    if error.package:
        return error
    copy = type(error)(label, error.problems)
    for note in getattr(error, "__notes__", ()):
        copy.add_note(note)
    return copy


def _write(file: BinaryIO, *parts: bytes) -> None:
    file.writelines(parts)
    file.flush()
    file.seek(0)
