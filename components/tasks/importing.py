"""Packages made from nothing, or from a Hugging Face data set folder; never from the network.

A folder is read as hubs and `datasets` write it: files named after splits (`train-00000-of-00002.parquet`,
`test.jsonl`, also below `data/`), or the Arrow files of `save_to_disk`. Class labels become their names, and the task's
choices. Images, whether files beside the rows or bytes in a column, become files of the package.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import yaml

from components.errors import LciaError
from components.storage.objects import digest_of
from components.tasks.images import MAX_IMAGE_BYTES
from components.tasks.package import TASK_FILE, Package, read_package
from components.tasks.problems import MAX_FILE_BYTES, PackageError, Problem, path_fault, read_regular, show

SPLIT_NAMES = {
    "train": "train",
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    "test": "test",
    **dict.fromkeys(("unlabelled", "unsupervised"), "unlabelled"),
}
"""What a split is called elsewhere, and here."""
KNOWN = {"instruction", "messages", "prompt"}
"""A row with one of these needs no columns named."""
_FILE = re.compile(r"(?P<split>[a-z]+)([-_.].*)?\.(?P<kind>parquet|jsonl|arrow)")


@dataclass(frozen=True)
class Columns:
    """Which columns hold what; rows in a layout of their own (`messages`, `prompt`) need none of it."""

    instruction: str | None = None
    """Text of the instruction, the same for all rows; null where a column has it."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Our field -> the data set's column, for `instruction`, `input`, `output`, `choices`, `image`."""


class FolderTaken(LciaError):
    """Something is where the package should be written."""


def skeleton(folder: Path, header: Mapping[str, Any]) -> Package:
    """Write a package with two example rows a split, to be replaced.

    Raises:
        FolderTaken: the folder is there already.
        PackageError: the header does not fit; nothing is left behind.
    """
    choices = header.get("choices")
    answer = choices[0] if choices else "The answer that is wanted."
    with _fresh(folder):
        _write_header(folder, header)
        for split in ("train", "validation", "test"):
            asked = {"instruction": "What is to be done, in words."}
            rows = [{**asked, "input": f"What to do it to ({split} {n}).", "output": answer} for n in (1, 2)]
            _write_rows(folder / f"{split}.jsonl", rows)
        return read_package(folder)


def import_folder(source: Path, folder: Path, header: Mapping[str, Any], columns: Columns) -> Package:
    """Write a package from a data set folder or file, and read it as `submit` would.

    Raises:
        PackageError: no split is found, a column is not there, or the package is refused; nothing is left behind.
        FolderTaken: the folder is there already.
    """
    found = dict(_splits(source))
    if "train" not in found:
        seen = ", ".join(sorted(found)) or "no file that is named after a split"
        expected = "train.parquet, train.jsonl, data/train-*.parquet, or a folder of `save_to_disk`"
        raise PackageError(str(source), [Problem(source.name, None, None, seen, expected)])
    with _fresh(folder):
        labels: list[str] = []
        for split, files in found.items():
            images = _Images(source if source.is_dir() else source.parent, folder)
            rows = [
                images.copied(file, number, row)
                for file in files
                for number, row in enumerate(_mapped(file, columns, labels), start=1)
            ]
            _write_rows(folder / f"{split}.jsonl", rows)
        chosen = {"choices": labels} if labels and "choices" not in header else {}
        _write_header(folder, {**header, **chosen})
        return read_package(folder, called=f"made from {source}")


@contextmanager
def _fresh(folder: Path) -> Iterator[None]:
    """A new folder, which is removed again if it can't be filled."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise FolderTaken(f"{folder} is there already; name a new folder, nothing is overwritten") from error
    try:
        yield
    except BaseException:
        shutil.rmtree(folder)
        raise


def _splits(source: Path) -> Iterator[tuple[str, list[Path]]]:
    """Our split names with their files, in the order of their names."""
    if source.is_file():
        yield "train", [source]
        return
    by_split: dict[str, list[Path]] = {}
    for path in sorted([*source.glob("*"), *source.glob("data/*"), *source.glob("*/data-*.arrow")]):
        told = _FILE.fullmatch(path.name)
        name = path.parent.name if path.name.startswith("data-") else told["split"] if told else ""
        if path.is_file() and not path.is_symlink() and told and name in SPLIT_NAMES:
            by_split.setdefault(SPLIT_NAMES[name], []).append(path)
    yield from by_split.items()


def _mapped(file: Path, columns: Columns, labels: list[str]) -> Iterator[dict[str, Any]]:
    """Rows with our fields; names of class labels are added to `labels`."""
    for number, (row, names) in enumerate(_rows(file), start=1):
        if not columns.names and columns.instruction is None:
            if not KNOWN & row.keys():
                seen, expected = f"columns {', '.join(sorted(row))}", "--instruction, --input and --output to say which"
                raise PackageError(str(file), [Problem(file.name, number, None, seen, expected)])
            yield row
            continue
        made = {"instruction": columns.instruction} if columns.instruction is not None else {}
        for part, column in columns.names.items():
            if column not in row:
                expected = f"a column for {part}: one of {', '.join(sorted(row))}"
                raise PackageError(str(file), [Problem(file.name, number, column, "no such column", expected)])
            value = row[column]
            if column in names and isinstance(value, int):
                value = names[column][value] if 0 <= value < len(names[column]) else None  # -1: not labelled
                if part == "output" and not labels:
                    labels += names[column]
            if value is not None:
                made[part] = value
        yield made


@dataclass(frozen=True)
class _Images:
    """Copies images of rows into the package, under the digest of their bytes."""

    source: Path
    folder: Path

    def copied(self, file: Path, number: int, row: dict[str, Any]) -> dict[str, Any]:
        """The row with paths inside the package, in `image` and in parts of its messages."""
        out = {name: self._in_parts(file, number, value) if name in TURNS else value for name, value in row.items()}
        for column in ("image", "images"):
            value = out.pop(column, None)
            if value is not None:
                several = isinstance(value, list)
                made = [self._copy(file, number, one) for one in (value if several else [value])]
                out["image"] = made if several else made[0]
        return out

    def _in_parts(self, file: Path, number: int, turns: Any) -> Any:  # noqa: ANN401 - whatever stands there is checked later
        if not isinstance(turns, list):
            return turns
        return [
            {**turn, "content": [self._part(file, number, part) for part in turn["content"]]}
            if isinstance(turn, dict) and isinstance(turn.get("content"), list)
            else turn
            for turn in turns
        ]

    def _part(self, file: Path, number: int, part: Any) -> Any:  # noqa: ANN401 - as above
        if not isinstance(part, dict) or part.get("type") != "image":
            return part
        held = {key: value for key, value in part.items() if value is not None}
        return {key: value if key == "type" else self._copy(file, number, value) for key, value in held.items()}

    def _copy(self, file: Path, number: int, value: Any) -> str:  # noqa: ANN401 - a path, or what `datasets` makes of an image
        told = value if isinstance(value, dict) else {"path": value}
        content, name = told.get("bytes"), told.get("path")
        seen, expected = show(name or value), "a path, or the bytes, of a PNG, JPEG or WebP image"
        if content is None and isinstance(name, str):
            seen = path_fault(name) or self._link(name) or seen
            read = read_regular(self.source / name, name, MAX_IMAGE_BYTES) if seen == show(name) else b""
            content, seen = (b"", f"{seen}: {read.seen}") if isinstance(read, Problem) else (read, seen)
        kind = _kind_of_image(content) if isinstance(content, bytes) else None
        if not isinstance(content, bytes) or kind is None:
            raise PackageError(str(file), [Problem(file.name, number, "image", seen, expected)])
        made = f"images/{digest_of(content)}.{kind}"
        (self.folder / "images").mkdir(exist_ok=True)
        if not (self.folder / made).exists():
            (self.folder / made).write_bytes(content)
        return made

    def _link(self, name: str) -> str | None:
        """Why no file may be read by this name: a folder on the way is a link, so it may lie anywhere."""
        folders = [self.source / part for part in list(PurePosixPath(name).parents)[:-1]]
        return f"{show(name)}, which goes through a link" if any(folder.is_symlink() for folder in folders) else None


TURNS = ("messages", "prompt")
"""Fields that may be lists of messages with parts."""
_MAGIC = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp"}


def _kind_of_image(content: bytes) -> str | None:
    return next((kind for start, kind in _MAGIC.items() if content.startswith(start)), None)


Labels = Mapping[str, list[str]]
"""Column -> names of its classes."""


def _rows(file: Path) -> Iterator[tuple[dict[str, Any], Labels]]:
    if file.suffix == ".jsonl":
        content = read_regular(file, file.name, MAX_FILE_BYTES)
        if isinstance(content, Problem):
            raise PackageError(str(file), [content])
        for number, line in enumerate(content.splitlines(), start=1):
            try:
                row = json.loads(line) if line.strip() else None
            except ValueError as error:
                raise PackageError(str(file), [Problem(file.name, number, None, str(error), "JSON")]) from error
            if row is not None:
                yield row, {}
        return
    try:
        table = pq.read_table(file) if file.suffix == ".parquet" else _arrow(file)
    except (pa.ArrowException, OSError) as error:
        problem = Problem(file.name, None, None, type(error).__name__, f"a whole {file.suffix[1:]} file")
        raise PackageError(str(file), [problem]) from error
    labels = _class_labels(table.schema)
    for row in table.to_pylist():
        yield row, labels


def _arrow(file: Path) -> pa.Table:
    """The stream that `datasets` writes."""
    with pa.memory_map(str(file)) as source:
        return pa.ipc.open_stream(source).read_all()


def _class_labels(schema: pa.Schema) -> Labels:
    """Names of classes, as `datasets` notes them in the schema."""
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = told.get("info", {}).get("features") or {}
    return {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}


def _write_header(folder: Path, header: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True)
    (folder / TASK_FILE).write_text(text, encoding="utf-8")


def _write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text(lines, encoding="utf-8")
