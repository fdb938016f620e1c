"""The inbox: a folder or a bucket into which sites drop packages, and from which the worker takes them.

In a folder a package is complete when `NAME.ready` stands beside it, or when nothing in it has changed for a while. In
a bucket a package is one object, a container, which appears whole. Names that begin with a dot are ignored. The worker
moves a submitted package to `done/` and a refused one to `refused/`, each with a report beside it; it deletes nothing.

Senders may put anything into a folder, and exchange it at any moment. So files are opened by descriptors and never
through a link, a package is copied to a folder of our own before anything reads it, and results go only to folders that
are ours.
"""

import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from components.errors import LciaError
from components.storage.objects import Json
from components.tasks.containers import kind_of
from components.tasks.images import is_image
from components.tasks.package import MAX_ENTRIES, MAX_IMAGES_BYTES, MAX_PACKAGE_BYTES
from components.tasks.problems import MAX_FILE_BYTES, PackageError, Problem, show

Outcome = Literal["done", "refused"]
OUTCOMES: tuple[Outcome, ...] = ("done", "refused")
"""Folders of the inbox that packages go to once they are dealt with."""
READY = ".ready"
"""Ending of the marker that declares a package complete."""
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ENTRY_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""`O_NONBLOCK`: opening a named pipe would wait for a writer for ever."""
CHUNK = 1024 * 1024
DEEPEST = 16
"""Most folders inside each other."""
GONE = float("inf")
"""Time of change of a package that has vanished."""


class InboxUnusable(LciaError):
    """The inbox can't be read or changed."""


class StillWritten(LciaError):
    """A package changed while it was copied; the next look at the inbox takes it."""


class Inbox(Protocol):
    """Packages that wait to be submitted."""

    def complete(self, now: float) -> list[str]:
        """Names of the packages that may be taken, sorted; `now` in seconds since 1970."""

    def copy_of(self, name: str, scratch: Path) -> Any:  # noqa: ANN401 - a context manager of a Path
        """A copy of the package below `scratch` while the block runs; nobody else can change it.

        Raises:
            PackageError: it holds something that no package may hold.
            StillWritten: it changed during the copy.
        """

    def put_away(self, name: str, outcome: Outcome, report: Mapping[str, Json]) -> str:
        """Move a package to the folder of its outcome, with a report beside it; returns its new path."""


def open_inbox(url: str, quiet_seconds: float) -> Inbox:
    """The inbox at a path or an fsspec URL.

    Raises:
        InboxUnusable: there is no such folder, or no support for such a URL.
    """
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return FolderInbox(Path(parts.path if parts.scheme else url).expanduser(), quiet_seconds)
    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise InboxUnusable(f"inbox.url {url!r} can't be opened ({error}); install its fsspec package") from error
    if isinstance(files, LocalFileSystem):
        return FolderInbox(Path(root), quiet_seconds)
    return BucketInbox(files, root)


class FolderInbox:
    """A folder that the senders of packages can write to."""

    def __init__(self, folder: Path, quiet_seconds: float) -> None:
        self.folder, self.quiet_seconds = folder, quiet_seconds
        if not folder.is_dir():
            raise InboxUnusable(f"inbox.url is {folder}, expected a folder that is there; make it, or change inbox.url")

    def complete(self, now: float) -> list[str]:
        """See `Inbox`. A link, a file, a folder: each counts as a package; `copy_of` refuses what is none."""
        with self._open() as root:
            names = {name for name in _names(root) if not name.startswith(".")}
            waiting = [name for name in sorted(names - set(OUTCOMES)) if not _is_marker(name, names)]
            return [
                name for name in waiting if f"{name}{READY}" in names or now - _newest(root, name) >= self.quiet_seconds
            ]

    @contextmanager
    def copy_of(self, name: str, scratch: Path) -> Iterator[Path]:
        """See `Inbox`."""
        scratch.mkdir(parents=True, exist_ok=True)
        with self._open() as root, tempfile.TemporaryDirectory(dir=scratch, prefix="inbox-") as folder:
            before, copy = _newest(root, name), _Copy(name)
            copy.entry(root, name, Path(folder), PurePosixPath())
            if _newest(root, name) != before or before == GONE:
                raise StillWritten(f"{name} in {self.folder} changed while it was copied; it is taken the next time")
            yield Path(folder) / name

    def put_away(self, name: str, outcome: Outcome, report: Mapping[str, Json]) -> str:
        """See `Inbox`."""
        try:
            with self._open() as root, self._own(root, outcome) as results:
                target = _free(name, _names(results))
                try:
                    os.rename(name, target, src_dir_fd=root, dst_dir_fd=results)
                    put = self.folder / outcome / target
                except PermissionError:  # a folder of another account may not be moved into another folder
                    put = self.folder / _free(f".{outcome}-{target}", _names(root))
                    os.rename(name, put.name, src_dir_fd=root, dst_dir_fd=root)
                    report = {**report, "left_in_inbox_as": put.name}
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(
                    os.open(f"{target}{REPORT}", flags, 0o644, dir_fd=results), "w", encoding="utf-8"
                ) as out:
                    out.write(_words(report))
                with suppress(FileNotFoundError):
                    os.unlink(f"{name}{READY}", dir_fd=root)
        except OSError as error:
            raise InboxUnusable(f"{name} can't be moved to {self.folder / outcome}: {error}") from error
        return str(put)

    @contextmanager
    def _open(self) -> Iterator[int]:
        try:
            root = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InboxUnusable(f"the inbox {self.folder} can't be read: {error}") from error
        try:
            yield root
        finally:
            os.close(root)

    @contextmanager
    def _own(self, root: int, outcome: Outcome) -> Iterator[int]:
        """The folder for results: made by us and changed by nobody else, or nothing is written there."""
        with suppress(FileExistsError):
            os.mkdir(outcome, 0o755, dir_fd=root)
        try:
            results = os.open(outcome, FOLDER_FLAGS, dir_fd=root)
        except OSError as error:
            actual = (
                "a link" if stat.S_ISLNK(os.stat(outcome, dir_fd=root, follow_symlinks=False).st_mode) else str(error)
            )
            raise self._strange(outcome, actual) from error
        try:
            status = os.fstat(results)
            if status.st_uid != os.geteuid():
                raise self._strange(outcome, f"a folder of another account (uid {status.st_uid})")
            if status.st_mode & 0o022:
                os.fchmod(results, stat.S_IMODE(status.st_mode) & ~0o022)
            yield results
        finally:
            os.close(results)

    def _strange(self, outcome: str, actual: str) -> InboxUnusable:
        return InboxUnusable(
            f"{self.folder / outcome} is {actual}, expected a folder that this account (uid {os.geteuid()}) made: "
            "somebody else put it there, so no result is written to it. Look what it is and move it away; the worker "
            f"makes it anew. `chmod +t {self.folder}` keeps those who send packages from exchanging what is not theirs"
        )


class BucketInbox:
    """A prefix of a bucket; each package is one object."""

    def __init__(self, files: AbstractFileSystem, root: str) -> None:
        self._files, self._root = files, root.rstrip("/")

    def complete(self, now: float) -> list[str]:  # noqa: ARG002 - objects appear whole
        """See `Inbox`."""
        try:
            self._files.invalidate_cache()
            entries = self._files.ls(self._root, detail=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InboxUnusable(f"the inbox {self._root} can't be listed: {error}") from error
        names = [PurePosixPath(one["name"]).name for one in entries if one["type"] == "file"]
        return sorted(name for name in names if not name.startswith(".") and kind_of(Path(name)))

    @contextmanager
    def copy_of(self, name: str, scratch: Path) -> Iterator[Path]:
        """See `Inbox`."""
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=scratch, prefix="inbox-") as folder:
            path, size = Path(folder) / name, 0
            try:
                with self._files.open(f"{self._root}/{name}", "rb") as content, path.open("xb") as copy:
                    while piece := content.read(CHUNK):
                        size += len(piece)
                        if size > MAX_FILE_BYTES:
                            actual = f"more than {MAX_FILE_BYTES} bytes"
                            raise PackageError(name, [Problem(name, None, None, actual, "a smaller package")])
                        copy.write(piece)
            except OSError as error:
                raise InboxUnusable(f"{name} can't be read from the inbox {self._root}: {error}") from error
            yield path

    def put_away(self, name: str, outcome: Outcome, report: Mapping[str, Json]) -> str:
        """See `Inbox`. The copy is made before the original goes: a crash between leaves both, and nothing is lost."""
        folder = f"{self._root}/{outcome}"
        try:
            self._files.invalidate_cache()
            names = {PurePosixPath(path).name for path in self._files.find(folder)}
            target = f"{folder}/{_free(name, names)}"
            self._files.makedirs(folder, exist_ok=True)
            self._files.copy(f"{self._root}/{name}", target)
            self._files.pipe_file(f"{target}{REPORT}", _words(report).encode())
            self._files.rm_file(f"{self._root}/{name}")
        except OSError as error:
            raise InboxUnusable(f"{name} can't be moved to {folder}: {error}") from error
        return target


REPORT = ".report.json"


class _Copy:
    """Copy of a package out of a folder that others write to: by descriptors, through no link, within limits."""

    def __init__(self, package: str) -> None:
        self.package = package
        self._entries, self._left = MAX_ENTRIES, {False: MAX_PACKAGE_BYTES, True: MAX_IMAGES_BYTES}  # of images: True

    def entry(self, parent: int, name: str, target: Path, inside: PurePosixPath) -> None:
        """Copy a file or folder of the open folder `parent` below `target`."""
        self._entries -= 1
        if self._entries < 0 or len(inside.parts) > DEEPEST:
            actual = f"more than {MAX_ENTRIES} files and folders, or more than {DEEPEST} inside each other"
            raise self._refusal(inside / name, actual, "a smaller package")
        try:
            handle = os.open(name, ENTRY_FLAGS, dir_fd=parent)
        except OSError as error:
            raise self._unreadable(parent, name, inside, error) from error
        try:
            status = os.fstat(handle)
            if stat.S_ISDIR(status.st_mode):
                (target / name).mkdir(mode=0o700)
                for inner in sorted(_names(handle)):
                    self.entry(handle, inner, target / name, inside / name)
            elif stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                self._file(handle, target / name, inside / name)
            else:
                actual = "a file of several names (hard links)" if stat.S_ISREG(status.st_mode) else "no regular file"
                raise self._refusal(inside / name, actual, "regular files with plain names")
        finally:
            os.close(handle)

    def _file(self, handle: int, target: Path, name: PurePosixPath) -> None:
        image, remaining = is_image(str(name)), MAX_FILE_BYTES
        with target.open("xb") as copy:
            while piece := os.read(handle, CHUNK):
                remaining -= len(piece)
                self._left[image] -= len(piece)
                if min(remaining, self._left[image]) < 0:
                    raise self._refusal(name, "more bytes than a package holds", "a smaller package")
                copy.write(piece)

    def _unreadable(self, parent: int, name: str, inside: PurePosixPath, error: OSError) -> PackageError:
        try:
            link = stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except OSError:
            link = False
        actual = "a link" if link else error.strerror or str(error)
        return self._refusal(inside / name, actual, "regular files with plain names")

    def _refusal(self, name: PurePosixPath, actual: str, rule: str) -> PackageError:
        inner = PurePosixPath(*name.parts[1:]) if len(name.parts) > 1 else name
        return PackageError(self.package, [Problem(show(str(inner)), None, None, actual, rule)])


def _names(folder: int) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _is_marker(name: str, names: set[str]) -> bool:
    return name.endswith(READY) and name.removesuffix(READY) in names


def _newest(root: int, name: str) -> float:
    """Time of the last change in a package, in seconds since 1970.

    Of both times of a file the earlier one counts: a copy may keep its source's date, even one in the future.
    """
    try:
        stats = [os.stat(name, dir_fd=root, follow_symlinks=False)]
        if stat.S_ISDIR(stats[0].st_mode):
            for _, folders, files, at in os.fwalk(name, dir_fd=root, follow_symlinks=False):
                stats += [os.stat(inner, dir_fd=at, follow_symlinks=False) for inner in (*folders, *files)]
                if len(stats) > MAX_ENTRIES:  # enough: `copy_of` refuses it
                    break
        return max(min(status.st_mtime, status.st_ctime) for status in stats)
    except OSError:  # somebody removed it since it was listed
        return GONE


def _free(name: str, entries: set[str]) -> str:
    """`name`, or `name.2` and so on if that name or its report exists already."""
    names = (name, *(f"{name}.{i}" for i in range(2, len(entries) + 3)))
    return next(n for n in names if not {n, f"{n}{REPORT}"} & entries)


def _words(report: Mapping[str, Json]) -> str:
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"
