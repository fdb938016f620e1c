"""A version as a folder that needs neither database nor store: manifest, task headers, plain PEFT adapters.

    manifest.json            the pool manifest; its sha256 is the version
    settings.json            the settings the version was made under; the manifest names their digest
    statement.json           signed statement of its promotion; absent if it was never champion
    tasks/<digest>.json      header of each task (decoding contract, choices), without any row
    adapters/<group>/        adapter_config.json, adapter_model.safetensors, base_model.json

Every file is named, directly or through the manifest, by its own digest, so the version's digest alone vouches
for the whole folder, and the statement for the digest. The base model's folder differs by machine: an exported
adapter_config.json names the place, for PEFT loads from there, and the digest holds with the base model's digest put
back. base_model.json says both. Folders without that file, of MLflow and of older releases, hold the digest alone.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.audit import statement
from components.audit.keys import read_public_key
from components.audit.statement import FILE, Statement, StatementRefused
from components.errors import LciaError
from components.grouping.pool import Group, Pool
from components.settings import Settings, stored_settings
from components.storage.objects import NotCanonical, ObjectStore, canonical, digest_of, parse_json
from components.tasks.snapshot import header, load_snapshot
from components.tasks.task_file import Task

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST, SETTINGS = "manifest.json", "settings.json"
BASE = "base_model.json"


class BundleRefused(LciaError):
    """A folder that is not the version it should be, or no version at all."""


@dataclass(frozen=True)
class Parts:
    """Contents of a bundle: places in its folder, and the digests of the files and folders that go there."""

    files: dict[str, str]
    folders: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """A verified version: `adapters` maps group ids to tensors, `tasks` task digests to their headers."""

    version: str
    pool: Pool
    settings: Settings
    tasks: Mapping[str, Task]
    adapters: Mapping[str, Mapping[str, "Tensor"]]


def parts(store: ObjectStore, version: str) -> Parts:
    """Places of a version's objects in its folder."""
    pool = Pool.from_manifest(store.get_json(version))
    files = {MANIFEST: version, SETTINGS: str(pool.config)}
    files |= {f"tasks/{entry.task}.json": entry.task for entry in pool.tasks()}
    return Parts(files, {f"adapters/{group.id}": group.adapter for group in pool.groups})


def digests(store: ObjectStore, version: str) -> frozenset[str]:
    """Every object of a version's bundle: its files, the folder objects and the files in them.

    Raises:
        ObjectMissing, ObjectCorrupt: the manifest or a folder object is gone or was altered.
    """
    contents = parts(store, version)
    inner = (digest for folder in contents.folders.values() for digest in store.folder_files(folder).values())
    return frozenset({*contents.files.values(), *contents.folders.values(), *inner})


def write(store: ObjectStore, version: str, folder: Path, models: Path | None = None) -> None:
    """Write a version's bundle into an empty or absent `folder`.

    `models` is this machine's folder of the converted embedded model; default: that of the version's settings.

    Raises:
        BundleRefused: the folder holds something.
        ObjectMissing, ObjectCorrupt: an object of the version is gone or was altered.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleRefused(f"{folder} is there already and is not an empty folder; name a new one")
    contents = parts(store, version)
    for place, digest in contents.files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(digest))
    pool = Pool.from_manifest(store.get_json(version))
    settings = stored_settings(store.get_json(str(pool.config)))
    for place, digest in contents.folders.items():
        store.get_folder(digest, folder / place)
        _name_base(folder / place, pool.base_model, settings, models or Path(settings.storage.models))


def read(folder: Path, version: str | None = None) -> Bundle:
    """Read a bundle and check every file against its digest.

    `version` is the digest it must have; without it the folder is only checked to be consistent in itself.

    Raises:
        BundleRefused: a file is absent, was altered, or belongs to another version.
    """
    manifest, digest = _json(folder, MANIFEST)
    if version is not None and digest != version:
        raise BundleRefused(
            f"{folder} holds version {digest[:12]}, expected {version[:12]}; it was altered, or it is another version"
        )
    pool = Pool.from_manifest(manifest)
    settings = stored_settings(_json(folder, SETTINGS, pool.config)[0])
    tasks = {e.task: header(e.task, _json(folder, f"tasks/{e.task}.json", e.task)[0]) for e in pool.tasks()}
    adapters = {group.id: _adapter(folder, group, pool.base_model, settings) for group in pool.groups}
    return Bundle(digest, pool, settings, tasks, adapters)


def from_store(store: ObjectStore, version: str) -> Bundle:
    """The same from the object store, without any folder; an adapter is read when it is needed."""
    pool = Pool.from_manifest(store.get_json(version))
    settings = stored_settings(store.get_json(str(pool.config)))
    tasks = {entry.task: load_snapshot(store, entry.task).task for entry in pool.tasks()}
    return Bundle(version, pool, settings, tasks, _Stored(store, {group.id: group.adapter for group in pool.groups}))


def need_statement(folder: Path, version: str, public_key: str | None) -> Statement:
    """The checked statement of a version's promotion; `public_key` is a PEM file, see `statement.read`.

    Raises:
        StatementRefused: there is none that holds.
        KeyUnusable: the PEM file can't be read.
    """
    if not (folder / FILE).is_file():
        raise StatementRefused(
            f"version {version[:12]} has no signed statement of a promotion ({FILE}); load the champion, or a "
            'candidate with model_config={"candidate": True}'
        )
    key = read_public_key(Path(public_key)) if public_key else None
    return statement.read(_bytes(folder, FILE), key, version)


class _Stored(Mapping[str, Mapping[str, "Tensor"]]):
    """Adapters by group id, fetched and checked when needed: one answer needs one of them."""

    def __init__(self, store: ObjectStore, digests: Mapping[str, str]) -> None:
        self._store, self._digests = store, digests

    def __getitem__(self, group: str) -> Mapping[str, "Tensor"]:
        from components.model.adapters import fetch_adapter

        return fetch_adapter(self._store, self._digests[group])

    def __iter__(self) -> Iterator[str]:
        return iter(self._digests)

    def __len__(self) -> int:
        return len(self._digests)


def _name_base(adapter: Path, base_model: str, settings: Settings, models: Path) -> None:
    """Let an adapter's folder say where its base model lies."""
    from components.model.adapters import CONFIG, config_bytes
    from components.model.base import location

    name, revision = location(settings.base_model, base_model, models)
    config = json.loads((adapter / CONFIG).read_bytes())
    (adapter / CONFIG).write_bytes(config_bytes({**config, "base_model_name_or_path": name, "revision": revision}))
    (adapter / BASE).write_bytes(canonical({"name": name, "revision": revision, "sha256": base_model}))


def _adapter(folder: Path, group: Group, base_model: str, settings: Settings) -> dict[str, "Tensor"]:
    from components.model.adapters import CONFIG, WEIGHTS, digest_of_files, read_weights

    place = f"adapters/{group.id}"
    names = {name: _bytes(folder, f"{place}/{name}") for name in (CONFIG, WEIGHTS)}
    if (folder / place / BASE).exists():
        names[CONFIG] = _with_digest(names[CONFIG], _json(folder, f"{place}/{BASE}")[0], base_model, settings)
    digest = digest_of_files(names)
    if digest != group.adapter:
        raise BundleRefused(
            f"the adapter of group {group.id} in {folder} has digest {digest[:12]}, the manifest says "
            f"{group.adapter[:12]}: its files were altered; export the version again"
        )
    return read_weights(names[WEIGHTS])


def _with_digest(config: bytes, base: Any, base_model: str, settings: Settings) -> bytes:  # noqa: ANN401 - any JSON
    """An adapter's configuration as it is stored, if it names the place that `base` and the settings allow."""
    from components.model.adapters import DIGEST, config_bytes

    try:
        content = json.loads(config)
        name, revision = content["base_model_name_or_path"], content["revision"]
        local = revision is None and Path(name).is_absolute()
        right = base == {"name": name, "revision": revision, "sha256": base_model}
    except (ValueError, KeyError, TypeError) as error:
        raise BundleRefused(f"an adapter_config.json is not the one that was exported: {error!r}") from error
    if not right or not (local or (name, revision) == (settings.base_model.name, settings.base_model.revision)):
        raise BundleRefused(
            f"an adapter names base model {name!r}, revision {revision}, and {BASE} beside it names {base}; expected "
            f"one place of {settings.base_model.name} ({base_model[:12]}): it was altered; export the version again"
        )
    return config_bytes({**content, "base_model_name_or_path": DIGEST + base_model, "revision": None})


def _json(folder: Path, place: str, digest: str | None = None) -> tuple[Any, str]:
    data = _bytes(folder, place)
    own = digest_of(data)
    if digest is not None and own != digest:
        raise BundleRefused(
            f"{folder / place} has digest {own[:12]}, the manifest says {digest[:12]}: it was altered; export the "
            "version again"
        )
    try:
        return parse_json(data), own
    except NotCanonical as error:
        raise BundleRefused(f"{folder / place} is not the JSON that was exported: {error}") from error


def _bytes(folder: Path, place: str) -> bytes:
    path = folder / place
    if path.is_symlink() or not path.is_file():
        raise BundleRefused(f"{folder} has no file {place}; it is no exported version, or an incomplete one")
    return path.read_bytes()
