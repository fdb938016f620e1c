"""Program of the process that reads files from outside; `isolation` starts it and checks its answers.

It starts with an empty environment and no open files but its pipes, reads its request from standard input, gives up
everything it doesn't need (`confinement`), and only then reads the first byte from outside.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from components.storage.objects import digest_of
from components.tasks import containers, frames
from components.tasks.confinement import MB, confine, libraries
from components.tasks.images import ImageRefused, plain_pixels
from components.tasks.package import Package, list_files, read_package
from components.tasks.problems import MAX_FILE_BYTES, PackageError, Problem, read_regular, show
from components.tasks.rows import Example, Unlabelled

LARGEST_FILE = 4 * MAX_FILE_BYTES
"""Most bytes of a file that the process may write."""


def main() -> None:
    """Read one request and answer it."""
    out = os.fdopen(os.dup(1), "wb", buffering=MB)
    os.dup2(2, 1)  # so that output of libraries doesn't end up among the frames
    request = json.loads(sys.stdin.buffer.readline())
    _warm()
    confinement = confine(
        memory_mb=request["memory_mb"],
        seconds=request["seconds"],
        file_bytes=LARGEST_FILE,
        readable=[*libraries(), *map(Path, request["readable"])],
        writable=[Path(request["work"])],
    )
    frames.send(out, frames.HELD, {"held": confinement})
    try:
        TASKS[request["do"]](request, out)
        frames.send(out, frames.END)
    except MemoryError:
        _refuse(out, _beyond(f"packages.memory_mb = {request['memory_mb']}", "more memory than it may take"))
    except PackageError as error:
        _refuse(out, error)
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:  # noqa: BLE001 - a reader that stumbles over hostile bytes refuses them
        actual = f"{type(error).__name__}: {show(str(error))}"
        _refuse(out, PackageError("", [Problem("the package", None, None, actual, "files that can be read")]))
    out.flush()


def _beyond(setting: str, actual: str) -> PackageError:
    rule = f"at most {setting}: a smaller package, or a larger setting"
    return PackageError("", [Problem("the package", None, None, actual, rule)])


def _warm() -> None:
    """Load Pillow's plugins now: it loads them at first use, when the limits may not leave room for it."""
    from PIL import Image

    Image.preinit()
    Image.init()


def _refuse(out: BinaryIO, error: PackageError) -> None:
    refusal = {
        "error": type(error).__name__,
        "package": error.package,
        "problems": [asdict(problem) for problem in error.problems],
        "notes": getattr(error, "__notes__", []),
    }
    frames.send(out, frames.REFUSED, refusal)


def _take(request: Mapping[str, Any], out: BinaryIO) -> None:
    """Send a package, checked: its task, its images, its rows and, on request, its files."""
    path, label, work = Path(request["path"]), request["called"], Path(request["work"])
    with containers.open_package(path, work, label) as folder:
        package = read_package(folder, label=label, most_pixels=request["pixels"])
        frames.send(out, frames.HEADER, _header(package))
        splits: Mapping[str, Any] = {**package.splits, "unlabelled": package.unlabelled_rows}
        images = {one.digest: one for rows in splits.values() for row in rows for one in row.images}
        for picture in images.values():
            content = picture.content()
            if digest_of(content) != picture.digest:
                problem = Problem("images", None, None, "an image that changed while it was read", "files left alone")
                raise PackageError(label, [problem])
            frames.send(out, frames.IMAGE, content)
        for split, rows in splits.items():
            frames.send(out, frames.SPLIT, {"split": split, "rows": len(rows)})
            for piece in _pieces(rows):
                frames.send(out, frames.ROWS, piece)
        if request["files"]:
            _send_files(folder, label, out)


def _header(package: Package) -> dict[str, Any]:
    return {
        "task": package.task.model_dump(mode="json"),
        "cut": package.cut,
        "remarks": package.remarks,
        "answer_limit_derived": package.answer_limit_derived,
    }


def _pieces(rows: tuple[Example, ...] | tuple[Unlabelled, ...]) -> Iterator[bytes]:
    """Rows as JSON Lines, as many at a time as fit into a frame."""
    lines: list[bytes] = []
    size = 0
    for row in rows:
        line = json.dumps(row.to_row()).encode() + b"\n"
        if size + len(line) > frames.LONGEST[frames.ROWS]:
            yield b"".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    yield b"".join(lines)


def _send_files(folder: Path, label: str, out: BinaryIO) -> None:
    names, problems = list_files(folder, label)
    for name in names if not problems else []:
        content = read_regular(folder / name, name, MAX_FILE_BYTES)
        if isinstance(content, Problem):
            problems.append(content)
            break
        frames.send(out, frames.FILE, {"name": name, "size": len(content)})
        for start in range(0, len(content), MB):
            frames.send(out, frames.PIECE, content[start : start + MB])
    if problems:
        raise PackageError(label, problems)


def _import(request: Mapping[str, Any], out: BinaryIO) -> None:
    """Send a package made from a data set: its files, and what people should know about it."""
    from components.tasks.columns import Columns
    from components.tasks.conversion import Reading
    from components.tasks.importing import import_folder

    columns, reading = Columns(**_tuples(request["columns"])), Reading(**_tuples(request["reading"]))
    folder = Path(request["work"]) / "made"
    result = import_folder(Path(request["source"]), folder, request["header"], columns, reading)
    _send_files(folder, str(folder), out)
    frames.send(out, frames.VALUE, result.to_json())


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _pictures(request: Mapping[str, Any], out: BinaryIO) -> None:
    """Send the pixels of a question's image files, which follow the request on standard input."""
    for number, size in enumerate(request["sizes"]):
        try:
            content = plain_pixels(sys.stdin.buffer.read(size))
        except ImageRefused as why:
            frames.send(out, frames.VALUE, {"image": number, "seen": why.seen, "expected": why.expected})
            return
        frames.send(out, frames.IMAGE, content)


TASKS: Mapping[str, Callable[[Mapping[str, Any], BinaryIO], None]] = {
    "take": _take,
    "import": _import,
    "pictures": _pictures,
}

if __name__ == "__main__":
    main()
