"""A state database that is empty beside what it decided: lost or emptied, so that nobody goes on from nothing."""

from components.audit import heads, log
from components.errors import LciaError
from components.promotion import registry_places
from components.settings import Settings
from components.storage.database import Database
from components.storage.objects import ObjectStore
from components.storage.sqlite import sqlite_file


class DatabaseLost(LciaError):
    """The database holds nothing, and what stands beside it says that it did."""


def need_database(db: Database, settings: Settings, store: ObjectStore) -> None:
    """Refuse an empty database beside traces of an earlier one; nothing is made or changed.

    Raises:
        DatabaseLost: it says what was seen.
    """
    if not is_empty(db, settings.storage.database):
        return
    seen = traces(settings, store)
    if seen:
        raise DatabaseLost(
            f"the database {db.url} is empty, and there is {'; '.join(seen)}: the database is lost or emptied. Restore "
            "it from a backup; nothing was changed. For a new assistant name another state folder (LCIA_HOME)"
        )


def is_empty(db: Database, url: str) -> bool:
    """True if a database is not there, has no tables or no entry in its log; it is not made by asking."""
    file = sqlite_file(url)
    if file is not None and (not file.exists() or file.stat().st_size == 0):
        return True
    if db.revisions()[0] is None:
        return True
    with db.read() as connection:
        return log.count(connection) == 0


def traces(settings: Settings, store: ObjectStore) -> list[str]:
    """Sentences on what only a state with versions leaves; a server of MLflow is not asked."""
    seen = [f"a signed head of its log ({name})" for name, _ in heads.newest_kept(settings.audit.heads_to)]
    version = next((file.name for file in store.objects() if _is_version(store, file.name)), None)
    seen += [f"a version in {store.url} ({version[:12]})"] if version else []
    registry = settings.registry
    if registry_places.has_alias(registry.tracking_uri, settings.assistant):
        seen.append(f"a champion of {settings.assistant} in {registry.tracking_uri}")
    return seen


def _is_version(store: ObjectStore, digest: str) -> bool:
    """True for a pool's manifest, whose canonical form has this key first."""
    if not store.begins(digest, b'{"assistant":'):
        return False
    try:
        value = store.get_json(digest)
    except LciaError:  # damaged; the others speak
        return False
    return isinstance(value, dict) and value.get("kind") == "pool"
