"""New packages: a skeleton, or a data set in the formats of hubs and other programs; never from the network.

`sources` finds each split's files, `foreign` reads them, `columns` knows what their columns hold. A refusal names the
data set's own file and row. Class labels become their names, and the task's choices; images become files of the
package.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from components.errors import LciaError
from components.storage.objects import Json
from components.tasks import sources
from components.tasks.columns import Columns
from components.tasks.conversion import NAMED_SPLITS, Conversion, ImportRefused, Reading
from components.tasks.package import Package, read_package
from components.tasks.problems import PackageError, Problem
from components.tasks.task_file import SPLITS, TASK_FILE, check_header

ORDER = (*SPLITS, "unlabelled")


@dataclass(frozen=True)
class Imported:
    """A new package, with what people should know about it."""

    package: Package
    files: Mapping[str, tuple[str, ...]]
    """Split -> the data set's files."""
    not_read: tuple[str, ...]
    """Files of the data set that belong to no split."""
    set_aside: tuple[Problem, ...]
    """Problems of the faulty rows that were left out."""
    remarks: tuple[str, ...]
    """Sentences about rows that were rewritten or left out."""

    def to_json(self) -> dict[str, Json]:
        """For `--json`; see `docs/json.md`."""
        task = self.package.task
        return {
            "folder": str(self.package.path),
            "task": task.label,
            "rows": {split: len(rows) for split, rows in self.package.splits.items()},
            "cut": list(self.package.cut),
            "files": {split: list(files) for split, files in self.files.items()},
            "not_read": list(self.not_read),
            "set_aside": [asdict(problem) for problem in self.set_aside],
            "remarks": list(self.remarks),
            "metric": task.metric,
            "max_new_tokens": task.decoding.max_new_tokens,
        }


class FolderTaken(LciaError):
    """The folder for the new package exists already."""


def skeleton(folder: Path, header: Mapping[str, Any]) -> Package:
    """Write a package with two example rows a split, for people to replace.

    Raises:
        FolderTaken: the folder exists already.
        PackageError: the header does not fit; nothing is left behind.
    """
    choices = header.get("choices")
    answer = choices[0] if choices else "The answer that is wanted."
    with fresh(folder):
        _write_header(folder, header)
        for split in ("train", "validation", "test"):
            question = {"instruction": "What is to be done, in words."}
            rows = [{**question, "input": f"What to do it to ({split} {n}).", "output": answer} for n in (1, 2)]
            _write_rows(folder / f"{split}.jsonl", rows)
        return read_package(folder)


def import_folder(
    source: Path, folder: Path, header: Mapping[str, Any], columns: Columns, reading: Reading = NAMED_SPLITS
) -> Imported:
    """Write a package from a data set's folder or file, and read it as `submit` would.

    Raises:
        SourceUnclear: it is not clear which files are which split.
        ImportRefused: a column is missing, or more than a few rows are faulty.
        PackageError: the header does not fit.
        FolderTaken: the folder exists already.
    """
    check_header(header)
    files = sources.find(source, reading.splits)
    with fresh(folder):
        work = Conversion(files, folder, columns, reading, header)
        splits = {split: work.read(split, files.splits[split]) for split in ORDER if split in files.splits}
        good = work.without_leaks(work.with_known_labels({split: rows for split, rows in splits.items() if rows}))
        work.images.keep({path for rows in good.values() for row in rows for path in row.images})
        for split, rows in good.items():
            _write_rows(folder / f"{split}.jsonl", [row.fields for row in rows])
        scoring = work.scoring([row.example for rows in good.values() for row in rows])
        _write_header(folder, {**header, **scoring})
        try:
            package = read_package(folder)
        except PackageError as error:
            raise ImportRefused(str(source), error.problems) from error
    from components.settings import ValidationSettings

    least = ValidationSettings().min_rows
    few = tuple(
        f"{split} has {len(rows)} rows: `lcia plan` refuses fewer than {least}; add rows, or name a file with --split"
        for split, rows in package.splits.items()
        if len(rows) < least
    )
    sources_of = {split: tuple(files.name(path) for path in files.splits[split]) for split in good}
    return Imported(package, sources_of, files.others, tuple(work.set_aside.problems), (*work.remarks, *few))


@contextmanager
def fresh(folder: Path) -> Iterator[None]:
    """Make a new folder; remove it again if the block fails."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise FolderTaken(f"{folder} is there already; name a new folder, nothing is overwritten") from error
    try:
        yield
    except BaseException:
        shutil.rmtree(folder)
        raise


def _write_header(folder: Path, header: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True)
    (folder / TASK_FILE).write_text(text, encoding="utf-8")


def _write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text(lines, encoding="utf-8")
