"""Packages with random faults: each is refused with a `PackageError`, or means what a plain reader says it means.

    python -m benchmarks.packages --packages 2000

Eight real tasks, as a folder (one file mutated), as .zip, as .tar.zst and with Parquet splits, with bytes flipped, cut,
repeated, swapped, inserted, and with rows edited as values. The plain reader is json.loads line by line, pyarrow's
to_pylist, and the archives' own extraction. Also checked: nothing is written outside the scratch folder, nothing stays
in it, and no other exception appears. The last line is one JSON object.
"""

import io
import json
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.tasks.containers import open_package, pack
from components.tasks.package import read_package
from components.tasks.problems import PackageError

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
SPLITS = ("train", "validation", "test")
ROWS = 12
VALUES: tuple[Any, ...] = (
    "",
    " ",
    None,
    0,
    True,
    [],
    {},
    ["a"],
    "\x00",
    "\ud800",
    "a" * 300_000,
    "é" * 10,
    -1e400,
    "x",
)


def base(name: str) -> dict[str, bytes]:
    """A small copy of an example task: its files by name."""
    folder = EXAMPLES / name
    files = {"task.yaml": (folder / "task.yaml").read_bytes()}
    for split in SPLITS:
        files[f"{split}.jsonl"] = b"".join((folder / f"{split}.jsonl").read_bytes().splitlines(keepends=True)[:ROWS])
    return files


def as_parquet(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same with Parquet splits."""
    out = {"task.yaml": files["task.yaml"]}
    for split in SPLITS:
        made = io.BytesIO()
        rows = [json.loads(line) for line in files[f"{split}.jsonl"].splitlines()]
        pq.write_table(pa.Table.from_pylist(rows), made)
        out[f"{split}.parquet"] = made.getvalue()
    return out


def mutated(content: bytes, dice: random.Random) -> bytes:
    """Up to four random changes."""
    data = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        place, other = (dice.randrange(len(data) or 1) for _ in range(2))
        size = dice.choice((1, 1, 1, 8, 64))
        match dice.randrange(6):
            case 0 if data:
                data[place] ^= 1 << dice.randrange(8)
            case 1:
                del data[place : place + size]
            case 2:
                data[place:place] = data[other : other + size]
            case 3:
                data[place:place] = dice.randbytes(size)
            case 4:
                data[place : place + size], data[other : other + size] = (
                    data[other : other + size],
                    data[place : place + size],
                )
            case _:
                del data[place : place + 1 if dice.random() > 0.2 else None]
    return bytes(data)


def edited(content: bytes, dice: random.Random) -> bytes:
    """A row with a field changed, added or taken away."""
    lines = content.splitlines()
    place = dice.randrange(len(lines))
    row = json.loads(lines[place])
    field = dice.choice((*row, "choices", "messages", "image", "outputs"))
    if dice.random() < 0.3:
        row.pop(field, None)
    else:
        row[field] = dice.choice(VALUES)
    lines[place] = json.dumps(row).encode()
    return b"\n".join(lines)


def make(dice: random.Random, folder: Path) -> Path:
    """One faulty package."""
    files = base(dice.choice(sorted(path.name for path in EXAMPLES.iterdir() if (path / "task.yaml").exists())))
    kind = dice.choice(("folder", "rows", "zip", "tar", "parquet"))
    if kind == "parquet":
        files = as_parquet(files)
    name = dice.choice(sorted(files))
    if kind in ("folder", "parquet"):
        files[name] = mutated(files[name], dice)
    elif kind == "rows":
        name = dice.choice([n for n in files if n.endswith(".jsonl")])
        files[name] = edited(files[name], dice)
    package = folder / "package"
    package.mkdir()
    for each, content in files.items():
        (package / each).write_bytes(content)
    if kind == "zip":
        path = folder / "package.zip"
        path.write_bytes(mutated(pack(package)[0], dice))
        return path
    if kind == "tar":
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as archive:
            for each, content in files.items():
                member = tarfile.TarInfo(f"./{each}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        path = folder / "package.tar.zst"
        path.write_bytes(mutated(pa.compress(raw.getvalue(), codec="zstd", asbytes=True), dice))
        return path
    return package


def plain_files(path: Path) -> dict[str, bytes]:
    """The files of a package by the libraries' own ways."""
    if path.is_dir():
        return {p.name: p.read_bytes() for p in path.iterdir()}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
        whole = io.BytesIO(stream.read())
    with tarfile.open(fileobj=whole) as archive:
        return {m.name.removeprefix("./"): archive.extractfile(m).read() for m in archive if m.isreg()}  # type: ignore[union-attr]


def plain_rows(files: dict[str, bytes], split: str) -> list[dict[str, Any]]:
    """Rows of a split as a plain reader sees them; an empty input is none."""
    if f"{split}.parquet" in files:
        rows = pq.read_table(io.BytesIO(files[f"{split}.parquet"])).to_pylist()
    else:
        text = files[f"{split}.jsonl"].removeprefix(b"\xef\xbb\xbf").decode()
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    return [{k: v for k, v in row.items() if v is not None and (k, v) != ("input", "")} for row in rows]


def check(dice: random.Random, folder: Path, number: int) -> str:
    """Outcome of one package."""
    path = make(dice, folder)
    before = sorted(folder.rglob("*"))
    try:
        with open_package(path, folder / "scratch") as inside:
            read = read_package(inside)
    except PackageError:
        outcome = "refused"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        print(f"package {number}: {type(error).__name__}: {error}")
        return "other exception"
    else:
        files = plain_files(path)
        same = all(
            [example.to_row() for example in read.splits[split]] == plain_rows(files, split)
            for split in SPLITS
            if split not in read.cut
        )
        outcome = "accepted, same meaning" if same else "changed meaning"
        if not same:
            print(f"package {number}: read as something else")
    left = [entry for entry in sorted(folder.rglob("*")) if entry not in before and entry != folder / "scratch"]
    return "files outside" if left else outcome
