"""The inbox: packages that sites drop into a folder or a bucket, which of them are complete, where they go once taken.

In a folder a package is complete when `NAME.ready` stands beside it, or when nothing of it has changed for a while. In
a bucket it is one object, a container, which appears whole. What begins with a dot is not looked at. A package that
was taken goes to `done/`, a refused one to `refused/`, each with a report beside it; nothing is deleted.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import fsspec
from fsspec.spec import AbstractFileSystem

from components.errors import LciaError
from components.storage.objects import Json
from components.tasks.containers import kind_of

Place = Literal["done", "refused"]
PLACES: tuple[Place, ...] = ("done", "refused")
READY = ".ready"


class InboxUnusable(LciaError):
    """The inbox can't be read or changed."""


class Inbox(Protocol):
    """Where packages arrive."""

    def complete(self, now: float) -> list[str]:
        """Names of the packages that may be taken, sorted; `now` in seconds since 1970."""

    def opened(self, name: str) -> Any:  # noqa: ANN401 - a context manager of a Path
        """The package as a local path, for as long as it is needed."""

    def put_away(self, name: str, place: Place, report: Mapping[str, Json]) -> str:
        """Move a package out of the way, with a report beside it; returns where it is now."""


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
    return BucketInbox(files, root)


class FolderInbox:
    """A folder that all who send packages can write to."""

    def __init__(self, folder: Path, quiet_seconds: float) -> None:
        self.folder, self.quiet_seconds = folder, quiet_seconds
        if not folder.is_dir():
            raise InboxUnusable(f"inbox.url is {folder}, expected a folder that is there; make it, or change inbox.url")

    def complete(self, now: float) -> list[str]:
        """See `Inbox`. A link, a file, a folder: each is a package; whoever reads it refuses what is none."""
        names = {entry.name for entry in os.scandir(self.folder) if not entry.name.startswith(".")}
        found = []
        for name in sorted(names - set(PLACES)):
            if name.endswith(READY) and name.removesuffix(READY) in names:
                continue
            if f"{name}{READY}" in names or now - self._newest(self.folder / name) >= self.quiet_seconds:
                found.append(name)
        return found

    def _newest(self, path: Path) -> float:
        """When something of a package last changed; copies may keep a date of their source, even one still to come."""
        try:
            inside = [Path(folder) / name for folder, *lists in os.walk(path) for names in lists for name in names]
            stats = [one.lstat() for one in (path, *inside)]
            return max(min(stat.st_mtime, stat.st_ctime) for stat in stats)
        except OSError:  # it vanished meanwhile
            return float("inf")

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        """See `Inbox`."""
        yield self.folder / name

    def put_away(self, name: str, place: Place, report: Mapping[str, Json]) -> str:
        """See `Inbox`."""
        try:
            (self.folder / place).mkdir(exist_ok=True)
            taken = {entry.name for entry in os.scandir(self.folder / place)}
            target = self.folder / place / _free(name, taken)
            (self.folder / name).rename(target)
            target.with_name(f"{target.name}.report.json").write_text(_words(report), encoding="utf-8")
            (self.folder / f"{name}{READY}").unlink(missing_ok=True)
        except OSError as error:
            raise InboxUnusable(f"{name} can't be moved to {self.folder / place}: {error}") from error
        return str(target)


class BucketInbox:
    """A prefix of a bucket; each package is one object."""

    def __init__(self, files: AbstractFileSystem, root: str) -> None:
        self._files, self._root = files, root.rstrip("/")

    def complete(self, now: float) -> list[str]:  # noqa: ARG002 - objects appear whole
        """See `Inbox`."""
        try:
            self._files.invalidate_cache()
            found = self._files.ls(self._root, detail=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InboxUnusable(f"the inbox {self._root} can't be listed: {error}") from error
        names = [PurePosixPath(one["name"]).name for one in found if one["type"] == "file"]
        return sorted(name for name in names if not name.startswith(".") and kind_of(Path(name)))

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        """See `Inbox`."""
        with tempfile.TemporaryDirectory(prefix="lcia-inbox-") as folder:
            path = Path(folder) / name
            try:
                self._files.get_file(f"{self._root}/{name}", str(path))
            except OSError as error:
                raise InboxUnusable(f"{name} can't be read from the inbox {self._root}: {error}") from error
            yield path

    def put_away(self, name: str, place: Place, report: Mapping[str, Json]) -> str:
        """See `Inbox`. The copy is made before the original goes: a crash between leaves both, and nothing is lost."""
        folder = f"{self._root}/{place}"
        try:
            self._files.invalidate_cache()
            taken = {PurePosixPath(path).name for path in self._files.find(folder)}
            target = f"{folder}/{_free(name, taken)}"
            self._files.makedirs(folder, exist_ok=True)
            self._files.copy(f"{self._root}/{name}", target)
            self._files.pipe_file(f"{target}.report.json", _words(report).encode())
            self._files.rm_file(f"{self._root}/{name}")
        except OSError as error:
            raise InboxUnusable(f"{name} can't be moved to {folder}: {error}") from error
        return target


def _free(name: str, taken: set[str]) -> str:
    """`name`, or `name.2` and so on where that is taken."""
    return next(n for n in (name, *(f"{name}.{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def _words(report: Mapping[str, Json]) -> str:
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"
