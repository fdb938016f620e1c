"""Paths of artifacts in ZenML's database, which point elsewhere after a state was moved or copied.

Read and corrected with SQL alone: ZenML itself refuses places outside its store. Its database costs dashboards only.
"""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

COLUMNS = (("artifact_version", "uri"), ("artifact_visualization", "uri"), ("logs", "uri"))
"""Columns with paths of files, by table of ZenML."""


def stores(home: Path) -> Path:
    """Folder of ZenML's local stores, one folder each."""
    return home / "zenml" / "local_stores"


def database(home: Path) -> Path:
    """ZenML's database in the state folder."""
    return stores(home) / "default_zen_store" / "zenml.db"


def moved_from(home: Path) -> str | None:
    """Folder of the local stores by ZenML's records, if it is another than the state's."""
    if not database(home).exists():
        return None
    try:
        with _engine(home).connect() as connection:
            return next((old for old, _ in _elsewhere(connection, home)), None)
    except SQLAlchemyError:  # half made, or of another release: whatever opens it says so
        return None


def correct(home: Path) -> int:
    """Make ZenML's records name this state's stores; returns how many were corrected."""
    if not database(home).exists():
        return 0
    count = 0
    with _engine(home).begin() as connection:
        for old, store in sorted(set(_elsewhere(connection, home))):
            for table, column in COLUMNS:
                statement = (
                    f"UPDATE {table} SET {column} = :new || substr({column}, :length) "  # noqa: S608 - our names
                    f"WHERE substr({column}, 1, :length - 1) = :old"
                )
                before = f"{old}/{store}/"
                values = {"new": f"{stores(home)}/{store}/", "old": before, "length": len(before) + 1}
                count += connection.execute(text(statement), values).rowcount
    return count


def _elsewhere(connection: Connection, home: Path) -> Iterator[tuple[str, str]]:
    """Folder of local stores, and the store's name in it, of every place that is not below the state's own."""
    query = "SELECT id FROM stack_component WHERE type = 'artifact_store' AND flavor = 'local'"
    names = {_with_dashes(str(row.id)) for row in connection.execute(text(query))}
    here = stores(home).resolve()
    for table, column in COLUMNS:
        places = f"SELECT DISTINCT {column} AS place FROM {table} WHERE {column} LIKE '/%'"  # noqa: S608 - our names
        for row in connection.execute(text(places)):
            for name in names:
                old, separator, _ = str(row.place).partition(f"/{name}/")
                if separator and Path(old).resolve() != here:
                    yield old, name


def _with_dashes(identity: str) -> str:
    """ZenML's name of a store's folder; its database writes the same without dashes."""
    plain = identity.replace("-", "")
    return "-".join((plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:]))


def _engine(home: Path) -> Engine:
    return create_engine(URL.create("sqlite", database=str(database(home))), poolclass=NullPool)
