"""Where ZenML's database says the artifacts of its local store are: elsewhere, in a state that was moved or copied.

Read and corrected with SQL alone: ZenML itself refuses places outside its store. Its database costs dashboards only.
"""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

COLUMNS = (("artifact_version", "uri"), ("artifact_visualization", "uri"), ("logs", "uri"))
"""Where ZenML keeps places of files, by table."""


def stores(home: Path) -> Path:
    """Where ZenML's local stores are, one folder each."""
    return home / "zenml" / "local_stores"


def database(home: Path) -> Path:
    """ZenML's database in the state folder."""
    return stores(home) / "default_zen_store" / "zenml.db"


def moved_from(home: Path) -> str | None:
    """Where ZenML says its local stores are, if that is another folder than the state's."""
    if not database(home).exists():
        return None
    try:
        with _engine(home).connect() as connection:
            return next((old for old, _ in _elsewhere(connection, home)), None)
    except SQLAlchemyError:  # half made, or another release's: who opens it says so
        return None


def correct(home: Path) -> int:
    """Make ZenML's records name this state's stores; returns how many were corrected."""
    if not database(home).exists():
        return 0
    changed = 0
    with _engine(home).begin() as connection:
        for old, store in sorted(set(_elsewhere(connection, home))):
            for table, column in COLUMNS:
                statement = (
                    f"UPDATE {table} SET {column} = :new || substr({column}, :length) "  # noqa: S608 - our names
                    f"WHERE substr({column}, 1, :length - 1) = :old"
                )
                before = f"{old}/{store}/"
                values = {"new": f"{stores(home)}/{store}/", "old": before, "length": len(before) + 1}
                changed += connection.execute(text(statement), values).rowcount
    return changed


def _elsewhere(connection: Connection, home: Path) -> Iterator[tuple[str, str]]:
    """Folder of local stores, and the store's name in it, of every place that is not below the state's own."""
    query = "SELECT id FROM stack_component WHERE type = 'artifact_store' AND flavor = 'local'"
    names = {_dashed(str(row.id)) for row in connection.execute(text(query))}
    here = stores(home).resolve()
    for table, column in COLUMNS:
        places = f"SELECT DISTINCT {column} AS place FROM {table} WHERE {column} LIKE '/%'"  # noqa: S608 - our names
        for row in connection.execute(text(places)):
            for name in names:
                old, found, _ = str(row.place).partition(f"/{name}/")
                if found and Path(old).resolve() != here:
                    yield old, name


def _dashed(identity: str) -> str:
    """ZenML's name of a store's folder; its database writes the same without dashes."""
    plain = identity.replace("-", "")
    return "-".join((plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:]))


def _engine(home: Path) -> Engine:
    return create_engine(URL.create("sqlite", database=str(database(home))), poolclass=NullPool)
