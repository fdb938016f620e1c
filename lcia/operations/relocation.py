"""A state that was moved or copied: noticed by what MLflow's and ZenML's records say, and mended by `lcia sync`.

Folders of it that are links to other places are no part of it: a copy would share them with the original.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.audit import log
from components.audit.log import Actor, append
from components.registry import locations
from components.registry.locations import StateMoved
from components.settings import Settings
from components.storage.fence import OutsideRoot, local_path, need_inside
from components.storage.sqlite import sqlite_file
from infra import zenml_places
from lcia.instance import DatabaseLost, Instance


def former_place(instance: Instance) -> str | None:
    """Place of this state's files by MLflow's or ZenML's records, if that is elsewhere; read without either of them."""
    return mlflow_moved(instance) or zenml_places.moved_from(instance.home)


def mlflow_moved(instance: Instance) -> str | None:
    """Place of the files by MLflow's own database, if that is elsewhere: then it serves those, or nothing."""
    registry = instance.settings.registry
    location = locations.recorded_place(registry.tracking_uri, registry.experiment)
    return locations.moved_from(location, registry.artifacts)


def mlflow_empty(instance: Instance) -> bool:
    """True if an SQLite file of MLflow's is gone, or serves no version: read without MLflow; a server is not asked."""
    registry = instance.settings.registry
    own = locations.own_file(registry.tracking_uri) is not None
    return own and not locations.has_alias(registry.tracking_uri, instance.assistant)


def links(home: Path, settings: Settings) -> list[str]:
    """Sentences on the files and folders of this state that a link leads out of its folder; see `need_inside`."""
    sentences = []
    for path, key in _roots(home, settings):
        try:
            need_inside(path, home, key)
        except OutsideRoot as error:
            sentences.append(str(error))
    return sentences


def need_no_links(instance: Instance) -> None:
    """Refuse to change files that another state may keep for its own.

    Raises:
        OutsideRoot: a link leads out of the state folder; nothing was changed.
    """
    sentences = links(instance.home, instance.settings)
    if sentences:
        raise OutsideRoot(f"{'; '.join(sentences)}. Nothing was changed")


def _roots(home: Path, settings: Settings) -> Iterator[tuple[str, str]]:
    """Files and folders that a state changes, each with the setting that names it; '' where none does."""
    storage, registry = settings.storage, settings.registry
    databases = ((storage.database, "storage.database"), (registry.tracking_uri, "registry.tracking_uri"))
    for url, key in databases:
        file = sqlite_file(url)
        yield from [(str(file), key)] if file else []
    yield registry.artifacts, "registry.artifacts"
    yield from _with_parts(storage.objects, "storage.objects")
    yield from _with_parts(str(zenml_places.stores(home)), "")
    yield str(home / "quarantine"), ""


def _with_parts(root: str, key: str) -> Iterator[tuple[str, str]]:
    """A root and, where that is no link itself, the folders in it."""
    yield root, key
    top = local_path(root)
    if top is not None and top.is_dir() and not top.is_symlink():
        yield from ((str(path), "") for path in sorted(top.iterdir()) if path.is_symlink())


def need_here(instance: Instance) -> None:
    """Refuse to erase while records name the files of another place: those are another state's, or gone.

    Raises:
        OutsideRoot: a link leads out of the state folder; nothing was changed.
        StateMoved: they do; nothing was changed.
        RegistryError: MLflow can't be reached, so nobody knows.
    """
    need_no_links(instance)
    old = former_place(instance)
    if old is not None:
        raise StateMoved(
            f"the records of MLflow or ZenML say that the files of this state are at {old}, but it is in "
            f"{instance.home}: it was moved or copied. Nothing was changed; `lcia sync` corrects the records, then "
            "run this again"
        )


def need_decisions(instance: Instance) -> None:
    """Refuse to bring MLflow to what a state says that has not said anything: the alias would be taken away.

    Raises:
        DatabaseLost: MLflow serves a champion, and the log is empty.
        RegistryError: MLflow can't be reached.
    """
    with instance.db.read() as connection:
        entries = log.count(connection)
    digest = None if entries else instance.registry.champion()
    if digest is not None:
        raise DatabaseLost(
            f"MLflow serves {digest[:12] or 'a version'} as the champion of {instance.assistant}, and the log of the "
            f"database {instance.db.url} is empty: the database is lost or emptied, or another one than before. "
            "Restore it from a backup, or name another assistant; nothing was changed"
        )


def mend(instance: Instance, actor: Actor) -> list[dict[str, Any]]:
    """Make the records of MLflow and ZenML name this state's own files; what was corrected, which the log keeps.

    Raises:
        OutsideRoot: a link leads out of the state folder; nothing was changed.
        DatabaseLost: MLflow serves a champion, and this state has decided nothing yet.
        StateMoved: MLflow's records are not this state's alone.
        RegistryError: MLflow can't be reached.
    """
    need_no_links(instance)
    need_decisions(instance)
    registry, corrections = instance.settings.registry, []
    location = (
        locations.recorded_place(registry.tracking_uri, registry.experiment) or instance.registry.recorded_place()
    )
    old = locations.moved_from(location, registry.artifacts)
    if old is not None:
        count = locations.correct(registry.tracking_uri, instance.home, old, registry.artifacts)
        corrections.append({"records": "MLflow", "from": old, "to": registry.artifacts, "corrected": count})
    before = zenml_places.moved_from(instance.home)
    if before is not None:
        to = str(zenml_places.stores(instance.home))
        corrections.append(
            {"records": "ZenML", "from": before, "to": to, "corrected": zenml_places.correct(instance.home)}
        )
    if corrections:
        with instance.promoter.begin() as connection:
            append(connection, "registry.moved", actor, instance.assistant, {"records": corrections})
    return corrections
