"""Packages made from nothing, or from a Hugging Face data set folder; never from the network.

A folder is read as hubs and `datasets` write it: files named after splits (`train-00000-of-00002.parquet`,
`test.jsonl`, also below `data/`), or the Arrow files of `save_to_disk`. Class labels become their names, and the task's
choices.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import yaml

from components.errors import LciaError
from components.tasks.package import TASK_FILE, Package, read_package
from components.tasks.problems import MAX_FILE_BYTES, PackageError, Problem, read_regular

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
    """Our field -> the data set's column, for `instruction`, `input`, `output`, `choices`."""


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
            rows = [row for file in files for row in _mapped(file, columns, labels)]
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
