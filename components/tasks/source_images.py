"""Images of a data set, files beside its rows or bytes in a column, copied to files of the package."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from components.storage.objects import digest_of
from components.tasks.images import MAX_IMAGE_BYTES
from components.tasks.layouts import LayoutRefused
from components.tasks.problems import Problem, path_fault, read_regular, show
from components.tasks.records import Record


@dataclass(frozen=True)
class SourceImages:
    """Copies images of rows into the package, named by the digest of their bytes."""

    source: Path
    folder: Path
    files: set[str] = field(default_factory=set)
    """Names of the files in the package."""

    def copy(self, row: Record) -> Record:
        """Copy a row's images; returns the row with their paths in the package, in `image` and in parts of messages.

        Raises:
            LayoutRefused: no path, no image, or a path that leaves the folder.
        """
        out = {name: self._in_parts(value) if name in TURNS else value for name, value in row.items()}
        for column in ("image", "images"):
            value = out.pop(column, None)
            if value is not None:
                several = isinstance(value, list)
                paths = [self._copy(one) for one in (value if several else [value])]
                out["image"] = paths if several else paths[0]
        return out

    def keep(self, names: Collection[str]) -> None:
        """Remove images from the package that are not among `names`: only rows that were set aside used them."""
        for name in self.files - set(names):
            (self.folder / name).unlink()

    def _in_parts(self, turns: Any) -> Any:  # noqa: ANN401 - whatever stands there is checked later
        if not isinstance(turns, list):
            return turns
        return [
            {**turn, "content": [self._part(part) for part in turn["content"]]}
            if isinstance(turn, dict) and isinstance(turn.get("content"), list)
            else turn
            for turn in turns
        ]

    def _part(self, part: Any) -> Any:  # noqa: ANN401 - as above
        if not isinstance(part, dict) or part.get("type") != "image":
            return part
        fields = {key: value for key, value in part.items() if value is not None}
        return {key: value if key == "type" else self._copy(value) for key, value in fields.items()}

    def _copy(self, value: Any) -> str:  # noqa: ANN401 - a path, or what `datasets` makes of an image
        image = value if isinstance(value, dict) else {"path": value}
        content, name = image.get("bytes"), image.get("path")
        actual, rule = show(name or value), "a path, or the bytes, of a PNG, JPEG or WebP image"
        if content is None and isinstance(name, str):
            actual = path_fault(name) or self._link(name) or actual
            read = read_regular(self.source / name, name, MAX_IMAGE_BYTES) if actual == show(name) else b""
            content, actual = (b"", f"{actual}: {read.seen}") if isinstance(read, Problem) else (read, actual)
        kind = _kind_of_image(content) if isinstance(content, bytes) else None
        if not isinstance(content, bytes) or kind is None:
            raise LayoutRefused("image", actual, rule)
        path = f"images/{digest_of(content)}.{kind}"
        if path not in self.files:
            (self.folder / "images").mkdir(exist_ok=True)
            (self.folder / path).write_bytes(content)
            self.files.add(path)
        return path

    def _link(self, name: str) -> str | None:
        """The fault of a path through a link, which may lead anywhere; None if no folder on the way is one."""
        folders = [self.source / part for part in list(PurePosixPath(name).parents)[:-1]]
        return f"{show(name)}, which goes through a link" if any(folder.is_symlink() for folder in folders) else None


TURNS = ("messages", "conversations", "prompt")
"""Fields that may be lists of messages with parts."""
_MAGIC = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp"}


def _kind_of_image(content: bytes) -> str | None:
    return next((kind for start, kind in _MAGIC.items() if content.startswith(start)), None)
