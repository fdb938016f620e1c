"""Immutable objects named by their own sha256, over any fsspec file system.

Layout: `sha256/ab/abcd…` below the store's URL. An object is written once, whole or not at all, so a crash can lose
work in flight but never damage a version, and repeated or unfenced writes are harmless. Every read is checked against
the name. Only `scratch` areas are mutable: checkpoints, harmless to lose.

Pixels of images are stored compressed (`pixels`), under the digest of the plain pixels.

Objects that retention or a withdrawal erased leave a small file with the reason at `erased/ab/abcd…`, so that nobody
confuses "erased on purpose" with "lost".
"""

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeAlias

import rfc8785

from components.errors import LciaError
from components.storage.fence import erase
from components.storage.pixels import pack, unpack

Json: TypeAlias = Any
"""Any JSON value; readers check its type."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SCRATCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class NotCanonical(LciaError):
    """A value that has no RFC 8785 form: NaN, an integer beyond 2^53, a key that is no string."""


class ObjectMissing(LciaError):
    """The store has no object of this digest."""


class ObjectErased(ObjectMissing):
    """The object of this digest was erased on purpose."""


class ObjectCorrupt(LciaError):
    """Stored bytes that don't hash to their name, or that are not of the kind that the caller expects."""


class FolderRefused(LciaError):
    """A folder that can't be stored or restored: links, special files, names that leave the folder."""


def canonical(value: Json) -> bytes:
    """RFC 8785 bytes of a JSON value.

    Raises:
        NotCanonical: NaN, infinity, an integer beyond 2^53, a non-string key, a lone surrogate, or a type
            that JSON does not have.
    """
    try:
        return rfc8785.dumps(value)
    except rfc8785.IntegerDomainError as error:
        raise NotCanonical(
            f"{error}: integers beyond 2^53 lose digits in JSON; write such a number as a string"
        ) from error
    except rfc8785.CanonicalizationError as error:
        raise NotCanonical(
            f"{error}: expected only text, finite numbers, true/false/null, lists and objects with text keys"
        ) from error
    except UnicodeEncodeError as error:
        raise NotCanonical(f"text with a lone surrogate is not Unicode and has no bytes: {error}") from error


def digest_of(content: bytes) -> str:
    """sha256 of `content`, 64 lower-case hex digits."""
    return hashlib.sha256(content).hexdigest()


def parse_json(content: bytes) -> Json:
    """JSON value of UTF-8 bytes; NaN, Infinity and repeated keys are refused.

    Raises:
        NotCanonical: the bytes are not strict JSON.
    """
    try:
        return json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_int=_whole_number,
        )
    except (ValueError, RecursionError) as error:
        raise NotCanonical(f"not strict JSON: {error}") from error


def _unique_keys(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("an object names the same key twice")
    return values


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is not a JSON number")


def _whole_number(digits: str) -> int | float:
    """Digits beyond 2^53 stand for a float (RFC 8785 writes 1e20 without an exponent)."""
    if len(digits) > 400:
        raise ValueError(f"a number of {len(digits)} digits is beyond every JSON number")
    value = int(digits)
    return value if abs(value) < 2**53 else float(digits)


_STALE = timedelta(minutes=15)
"""Age from which storing an object again makes it young again; far below any grace period of a sweep."""
_PIECE = 1024 * 1024
"""Bytes of a file that are read at a time."""
_PART = ".write-"
"""Beginning of the names of files that are still being written."""


@dataclass(frozen=True)
class StoredFile:
    """One file of the store."""

    path: str
    size: int
    """Bytes."""
    modified_at: datetime

    @property
    def name(self) -> str:
        """Its last part: the digest, for an object."""
        return self.path.rsplit("/", 1)[-1]


class _Files:
    """Whole-file access below one fsspec URL: a file is absent or complete, after any crash."""

    def __init__(self, url: str) -> None:
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        self._fs, root = fsspec.core.url_to_fs(url)
        self.root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def read(self, path: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(path))
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes) -> None:
        """Locally by rename after fsync, remotely by the store's own atomic put."""
        if self._local:
            write_durably(Path(path), content)
        else:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(path, content)

    def begins(self, path: str, start: bytes) -> bool:
        try:
            return bool(self._fs.cat_file(path, start=0, end=len(start)) == start)
        except FileNotFoundError:
            return False

    def exists(self, path: str) -> bool:
        return bool(self._fs.exists(path))

    def modified_at(self, path: str) -> datetime:
        moment: datetime = self._fs.modified(path)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def renew(self, path: str, content: bytes | None) -> None:
        """Make an existing file as young as a new one, unless it is young; `content` is its content, if known."""
        if datetime.now(UTC) - self.modified_at(path) < _STALE:
            return
        if self._local:
            os.utime(path)
        else:
            self.write(path, content if content is not None else bytes(self._fs.cat_file(path)))

    def place(self, path: str, file: Path) -> None:
        """As `write`, with the bytes of a file."""
        if self._local:
            with file.open("rb") as content:
                write_durably(Path(path), content)
        else:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._fs.put_file(str(file), path)

    def digest(self, path: str) -> str | None:
        """sha256 of a file; None if there is none."""
        try:
            with self._fs.open(path, "rb") as content:
                sha256 = hashlib.sha256()
                while part := content.read(_PIECE):
                    sha256.update(part)
                return sha256.hexdigest()
        except FileNotFoundError:
            return None

    def size(self, path: str) -> int:
        """Bytes of a file; 0 if there is none."""
        try:
            return int(self._fs.info(path)["size"])
        except FileNotFoundError:
            return 0

    def below(self, folder: str) -> Iterator[StoredFile]:
        """Every file below a folder; files that vanish during the listing are left out."""
        if not self._fs.exists(folder):
            return
        self._fs.invalidate_cache()
        for path, info in self._fs.find(folder, detail=True).items():
            try:
                yield StoredFile(str(path), int(info["size"]), self.modified_at(path))
            except FileNotFoundError:
                continue

    def remove(self, path: str) -> None:
        """Delete a file or folder. Locally a link is removed, never followed: only the store's root may be a link."""
        if self._local:
            erase(Path(path), Path(self.root))
        elif self._fs.exists(path):
            self._fs.rm(path, recursive=True)


class ObjectStore:
    """Objects below one fsspec URL, e.g. `file:///srv/objects` or `s3://bucket/objects`."""

    def __init__(self, url: str) -> None:
        """Open the store; a local folder is created on the first write."""
        self.url = url
        self._files = _Files(url)

    def put(self, content: bytes) -> str:
        """Store bytes and return their digest; bytes already stored are left alone, damaged ones mended.

        An object that is stored again counts as new, so that no sweep takes it before something refers to it.
        """
        digest = digest_of(content)
        path = self._path(digest)
        present = self._files.read(path)
        if present is not None and (present == content or unpack(present) == content):
            self._files.renew(path, present)
        else:
            self._files.write(path, pack(content))
            self._files.remove(self._tombstone(digest))
        return digest

    def put_file(self, file: Path) -> str:
        """Store a file's bytes unchanged and return their digest; only a piece of it is in memory at a time."""
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        path = self._path(digest)
        if self._files.digest(path) == digest:
            self._files.renew(path, None)
        else:
            self._files.place(path, file)
            self._files.remove(self._tombstone(digest))
        return digest

    def size(self, digest: str) -> int:
        """Bytes that an object takes in the store; 0 if it is not there."""
        return self._files.size(self._path(digest))

    def get(self, digest: str) -> bytes:
        """Bytes of an object, checked against its name.

        Raises:
            ObjectErased: it was erased on purpose.
            ObjectMissing: nothing is stored under `digest`.
            ObjectCorrupt: the stored bytes hash to something else.
        """
        content = self._files.read(self._path(digest))
        if content is None:
            why = self.why_erased(digest)
            if why is not None:
                raise ObjectErased(
                    f"object {digest} was erased: {why}. That is no damage; what needs it can't be done any more"
                )
            raise ObjectMissing(
                f"object {digest} is not in {self.url}; restore it from a backup or run again what made it"
            )
        actual = digest_of(content)
        if actual != digest:
            raw, content = content, unpack(content)
            actual = digest_of(content) if content is not raw else actual
        if actual != digest:
            raise ObjectCorrupt(
                f"object {digest} in {self.url} hashes to {actual} ({len(content)} bytes): its bytes were "
                "changed; restore it from a backup or run again what made it"
            )
        return content

    def exists(self, digest: str) -> bool:
        """True if something is stored under `digest`; only `get` checks it."""
        return self._files.exists(self._path(digest))

    def why_erased(self, digest: str) -> str | None:
        """Reason for which an object was erased on purpose; None if it was not, or is there again."""
        word = None if self.exists(digest) else self._files.read(self._tombstone(digest))
        return None if word is None else word.decode("utf-8", "replace")

    def erase(self, digest: str, why: str | None) -> None:
        """Delete an object, after writing down `why` (None: nothing refers to it); doing it again does no harm."""
        if why is not None:
            self._files.write(self._tombstone(digest), why.encode())
        self._files.remove(self._path(digest))

    def tombstones(self) -> Iterator[str]:
        """Digests of objects that were erased on purpose and not stored again."""
        for file in self._files.below(f"{self._files.root}/erased"):
            if _DIGEST.fullmatch(file.name) and not self.exists(file.name):
                yield file.name

    def younger(self, digest: str, moment: datetime) -> bool:
        """True if an object is there and was stored, or stored again, after `moment`."""
        try:
            return self._files.modified_at(self._path(digest)) > moment
        except FileNotFoundError:
            return False

    def objects(self) -> Iterator[StoredFile]:
        """Every object; half-written files are left out."""
        return (file for file in self._files.below(f"{self._files.root}/sha256") if _DIGEST.fullmatch(file.name))

    def leftovers(self) -> Iterator[StoredFile]:
        """Files of scratch areas, and unfinished files of writers that were killed."""
        yield from self._files.below(f"{self._files.root}/scratch")
        for part in ("sha256", "erased"):
            yield from (f for f in self._files.below(f"{self._files.root}/{part}") if f.name.startswith(_PART))

    def remove(self, file: StoredFile) -> None:
        """Delete one of the `leftovers`."""
        self._files.remove(file.path)

    def begins(self, digest: str, start: bytes) -> bool:
        """True if an object is there and begins with `start`; the rest of it is not read."""
        return self._files.begins(self._path(digest), start)

    def put_json(self, value: Json) -> str:
        """Store a JSON value in canonical form."""
        return self.put(canonical(value))

    def get_json(self, digest: str) -> Json:
        """JSON value of an object.

        Raises:
            ObjectMissing, ObjectCorrupt: see `get`; also when the object is not JSON.
        """
        try:
            return parse_json(self.get(digest))
        except NotCanonical as error:
            raise ObjectCorrupt(f"object {digest} was expected to hold JSON: {error}") from error

    def put_lines(self, rows: Iterable[Json]) -> str:
        """Store rows as JSON Lines: each row canonical and ended by a newline."""
        return self.put(b"".join(canonical(row) + b"\n" for row in rows))

    def get_lines(self, digest: str) -> list[Json]:
        """Rows of a JSON Lines object; errors as in `get_json`."""
        content = self.get(digest)
        if content and not content.endswith(b"\n"):
            raise ObjectCorrupt(f"object {digest} was expected to hold JSON Lines: its last line has no end")
        try:
            return [parse_json(line) for line in content.split(b"\n")[:-1]]
        except NotCanonical as error:
            raise ObjectCorrupt(f"object {digest} was expected to hold JSON Lines: {error}") from error

    def put_folder(self, folder: Path) -> str:
        """Store every file below `folder`; the digest is that of its canonical list of names and digests.

        Raises:
            FolderRefused: `folder` is no folder, or holds a link or something that is no plain file.
        """
        if folder.is_symlink() or not folder.is_dir():
            raise FolderRefused(f"{folder} is not a plain folder; name the folder itself")
        files: dict[str, str] = {}
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise FolderRefused(f"{path} is a link or a special file, expected plain files; copy it in")
            if path.is_file():
                files[path.relative_to(folder).as_posix()] = self.put(path.read_bytes())
        return self.put_json({"kind": "folder", "files": files})

    def folder_files(self, digest: str) -> dict[str, str]:
        """Relative names and digests of a folder object.

        Raises:
            ObjectMissing, ObjectCorrupt: see `get_json`; also when the object is no folder.
            FolderRefused: a name leaves the folder.
        """
        value = self.get_json(digest)
        files = value.get("files") if isinstance(value, dict) and value.get("kind") == "folder" else None
        if not isinstance(files, dict):
            raise ObjectCorrupt(f"object {digest} was expected to be a folder, it holds something else")
        for name in files:
            parts = name.split("/")
            if not name or "\\" in name or "\0" in name or {"", ".", ".."} & set(parts) or ":" in parts[0]:
                raise FolderRefused(f"folder {digest} names {name!r}, which leaves the folder; not restored")
        return dict(files)

    def get_folder(self, digest: str, target: Path) -> Path:
        """Restore a folder object at `target`, which appears whole or not at all; returns `target`.

        An existing folder is left alone if it holds exactly these files.

        Raises:
            ObjectMissing, ObjectCorrupt, FolderRefused: see `folder_files`; also when `target`
                holds something else.
        """
        files = self.folder_files(digest)
        if target.exists() and any(target.iterdir()):
            if _digests(target) == files:
                return target
            raise FolderRefused(f"{target} holds other files than folder {digest}; name a new folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            for name, content in files.items():
                path = work / PurePosixPath(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.get(content))
            work.chmod(0o755)
            work.replace(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return target

    def scratch(self, key: str) -> "Scratch":
        """The mutable work area of `key`, any text."""
        return Scratch(self._files, f"{self._files.root}/scratch/{digest_of(key.encode('utf-8'))}")

    def _path(self, digest: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise ObjectMissing(f"{digest!r} is not a digest, expected 64 lower-case hex digits")
        return f"{self._files.root}/sha256/{digest[:2]}/{digest}"

    def _tombstone(self, digest: str) -> str:
        return f"{self._files.root}/erased/{digest[:2]}/{digest}"


class Scratch:
    """Small mutable files of one run in flight, each carrying its own digest."""

    def __init__(self, files: _Files, root: str) -> None:
        """Made by `ObjectStore.scratch`."""
        self._files = files
        self._root = root

    def write(self, name: str, content: bytes) -> None:
        """Replace file `name` (letters, digits, `._-`) in one step."""
        self.tell(name, content)

    def tell(self, name: str, content: bytes) -> None:
        """As `write`, for a file that only people who watch need; no work resumes from it.

        A method of its own, so that tests can stop a process at the writes that do matter.
        """
        self._files.write(self._file(name), hashlib.sha256(content).digest() + content)

    def read(self, name: str) -> bytes | None:
        """Content of file `name`, or None if it is absent or damaged."""
        raw = self._files.read(self._file(name))
        if raw is None or hashlib.sha256(raw[32:]).digest() != raw[:32]:
            return None
        return raw[32:]

    def clear(self) -> None:
        """Forget every file of this area."""
        self._files.remove(self._root)

    def _file(self, name: str) -> str:
        if not _SCRATCH_NAME.fullmatch(name):
            raise FolderRefused(f"scratch name {name!r} is not of letters, digits and '._-'")
        return f"{self._root}/{name}"


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): digest_of(path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def write_durably(path: Path, content: bytes | BinaryIO) -> None:
    """Write through a temporary file of the same folder: `path` is absent or whole after any crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_PART, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(io.BytesIO(content) if isinstance(content, bytes) else content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
