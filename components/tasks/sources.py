"""Files of a data set by split, found by their names; if several fit, the user chooses.

Hubs and `datasets` name a split's files `train.jsonl`, `train-00000-of-00002.parquet`, `data/test-*.parquet`, or put
them into a folder `train/`; `save_to_disk` writes `train/data-00000-of-00001.arrow`. The part of the name before the
shard number and the format is the file's stem: `train_sft` and `train_gen` are two stems of one split, and so are
`test.jsonl` and `test.csv`. A split with one stem is clear; with several, `--split test=FILE` names one.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from components.tasks.problems import PackageError, Problem, is_system_file, show

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("unlabelled", "unlabeled", "unsupervised"), "unlabelled"),
}
"""Names of splits elsewhere -> ours."""
READ = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
"""Formats that are read; text formats also with `.gz` behind."""
TEXT_FORMATS = READ[:5]
OTHER = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "a spreadsheet; save the sheet as CSV (UTF-8)"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), "an archive; unpack it first"),
    **dict.fromkeys((".zst", ".bz2", ".xz"), "a compressed file; unpack it first, or pack it with gzip"),
    **dict.fromkeys(
        (".pkl", ".pickle", ".pt", ".npy", ".npz"), "a format that can run code when it is read; save JSON Lines"
    ),
    **dict.fromkeys(
        (".txt", ".md", ".xml", ".yaml", ".yml", ".sqlite", ".db"), "a format that is not read; save JSON Lines"
    ),
}
"""Formats that are not read -> description and remedy."""
MANY = 10_000
"""Most files searched for a hint."""
NONE = "none"
"""`--split test=none` leaves a split out."""
META = frozenset({"state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"})
"""Files that `datasets` writes beside the rows."""
_SHARD = re.compile(r"[-_.](0\d{3}|\d{5,6})(-of-(?P<of>\d{4,6}))?(-[0-9a-f]{8,})?$")
_SPLIT = re.compile(r"([a-z]+)([-_.]|$)")


class SourceUnclear(PackageError):
    """A data set in which a split's files are missing or ambiguous."""

    kind = "data set"
    advice = "Nothing was written."


@dataclass(frozen=True)
class Source:
    """The files of a data set, by our names of splits."""

    path: Path
    """The path that the user named."""
    root: Path
    """Folder that images and names are relative to."""
    splits: Mapping[str, tuple[Path, ...]]
    others: tuple[str, ...] = ()
    """Files of a known format that belong to no split."""

    def name(self, path: Path) -> str:
        """A file's name, relative to the data set."""
        return _name(path, self.root)


def format_of(path: Path) -> str | None:
    """The suffix that decides how a file is read, with `.gz` if it is packed; None for a format that is not read."""
    name = path.name.lower()
    suffixes = [*READ, *(f"{suffix}.gz" for suffix in TEXT_FORMATS)]
    return next((suffix for suffix in suffixes if name.endswith(suffix) and name not in META), None)


def homes(root: Path) -> Iterator[Path]:
    """Folders that a link may lead to: the data set, and the blobs of the hub cache that it is a snapshot of."""
    root = root.resolve()
    yield root
    for folder in (root, *root.parents):
        if folder.parent.name == "snapshots" and (folder.parents[1] / "blobs").is_dir():
            yield folder.parents[1] / "blobs"
            return


def not_read(path: Path) -> str:
    """A description of a file whose format is not read, with the remedy."""
    suffix = next((suffix for suffix in OTHER if path.name.lower().endswith(suffix)), None)
    return OTHER[suffix] if suffix else f"a file that ends in none of {', '.join(READ)}"


def find(source: Path, overrides: Mapping[str, str]) -> Source:
    """The files of each split; `overrides` names a split's file, files (a pattern with `*`), or `none`.

    Raises:
        SourceUnclear: no such path, no training rows, more than one stem for a split, or a missing shard.
    """
    picks = {_split_name(split, source): files for split, files in overrides.items()}
    if source.is_file():
        if format_of(source) is None:
            raise _unclear(source, not_read(source), f"a file that ends in one of {', '.join(READ)}")
        return Source(source, source.parent, {"train": (source,), **_pick(source.parent, picks, source)})
    if not source.is_dir():
        raise _unclear(source, "no such file or folder", "a data set's folder, or one of its files")
    root, stems = _stems(source)
    by_split: dict[str, list[_Stem]] = {}
    for stem in stems:
        by_split.setdefault(stem.split, []).append(stem)
    splits = _pick(root, picks, source)
    open_splits = {split: several for split, several in by_split.items() if split not in picks}
    if unclear := {split: several for split, several in open_splits.items() if len(several) > 1}:
        raise SourceUnclear(str(source), [_which(split, several) for split, several in unclear.items()])
    splits |= {split: _whole(several[0], source) for split, several in open_splits.items()}
    splits = {split: files for split, files in splits.items() if files}
    everything = [path for path in _files(root) if format_of(path)]
    if not splits and len(everything) == 1:
        splits = {"train": (everything[0],)}  # the only file there is, so its name doesn't matter
    in_use = {path for files in splits.values() for path in files}
    unused_files = tuple(_name(path, root) for path in everything if path not in in_use)
    if "train" not in splits:
        others = [f"{split}: {', '.join(_name(path, root) for path in files)}" for split, files in splits.items()]
        actual = "; ".join([*others, *unused_files[:8]]) or _emptiness(source)
        rule = "training rows, such as train.jsonl or data/train-*.parquet; `--split train=FILE` names others"
        raise _unclear(source, f"no file that is named after a training split: {actual}", rule)
    return Source(source, root, splits, unused_files)


def _which(split: str, several: "list[_Stem]") -> Problem:
    none = "" if split == "train" else f", or `--split {split}=none`"
    actual = f"{len(several)} sets of files: {', '.join(stem.words for stem in several)}"
    exact = next((stem for stem in several if stem.stem.lower() == split), None)
    which = (
        f"`--split {split}={exact.pattern}`, or another of them"
        if exact
        else f"`--split {split}=FILE` with one of them"
    )
    return Problem(split, None, None, actual, f"one: {which}{none}")


@dataclass(frozen=True)
class _Stem:
    """Files that differ only in their shard number."""

    split: str
    folder: str
    stem: str
    format: str
    files: tuple[Path, ...]

    @property
    def pattern(self) -> str:
        """The pattern that names them for `--split`."""
        name = self.files[0].name
        if len(self.files) > 1 or _SHARD.search(name.removesuffix(self.format)):
            name = f"*{self.format}" if self.stem.endswith("/") else f"{self.stem}-*{self.format}"
        return f"{self.folder}/{name}" if self.folder else name

    @property
    def words(self) -> str:
        """Description for people: the file, or the pattern with the number of files."""
        return self.pattern if len(self.files) == 1 else f"{self.pattern} ({len(self.files)} files)"


def _stems(source: Path) -> tuple[Path, list[_Stem]]:
    """The folder that holds the splits (`source`, or the one folder in it that does) and its stems."""
    if stems := _stems_of(source):
        return source, stems
    below = [folder for folder in _folders(source) if _stems_of(folder)]
    if len(below) > 1:
        actual = f"{len(below)} folders with splits: {', '.join(folder.name for folder in below[:8])}"
        raise _unclear(source, actual, f"one set: name its folder, as {source / below[0].name}")
    return (below[0], _stems_of(below[0])) if below else (source, [])


def _stems_of(root: Path) -> list[_Stem]:
    groups: dict[tuple[str, str, str, str], list[Path]] = {}
    arrow = [path for path in _inside(root) if path.name.startswith("data-") and path.suffix == ".arrow"]
    if arrow and (root / "state.json").exists():  # `save_to_disk` of one set, not of several splits
        return [_Stem("train", "", "data", ".arrow", tuple(arrow))]
    for path in _files(root):
        kind, parent = format_of(path), _name(path.parent, root)
        if kind is None:
            continue
        stem = _SHARD.sub("", path.name[: -len(kind)])
        if parent not in (".", "data"):  # a folder that is named after a split: its files are the shards
            stem = "/"
        split = _split_of(path.parent.name if stem == "/" else stem)
        if split:
            groups.setdefault((split, "" if parent == "." else parent, stem, kind), []).append(path)
    return [_Stem(*key, tuple(paths)) for key, paths in groups.items()]


def _files(root: Path) -> list[Path]:
    """Files that may belong to a split: in the folder, in `data/`, and in folders named after a split."""
    folders = [root, *(f for f in _folders(root) if f.name == "data" or _split_of(f.name))]
    folders += [f for f in _folders(root / "data") if _split_of(f.name)] if (root / "data").is_dir() else []
    return [path for folder in folders for path in _inside(folder)]


def _inside(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file() and not _is_hidden(path)]


def _folders(folder: Path) -> list[Path]:
    return [
        path for path in sorted(folder.iterdir()) if path.is_dir() and not path.is_symlink() and not _is_hidden(path)
    ]


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or is_system_file(path.name)


def _split_of(stem: str) -> str | None:
    first = _SPLIT.match(stem.lower())
    return SPLIT_NAMES.get(first[1]) if first else None


def _split_name(split: str, source: Path) -> str:
    if split not in SPLIT_NAMES:
        raise _unclear(source, f"--split {show(split)}", f"one of {', '.join(dict.fromkeys(SPLIT_NAMES.values()))}")
    return SPLIT_NAMES[split]


def _pick(root: Path, picks: Mapping[str, str], source: Path) -> dict[str, tuple[Path, ...]]:
    return {split: () if name == NONE else tuple(_matching(root, split, name, source)) for split, name in picks.items()}


def _matching(root: Path, split: str, name: str, source: Path) -> list[Path]:
    """The files that `--split` names, by a path or a pattern, below the data set or the working directory."""
    for base in (root, source, Path()):
        if "*" in name and not Path(name).is_absolute():
            matches = sorted(path for path in base.glob(name) if path.is_file())
        else:
            matches = [base / name] if (base / name).is_file() else []
        if matches:
            break
    else:
        raise _unclear(
            source,
            f"no file {show(name)} for {split}",
            f"a file below {root}, or a pattern such as data/{split}-*.parquet",
        )
    if strange := next((path for path in matches if format_of(path) is None), None):
        raise _unclear(
            source, f"{strange.name} is {not_read(strange)}", f"a file that ends in one of {', '.join(READ)}"
        )
    return matches


def _whole(stem: _Stem, source: Path) -> tuple[Path, ...]:
    """The files of a stem, if none of its shards is missing."""
    shards = [_SHARD.search(path.name[: -len(stem.format)]) for path in stem.files]
    numbers = {int(shard["of"]) for shard in shards if shard and shard["of"]}
    if numbers and numbers != {len(stem.files)}:
        actual = (
            f"{len(stem.files)} files {stem.pattern}, numbered as parts of {' and of '.join(map(str, sorted(numbers)))}"
        )
        raise _unclear(source, actual, f"all parts, or the files to take: `--split {stem.split}={stem.pattern}`")
    return stem.files


def _emptiness(source: Path) -> str:
    """A description of a folder without any file of a split."""
    if snapshots := sorted([*source.glob("snapshots/*"), *source.glob("datasets--*/snapshots/*")]):
        return f"a cache folder of the Hugging Face hub; name the snapshot inside, as {snapshots[-1]}"
    below = [path for path in islice(source.rglob("*"), MANY) if path.is_file() and format_of(path)]
    if below:
        return f"files lie deeper, such as {_name(below[0], source)}; name its folder"
    others = [f"{path.name} is {not_read(path)}" for path in _inside(source) if format_of(path) is None]
    return "; ".join(others[:4]) or "no file of a known format"


def _name(path: Path, root: Path) -> str:
    try:
        return PurePosixPath(path.relative_to(root)).as_posix()
    except ValueError:
        return str(path)


def _unclear(source: Path, actual: str, rule: str) -> SourceUnclear:
    return SourceUnclear(str(source), [Problem(source.name or str(source), None, None, actual, rule)])
