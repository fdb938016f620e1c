"""Locations of files in MLflow's database, which are wrong in a state that was moved or copied.

MLflow keeps absolute locations. After a move they name files that are gone; in a copy they name the original's files.
They are corrected only in a database that belongs to this state alone; any other one may serve somebody else, too.
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from components.errors import LciaError
from components.registry import limits
from components.registry.files import SERVED, artifact_location
from components.storage.fence import lies_below, local_path

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}
"""Table -> columns in which MLflow keeps locations of files."""


class PlaceTooLong(LciaError):
    """The location of a run's files is too long for MLflow's database."""


class StateMoved(LciaError):
    """MLflow's or ZenML's records name files elsewhere than in this state."""


def moved_from(location: str | None, root: str) -> str | None:
    """The recorded location of an experiment's files if it is not at or below `root`; else None."""
    if location is None or root.startswith(SERVED) or lies_below(location, root):
        return None
    return location


def recorded_place(tracking_uri: str, experiment: str) -> str | None:
    """Location of an experiment's files by MLflow's SQLite file, read without MLflow; None for other stores."""
    return _query(tracking_uri, "SELECT artifact_location FROM experiments WHERE name = :name", experiment)


def has_alias(tracking_uri: str, model: str) -> bool:
    """True if the alias `champion` of the model is set in MLflow's SQLite file, read without MLflow."""
    query = "SELECT name FROM registered_model_aliases WHERE name = :name AND alias = 'champion'"
    return _query(tracking_uri, query, model) is not None


def _query(tracking_uri: str, query: str, name: str) -> str | None:
    """The first value that a query about a name returns; None if there is none, or no such file."""
    file = own_file(tracking_uri)
    if file is None or not file.exists():
        return None
    engine = create_engine(make_url(tracking_uri), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            value = connection.execute(text(query), {"name": name}).scalars().first()
    except SQLAlchemyError:  # half made, or not MLflow's: the code that opens it reports that
        return None
    return None if value is None else str(value)


def own_file(tracking_uri: str) -> Path | None:
    """The SQLite file with MLflow's records; None if MLflow is a server or uses another database."""
    if urlparse(tracking_uri).scheme != "sqlite":
        return None
    database = make_url(tracking_uri).database
    return Path(database) if database else None


def correct(tracking_uri: str, home: Path, old: str, root: str) -> int:
    """Make MLflow's records name this state's location instead of `old`; returns the number of corrections.

    Raises:
        StateMoved: MLflow's records may belong to another state, too.
    """
    file = own_file(tracking_uri)
    if file is None or not lies_below(str(file), str(home)):
        raise StateMoved(
            f"MLflow says the files are at {old}, and registry.artifacts is {root}. MLflow's records are not in the "
            f"state folder {home}, so another state may work with them, and they were not changed. If this state is "
            "a copy, give it a registry.tracking_uri of its own; if the files moved, set registry.artifacts to where "
            "MLflow says they are, or change the places in MLflow's database"
        )
    if not file.exists():
        return 0
    new = artifact_location(root)
    assert new is not None  # noqa: S101 - with files that a server keeps nothing is moved
    before = local_path(old)
    names = {old.rstrip("/")} | ({str(before).rstrip("/"), before.as_uri().rstrip("/")} if before else set())
    count = 0
    engine = create_engine(make_url(tracking_uri), poolclass=NullPool)
    with engine.begin() as connection:
        for table, columns in COLUMNS.items():
            for column in columns:
                for name in sorted(names):
                    statement = (
                        f"UPDATE {table} SET {column} = :new || substr({column}, :length) "  # noqa: S608 - our names
                        f"WHERE {column} = :old OR substr({column}, 1, :length) = :old || '/'"
                    )
                    values = {"new": new.rstrip("/"), "old": name, "length": len(name) + 1}
                    count += connection.execute(text(statement), values).rowcount
    return count


def need_short(location: str | None, tracking_uri: str) -> None:
    """Refuse a location that is too long for the columns of MLflow's PostgreSQL tables.

    Raises:
        PlaceTooLong: see the class.
    """
    longest = limits.ARTIFACT_URI - limits.RUN_FOLDER
    if location is not None and own_file(tracking_uri) is None and len(location.rstrip("/")) > longest:
        raise PlaceTooLong(
            f"registry.artifacts {location} has {len(location)} characters; MLflow's database takes {longest}, "
            f"for each run adds {limits.RUN_FOLDER}. Set registry.artifacts to a shorter place"
        )
