"""Checked copies of versions on a machine that has neither the database nor the object store.

Every file is fetched by its digest and checked against it at each reading, so neither the network nor somebody at the
folder can change what is served. What was last decided is kept beside them, with its signed statement, which is checked
again at every start.
"""

import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from components.errors import LciaError
from components.serving import bundle
from components.serving.bundle import Bundle, BundleRefused
from components.storage.objects import (
    FolderRefused,
    ObjectCorrupt,
    ObjectMissing,
    ObjectStore,
    canonical,
    digest_of,
    parse_json,
    write_durably,
)

Fetch = Callable[[str, str], bytes]
"""Bytes of a version's part: the version's digest, the part's digest."""


class Copies:
    """Folder of copies: `objects` by digest, `adapters/<digest>` as engines read them, `decided.json`."""

    def __init__(self, folder: Path, fetch: Fetch) -> None:
        self._folder, self._fetch = folder, fetch
        self._store = ObjectStore(f"file://{folder.absolute()}/objects")

    def bundle(self, version: str) -> Bundle:
        """A version, complete and checked; what is absent or damaged is fetched.

        Raises:
            BundleRefused: the other side sent other bytes.
            LciaError: the other side does not answer, and something is absent.
        """
        self._need(version, version)
        contents = bundle.parts(self._store, version)
        for digest in contents.files.values():
            self._need(version, digest)
        for digest in contents.folders.values():
            self._need(version, digest)
            for file in self._store.folder_files(digest).values():
                self._need(version, file)
        return bundle.from_store(self._store, version)

    def adapter(self, digest: str) -> Path:
        """Folder of an adapter of a version that `bundle` gave, checked; written anew if it was altered."""
        folder = self._folder / "adapters" / digest
        with suppress(FolderRefused):
            return self._store.get_folder(digest, folder)
        shutil.rmtree(folder)
        return self._store.get_folder(digest, folder)

    def last(self) -> dict[str, Any] | None:
        """The decision that `keep` was given last; None if there is nothing that can be read."""
        try:
            value = parse_json((self._folder / "decided.json").read_bytes())
        except (OSError, LciaError):
            return None
        return value if isinstance(value, dict) else None

    def keep(self, decision: dict[str, Any]) -> None:
        """Write down what was decided, for a start without the service."""
        content = canonical(decision)
        path = self._folder / "decided.json"
        if not path.exists() or path.read_bytes() != content:
            write_durably(path, content)
            path.chmod(0o600)

    def forget_all_but(self, versions: Collection[str]) -> None:
        """Delete the parts of all other versions, adapters too."""
        digests: set[str] = set()
        adapters: set[str] = set()
        for version in versions:
            adapters |= set(bundle.parts(self._store, version).folders.values())
            digests |= bundle.digests(self._store, version)
        for folder in (self._folder / "adapters").glob("*"):
            if folder.name not in adapters and self._store.exists(folder.name):  # an engine may keep folders of its own
                shutil.rmtree(folder, ignore_errors=True)
        for file in list(self._store.objects()):
            if file.name not in digests:
                self._store.erase(file.name, None)

    def _need(self, version: str, digest: str) -> None:
        """Have a part here, fetched if it is absent or damaged."""
        try:
            self._store.get(digest)
        except (ObjectMissing, ObjectCorrupt):
            content = self._fetch(version, digest)
            if digest_of(content) != digest:
                raise BundleRefused(
                    f"a part of version {version[:12]} came with digest {digest_of(content)[:12]}, expected "
                    f"{digest[:12]}: it was altered on its way or where it is kept; it is not used"
                ) from None
            self._store.put(content)
