"""How MLflow is opened: quietly, with little patience, and a database file of its own only ever whole."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
FORBIDDEN = 403
_DATABASE_TRIES = 3
"""How often a database of MLflow's is opened before it counts as unreachable: MLflow's own 10 take 100 seconds."""


def prepare(tracking_uri: str) -> None:
    """Keep MLflow's client quiet, and its patience short; what the environment says already stands."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if urlparse(tracking_uri).scheme not in ("http", "https"):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = _DATABASE_TRIES
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def connect(tracking_uri: str) -> "MlflowClient":
    """A client of MLflow's server or database; an SQLite file that is not there yet is made.

    Raises:
        mlflow.exceptions.MlflowException, OSError: it can't be reached or made.
    """
    prepare(tracking_uri)
    from mlflow.tracking import MlflowClient
    from sqlalchemy.engine import make_url

    if urlparse(tracking_uri).scheme == "sqlite":
        database = make_url(tracking_uri).database
        if database and not Path(database).exists():
            _make(Path(database))
    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def is_denial(error: BaseException) -> bool:
    """True if MLflow says that the account may not do it; its client wraps one error into another."""
    from mlflow.exceptions import MlflowException

    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, MlflowException) and inner.get_http_status_code() == FORBIDDEN:
            return True
        inner = inner.__cause__ or inner.__context__
    return False


def _make(file: Path) -> None:
    """MLflow's empty tables, put in place in one go.

    SQLite's `CREATE` and `ALTER` are no transaction as MLflow's migrations use them: a process killed amid them would
    leave a database that no later one could open ("duplicate column name").
    """
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(file.parent):
        if file.exists():
            return
        unfinished = file.with_name(file.name + ".unfinished")
        unfinished.unlink(missing_ok=True)
        SqlAlchemyStore(f"sqlite:///{unfinished}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
        unfinished.replace(file)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """No other process is within the same block on this folder; a lock that a killed process held is free."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
