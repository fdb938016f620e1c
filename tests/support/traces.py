"""Looks for texts in every byte below a folder: files, SQLite's free pages and WAL, archives, compressed streams."""

import contextlib
import io
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

LENGTH = 20
"""Characters of a shingle."""
_CHUNK = 1 << 20
_TOP = np.uint64(40)
"""Bits of a hash that are left out of the table of shingles, so that it has 2^24 places."""
_DEFLATED = re.compile(rb"\x1f\x8b\x08|x[\x01\x5e\x9c\xda]")


def shingles(texts: Iterable[str], elsewhere: Iterable[str] = ()) -> set[bytes]:
    """Every `LENGTH` characters of `texts` that occur in none of `elsewhere`.

    Plain letters only, so that JSON, HTML and SQL write them as they are.
    """
    return _plain(texts) - _plain(elsewhere)


def search(folder: Path, wanted: set[bytes]) -> dict[str, set[bytes]]:
    """File -> the shingles that stand in it."""
    marked = np.zeros(1 << 24, dtype=np.bool_)
    marked[[int(_hashes(shingle)[0] >> _TOP) for shingle in wanted]] = True
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            seen = {hit for data in _streams(path.read_bytes()) for hit in _in(data, marked) if hit in wanted}
            if seen:
                found[path.relative_to(folder).as_posix()] = seen
    return found


def _plain(texts: Iterable[str]) -> set[bytes]:
    cut = {text[i : i + LENGTH] for text in texts for i in range(len(text) - LENGTH + 1)}
    return {each.encode() for each in cut if re.fullmatch(r"[A-Za-z0-9 ,.:;?!-]+", each)}


def _in(data: bytes, marked: "np.ndarray") -> Iterator[bytes]:
    for start in range(0, len(data), _CHUNK):
        part = data[start : start + _CHUNK + LENGTH - 1]
        if len(part) >= LENGTH:
            for i in np.flatnonzero(marked[_hashes(part) >> _TOP]):
                yield part[i : i + LENGTH]


def _hashes(data: bytes) -> "np.ndarray":
    """A polynomial hash modulo 2^64 of every window."""
    codes = np.frombuffer(data, dtype=np.uint8).astype(np.uint64)
    total = np.zeros(len(codes) - LENGTH + 1, dtype=np.uint64)
    for i in range(LENGTH):
        total = total * np.uint64(1_000_003) + codes[i : len(codes) - LENGTH + 1 + i]
    return total


def _streams(data: bytes) -> Iterator[bytes]:
    """The bytes themselves, and what is compressed in them."""
    yield data
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    elif len(data) < 8 * _CHUNK:
        for match in _DEFLATED.finditer(data):
            try:
                wide = zlib.MAX_WBITS | 32
                opened = zlib.decompressobj(wide).decompress(data[match.start() :], 64 * _CHUNK)
            except zlib.error:
                continue
            if len(opened) > LENGTH:
                yield opened


def move(home: Path, old: Path) -> None:
    """Make a copied state name its own files: MLflow and ZenML keep absolute paths in their databases."""
    for file in (home / "mlflow.db", home / "zenml" / "local_stores" / "default_zen_store" / "zenml.db"):
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                for column in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
                    here = f'"{column[1]}"'
                    connection.execute(
                        f'UPDATE "{table}" SET {here} = replace({here}, ?, ?) WHERE instr({here}, ?)',
                        (str(old), str(home), str(old)),
                    )
