"""Upload of a publication: its files are laid out in a folder and written into the version's run."""

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from components.errors import LciaError
from components.registry.differences import model_place
from components.registry.registry import Published, Registry
from components.registry.replay import STATEMENT
from components.storage.objects import FolderRefused, Json, ObjectStore
from components.tuning.progress_curves import curves


class NotSigned(LciaError):
    """A promotion has no signed statement yet, so nothing could load the champion."""


def publish(store: ObjectStore, registry: Registry, payload: Mapping[str, Json]) -> Published:
    """Publish a candidate with the files and curves that the payload names by digest."""
    with tempfile.TemporaryDirectory(prefix="lcia-publish-") as name:
        _lay_out(store, payload, Path(name))
        content = {**payload, "curves": curves(store.get_json(payload["curves"])) if "curves" in payload else {}}
        return registry.publish_candidate(content, Path(name))


def publish_files(
    store: ObjectStore, registry: Registry, payload: Mapping[str, Json], *, packing_alone: bool = False
) -> dict[str, str]:
    """Write a publication's files into its run again, with the model packed anew; returns the packing's digests."""
    with tempfile.TemporaryDirectory(prefix="lcia-publish-") as name:
        _lay_out(store, payload, Path(name))
        return registry.upload_all(payload["digest"], Path(name), packing_alone=packing_alone)


def _lay_out(store: ObjectStore, payload: Mapping[str, Json], folder: Path) -> None:
    for place, digest in payload.get("files", {}).items():
        path = _inside(folder, place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(digest))
    for place, digest in payload.get("folders", {}).items():
        store.get_folder(digest, _inside(folder, place))


def put_statement(store: ObjectStore, registry: Registry, digest: str, statement: str | None) -> None:
    """Write a version's statement, given by its digest, beside the files of its run.

    Raises:
        NotSigned: there is no statement yet.
        RegistryError: MLflow can't be reached.
    """
    if statement is None:
        raise NotSigned(
            f"the promotion of {digest[:12]} is not signed yet, and nobody loads it before; `lcia sync` where the "
            "key is signs it and tells MLflow"
        )
    with tempfile.TemporaryDirectory(prefix="lcia-statement-") as name:
        path = Path(name) / model_place(STATEMENT)
        path.parent.mkdir(parents=True)
        path.write_bytes(store.get(statement))
        registry.upload(digest, Path(name))


def _inside(folder: Path, place: str) -> Path:
    parts = PurePosixPath(place).parts
    if not parts or place.startswith("/") or ".." in parts:
        raise FolderRefused(f"publication names {place!r}, which leaves its folder")
    return folder.joinpath(*parts)
