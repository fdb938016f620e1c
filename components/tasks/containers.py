"""Packages as one file: `.zip` and `.tar.zst`, unpacked as hostile input, always packed to the same bytes.

A package in a container is the same package: its digest is that of the files inside, no matter how they were packed.
"""

import io
import os
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Self

from components.tasks.images import is_image
from components.tasks.package import MAX_ENTRIES, MAX_FILES, MAX_IMAGES, MAX_PACKAGE_BYTES, list_files
from components.tasks.problems import (
    MAX_FILE_BYTES,
    PackageError,
    Problem,
    is_system_file,
    path_fault,
    read_regular,
    show,
)
from components.tasks.task_file import TASK_FILE

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = {".zip": "application/zip", ".tar.zst": "application/zstd"}
"""Suffixes of containers, and their media types."""
MAX_RATIO = 200
"""Most bytes that may come out for each byte that went in: text shrinks 3 to 20 times."""
RATIO_FROM = 1024 * 1024
"""Bytes that may come out before the ratio counts: small repetitive files pack better than that."""
CHUNK = 64 * 1024
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, OSError, EOFError, ValueError, NotImplementedError)
"""Exceptions of the libraries on bytes that are no complete container."""
EXTENDED = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
"""Members of a tar archive that describe the next member."""
MAX_EXTENDED = 64 * 1024
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every file in a packed container: the earliest that zip knows."""


@contextmanager
def open_package(path: Path, scratch: Path, label: str | None = None) -> Iterator[Path]:
    """The folder of a package: the package itself, or a container unpacked below `scratch` while the block runs.

    `label` names the package in messages.

    Raises:
        PackageError: the container is damaged, too large, or holds something that a package may not hold.
    """
    kind = kind_of(path)
    if kind is None or not path.is_file() or path.is_symlink():
        yield path  # a folder, or something that `read_package` refuses with a better message
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="package-") as folder:
        yield _unpack(path, kind, Path(folder), label or str(path))


def kind_of(path: Path) -> str | None:
    """The suffix that makes a file a container."""
    return next((kind for kind in KINDS if path.name.lower().endswith(kind)), None)


def pack(path: Path) -> tuple[bytes, str]:
    """A package as the bytes of one file and their media type: a container as it is, a folder as a zip.

    Raises:
        PackageError: neither a folder nor a container, or files that a package may not hold.
    """
    kind = kind_of(path)
    if kind is not None and path.is_file():
        content = read_regular(path, path.name, MAX_FILE_BYTES)
        if isinstance(content, Problem):
            raise PackageError(str(path), [content])
        return content, KINDS[kind]
    names, problems = list_files(path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names if not problems else []:
            content = read_regular(path / name, name, MAX_FILE_BYTES)
            if isinstance(content, Problem):
                problems.append(content)
            else:
                archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
    if problems:
        raise PackageError(str(path), problems)
    return buffer.getvalue(), KINDS[".zip"]


class _Refused(Exception):
    """A fault of a container; becomes a `PackageError` that names the container."""

    def __init__(self, member: str | None, actual: str, rule: str) -> None:
        self.problem = Problem(member or "the container", None, None, actual, rule)


def _unpack(path: Path, kind: str, folder: Path, label: str) -> Path:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        problem = Problem(path.name, None, None, f"{size} bytes", f"at most {MAX_FILE_BYTES} bytes")
        raise PackageError(label, [problem])
    target = _Target(folder, size)
    try:
        if kind == ".zip":
            _unzip(path, target)
        else:
            _untar(path, target)
    except _Refused as why:
        raise PackageError(label, [why.problem]) from None
    except BROKEN as error:
        problem = Problem(path.name, None, None, f"{type(error).__name__}: {show(str(error))}", f"a whole {kind} file")
        raise PackageError(label, [problem]) from error
    return _root(folder)


class _Target:
    """A fresh folder that regular files are written to, within the limits of a package."""

    def __init__(self, folder: Path, packed_size: int) -> None:
        self.folder = folder
        self.left = min(MAX_PACKAGE_BYTES, max(RATIO_FROM, MAX_RATIO * packed_size))
        self.files = {False: 0, True: 0}  # of images: True
        self.seen: set[str] = set()

    def claim(self, name: str) -> None:
        """Refuse a name that leaves the folder, or that some file systems confuse with another file's."""
        fault = path_fault(name)
        if fault:
            raise _Refused(show(name), fault, "files inside the package with plain names")
        if is_system_file(name):
            return
        key = unicodedata.normalize("NFC", name).casefold()
        if key in self.seen:
            raise _Refused(show(name), "a name twice, or twice but for case", "each file once")
        self.seen.add(key)
        image = is_image(name)
        self.files[image] += 1
        most = MAX_IMAGES if image else MAX_FILES
        if self.files[image] > most:
            raise _Refused(None, f"more than {most} {'images' if image else 'files'}", "a smaller package")

    def write(self, name: str, content: BinaryIO) -> None:
        """Write a file, counting its bytes: the size in its header may be a lie."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            while chunk := content.read(CHUNK):
                self.left -= len(chunk)
                if self.left < 0:
                    most = f"at most {MAX_PACKAGE_BYTES} bytes, and {MAX_RATIO} for each packed byte"
                    raise _Refused(show(name), "more bytes than a package holds", most)
                file.write(chunk)


def _unzip(path: Path, target: _Target) -> None:
    regular, folder = 0o100000, 0o040000
    with _FewMembers(path) as archive:
        for member in archive.infolist():
            if not member.filename:
                raise _Refused(None, "a file without a name", "files with plain names")
            mode = (member.external_attr >> 16) & 0o170000
            if member.is_dir() and mode in (0, folder):
                continue
            if mode not in (0, regular):
                raise _Refused(show(member.filename), "a link or special file", "regular files only")
            if member.flag_bits & 1:
                raise _Refused(show(member.filename), "an encrypted file", "files that need no password")
            if member.filename != member.orig_filename:
                raise _Refused(show(member.orig_filename), "a name with a NUL or a backslash", "plain names with /")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _Refused(show(member.filename), "another compression than deflate", "a usual .zip file")
            target.claim(member.filename)
            if is_system_file(member.filename):
                continue
            with archive.open(member) as content:
                target.write(member.filename, content)  # type: ignore[arg-type] # ZipExtFile reads as a file does


class _FewMembers(zipfile.ZipFile):
    """A zip whose directory is read only up to `MAX_ENTRIES`: each entry takes a kilobyte of memory.

    `ZipFile` fills `filelist` while it opens the file, before anybody can count; so the list itself counts.
    """

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, _Directory() if name == "filelist" else value)


class _Directory(list[zipfile.ZipInfo]):
    def append(self, member: zipfile.ZipInfo) -> None:
        """Add a member.

        Raises:
            _Refused: there are more than a package holds.
        """
        if len(self) >= MAX_ENTRIES:
            raise _Refused(None, f"more than {MAX_ENTRIES} files and folders", "a smaller package")
        super().append(member)


def _untar(path: Path, target: _Target) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path)) as raw, pa.CompressedInputStream(raw, "zstd") as stream:
        source = _Bounded(stream, target.left + 4 * MAX_FILES * CHUNK)
        with tarfile.open(fileobj=source, mode="r|", encoding="utf-8", tarinfo=_Member) as archive:
            for number, member in enumerate(archive):
                archive.members.clear()  # type: ignore[attr-defined] # tarfile would keep them all in memory
                if number >= MAX_ENTRIES:
                    raise _Refused(None, f"more than {MAX_ENTRIES} files and folders", "a smaller package")
                name = member.name.removeprefix("./")
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise _Refused(show(member.name), "a link or special file", "regular files only")
                target.claim(name)
                if is_system_file(name):
                    continue
                source.left += 2 * tarfile.BLOCKSIZE if is_image(name) else 0  # the header and padding of one file
                content = archive.extractfile(member)
                assert content is not None  # noqa: S101 - a regular file has content
                target.write(name, content)  # type: ignore[arg-type] # typeshed calls it IO[bytes]


class _Member(tarfile.TarInfo):
    """A member whose broken header is an error; plain tarfile takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # not in typeshed
            raise
        except tarfile.HeaderError as error:
            raise _Refused(None, f"a broken header ({error})", "a whole .tar.zst file") from error
        if member.type in EXTENDED and member.size > MAX_EXTENDED:  # tarfile reads these whole
            raise _Refused(None, "more bytes than a package holds", f"at most {MAX_EXTENDED} bytes in a header")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise _Refused(show(member.name), "a link or special file", "regular files only")
        return member


class _Bounded(io.RawIOBase):
    """A stream that refuses after `left` bytes, headers of the archive included."""

    def __init__(self, stream: "pa.NativeFile", remaining: int) -> None:
        self.stream, self.left = stream, remaining

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self.left:
            raise _Refused(None, "more bytes than a package holds", f"at most {MAX_PACKAGE_BYTES} bytes")
        content: bytes = self.stream.read(size)
        self.left -= len(content)
        return content


def _root(folder: Path) -> Path:
    """Folder of `task.yaml`: the top, or the one folder inside it."""
    inside = [entry for entry in folder.iterdir() if not is_system_file(entry.name)]
    if not (folder / TASK_FILE).exists() and len(inside) == 1 and inside[0].is_dir():
        return folder / PurePosixPath(inside[0].name)
    return folder
