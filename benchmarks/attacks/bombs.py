"""With a submitter's token: packages that are small to send and large to read."""

import contextlib
import io
import logging
import struct
import time
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.attacks.attack import attack, held
from benchmarks.attacks.installation import Installation, files_of, packed

LOG = logging.getLogger(__name__)
MIB = 1024 * 1024
MEMORY, STORED, SECONDS = 400 * MIB, 64 * MIB, 60.0
"""Most memory, store and time that a package of less than a megabyte may take from the service."""


def _blank_png(side: int) -> bytes:
    """A valid image of one colour, `side` by `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * (side * 3 + 1) * side, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(
        b"IDAT", rows
    ) + chunk(b"IEND", b"")  # fmt: skip


def _parquet(column: pa.Array) -> bytes:
    content = io.BytesIO()
    table = pa.table({"instruction": pa.array(["Say it"] * len(column)), "output": column})
    pq.write_table(table, content, compression="zstd")
    return content.getvalue()


def _peak(system: Installation) -> int:
    """Most memory that the service's process and its children held, bytes."""
    most = 0
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, StopIteration):
            if int(folder.name) and folder.stat().st_uid == system.uid("service"):
                lines = (folder / "status").read_text(encoding="utf-8").splitlines()
                most = max(most, int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024)
    return most


def _stored(system: Installation) -> int:
    return sum(file.stat().st_size for file in (system.folder / "objects").rglob("*") if file.is_file())


def _send(system: Installation, name: str, content: bytes) -> None:
    """Send a package and compare what it took."""
    memory, stored, begun = _peak(system), _stored(system), time.monotonic()
    status, answer = system.submit("sam", content)
    taken, kept, seconds = _peak(system) - memory, _stored(system) - stored, time.monotonic() - begun
    sent = f"{name} of {len(content):,} bytes ({status}: {str(answer)[:120]})"
    held(status < 500, f"{sent} ends in an error nobody foresaw")
    held(taken < MEMORY, f"{sent} took {taken / MIB:.0f} MiB of the service's memory")
    held(kept < STORED, f"{sent} stored {kept / MIB:.0f} MiB")
    held(seconds < SECONDS, f"{sent} took {seconds:.0f} s")
    held(system.look("ann", "status")[0] == 200, f"after {sent} nobody is answered")
    LOG.info("%s: %.0f MiB, %.0f MiB stored, %.1f s", sent, taken / MIB, kept / MIB, seconds)


def _with_images(images: dict[str, bytes]) -> bytes:
    rows = "".join(
        f'{{"instruction": "Name the colour {number}", "output": "positive", "image": "{name}"}}\n'
        for number, name in enumerate(images)
    ).encode()
    splits = dict.fromkeys(("train.jsonl", "validation.jsonl", "test.jsonl"), rows)
    return packed({**files_of("movie_sentiment"), **splits, **images})


@attack("budgets", "a submitter's token")
def images_that_grow(system: Installation) -> None:
    """Sends images of one colour: kilobytes that are hundreds of megabytes as pixels."""
    _send(system, "thirty images", _with_images({f"images/{n}.png": _blank_png(3_500 + n) for n in range(30)}))


@attack("budgets", "a submitter's token")
def one_image_of_a_billion_pixels(system: Installation) -> None:
    """Sends one image whose header names thirty thousand pixels a side."""
    _send(system, "one image", _with_images({"images/a.png": _blank_png(30_000)}))


@attack("budgets", "a submitter's token")
def parquet_that_grows(system: Installation) -> None:
    """Sends Parquet whose ten kilobytes are gigabytes of text, in each type that can hold text."""
    long = "x" * (4 * MIB)
    kinds = {
        "string": pa.array([long] * 500),
        "large_string": pa.array([long] * 500, pa.large_string()),
        "binary": pa.array([long.encode()] * 500, pa.large_binary()),
        "list": pa.array([[long] * 5] * 100, pa.list_(pa.large_string())),
        "struct": pa.array([{"a": long}] * 500, pa.struct([("a", pa.large_string())])),
        "dictionary": pa.array([long] * 500).dictionary_encode(),
    }
    base = {name: data for name, data in files_of("movie_sentiment").items() if name != "train.jsonl"}
    for name, column in kinds.items():
        _send(system, f"Parquet with {name}", packed({**base, "train.parquet": _parquet(column)}))


@attack("budgets", "a submitter's token")
def zip_that_grows(system: Installation) -> None:
    """Sends a zip whose files are blanks: a thousand times as large once unpacked."""
    rows = b'{"instruction": "Say it", "input": "' + b" " * (300 * MIB) + b'", "output": "x"}\n'
    _send(system, "a zip of blanks", packed({**files_of("movie_sentiment"), "train.jsonl": rows}))


@attack("budgets", "a submitter's token")
def thousands_of_files(system: Installation) -> None:
    """Sends a zip of a hundred thousand empty files."""
    empty = {f"images/{number}.png": b"" for number in range(100_000)}
    _send(system, "a zip of files", packed({**files_of("movie_sentiment"), **empty}))


@attack("budgets", "a submitter's token")
def yaml_that_grows(system: Installation) -> None:
    """Sends a task.yaml whose aliases name each other."""
    layers = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 10))
    task = b"name: bomb\nl0: &l0 [x]\n" + layers.encode()
    _send(system, "YAML of aliases", packed({**files_of("movie_sentiment"), "task.yaml": task}))


@attack("budgets", "a submitter's token")
def texts_that_slow_patterns_down(system: Installation) -> None:
    """Sends long lines that patterns with more than one way to match take hours for; the worker checks them."""
    lines = {"a.": "a." * 60_000, "@": "a@" * 60_000, "digits": "1-" * 60_000, "spaces": "a " * 60_000}
    files = files_of("movie_sentiment")
    rows = files["train.jsonl"].decode().splitlines()
    for number, text in enumerate(lines.values()):
        rows.append(f'{{"instruction": "Say whether line {number} is good", "input": "{text}", "output": "positive"}}')
    task = files["task.yaml"].replace(b"movie_sentiment", b"long_lines")
    status, answer = system.submit("sam", packed({**files, "task.yaml": task, "train.jsonl": "\n".join(rows).encode()}))
    begun = time.monotonic()
    done = system.command("worker", "work")
    seconds = time.monotonic() - begun
    said = f"{status}: {answer}; {done.stdout[-300:]}"
    held(seconds < SECONDS, f"the worker took {seconds:.0f} s for four long lines ({said})")
