"""Packages that cost more than they weigh, and programs that try what a reader of files may not do."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

MB = 1024 * 1024
HEADER = "name: colours\nversion: '1'\nowner: demo\ndescription: Name the colour.\nlicence: CC0-1.0\n"
PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from components.tasks import parser; "
    "exec(open({file!r}).read()); parser.TASKS = {{**parser.TASKS, 'take': attack}}; parser.main()"
)
"""Runs instead of the reader's own program, so that `attack` stands for code that hostile bytes have taken over."""


def package(folder: Path, rows: int = 6, **fields: object) -> Path:
    """A small valid package; `fields` go into each row."""
    folder.mkdir(parents=True)
    (folder / "task.yaml").write_text(HEADER, encoding="utf-8")
    for split in ("train", "validation", "test"):
        lines = [
            json.dumps({"instruction": "Name it.", "input": f"{split} {n}", "output": f"colour {n}", **fields})
            for n in range(rows)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def with_flat_images(folder: Path, images: int, side: int = 4096) -> Path:
    """A package whose images are a few kilobytes as files, and gigabytes as pixels."""
    package(folder, images)
    (folder / "images").mkdir()
    rows = []
    for number in range(images):
        name = f"images/{number}.png"
        Image.new("RGB", (side, side), (number % 256, number // 256, 0)).save(folder / name, optimize=True)
        rows.append({"instruction": "Look.", "image": name, "output": f"answer {number}"})
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def repeating_parquet(kind: str, rows: int = 2000, size: int = 200_000) -> bytes:
    """A Parquet file of some kilobytes that repeats one large value in each row, in a column of a type."""
    big = "x" * size
    column = {
        "string": lambda: pa.array([big], pa.string()),
        "large_string": lambda: pa.array([big], pa.large_string()),
        "string_view": lambda: pa.array([big], pa.string_view()),
        "binary": lambda: pa.array([big.encode()], pa.binary()),
        "list": lambda: pa.array([["a", big]]),
        "large_list": lambda: pa.array([["a", big]], pa.large_list(pa.large_string())),
        "struct": lambda: pa.array([{"role": "user", "content": big}]),
        "messages": lambda: pa.array([[{"role": "user", "content": [{"text": big}]}]]),
        "map": lambda: pa.array([[("a", big)]], pa.map_(pa.string(), pa.string())),
        "dictionary": lambda: pa.array([big]).dictionary_encode(),
        "fixed": lambda: pa.array([big.encode()], pa.binary(size)),
        "empty lists": lambda: pa.array([[None] * 30_000], pa.list_(pa.int8())),
    }[kind]()
    fields = {"instruction": pa.array(["Do."] * rows), "output": pa.array(["x"] * rows)}
    repeated = (
        pa.chunked_array([column] * rows) if kind != "dictionary" else pa.chunked_array([column]).take([0] * rows)
    )
    if kind == "empty lists":
        repeated = pa.chunked_array([column] * rows)
    made = io.BytesIO()
    table = pa.table({**fields, "messages": repeated}).combine_chunks()
    pq.write_table(table, made, compression="zstd", dictionary_pagesize_limit=64 * MB)
    return made.getvalue()


def hollow_arrow(kind: str) -> bytes:
    """An Arrow stream of a few hundred bytes that stands for billions of values."""
    columns = {
        "null": lambda: pa.nulls(1 << 33),
        "fixed_size_list": lambda: pa.FixedSizeListArray.from_arrays(pa.nulls(300 * (1 << 20)), 1 << 20),
        "view": lambda: _views(2000, 200_000),
        "run_end": lambda: pa.RunEndEncodedArray.from_arrays(pa.array([1 << 30], pa.int32()), pa.array(["x"])),
    }
    column = columns[kind]()
    made = io.BytesIO()
    batch = pa.record_batch({"messages": column})
    with pa.ipc.new_stream(made, batch.schema, options=pa.ipc.IpcWriteOptions(allow_64bit=True)) as writer:
        writer.write_batch(batch)
    return made.getvalue()


def _views(rows: int, size: int) -> pa.Array:
    views = np.tile(np.array([size, 0x78787878, 0, 0], "<i4"), rows)
    buffers = [None, pa.py_buffer(views.tobytes()), pa.py_buffer(b"x" * size)]
    return pa.Array.from_buffers(pa.string_view(), rows, buffers)


def zip_of_folders(members: int) -> bytes:
    """A zip of so many empty folders."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for number in range(members):
            archive.writestr(zipfile.ZipInfo(f"{number}/"), b"")
    return made.getvalue()


def zip_bomb(compression: int, size: int = 64 * MB) -> bytes:
    """A zip whose one file is zeros."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        archive.writestr("train.jsonl", bytes(size))
    return made.getvalue()
