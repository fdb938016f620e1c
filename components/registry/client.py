"""Connection to MLflow: opened quietly, with short timeouts; a new database file appears complete or not at all."""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PATIENCE = 20.0
"""Seconds a verb waits for an answer of MLflow, for another process that updates it, and before it asks again."""
_PROBE_SECONDS = PATIENCE / 2
_PROBE = "/api/2.0/mlflow/registered-models/search?max_results=1"
"""A request that MLflow answers from its database."""
_FRESH_SECONDS = 5.0
"""Seconds for which an answer proves that MLflow is there."""
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{PATIENCE:.0f}",
}
FORBIDDEN = 403
_DATABASE_TRIES, _DATABASE_SECONDS = 3, 6
"""Attempts at opening MLflow's database, and seconds of each on a server: MLflow's own 10 take 100 seconds."""


def prepare(tracking_uri: str) -> None:
    """Keep MLflow's client quiet and its timeouts short; values of the environment take precedence."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if urlparse(tracking_uri).scheme not in ("http", "https"):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = _DATABASE_TRIES
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def connect(tracking_uri: str) -> "MlflowClient":
    """A client of MLflow's server or database; a missing SQLite file is created.

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
    tracking_uri = _with_timeout(tracking_uri)
    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def _with_timeout(tracking_uri: str) -> str:
    """The address of a PostgreSQL database with a bound on connecting; any other as it is."""
    if not urlparse(tracking_uri).scheme.startswith("postgresql"):
        return tracking_uri
    from sqlalchemy.engine import make_url

    url = make_url(tracking_uri)
    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": str(_DATABASE_SECONDS)})
    return url.render_as_string(hide_password=False)


class Silent(Exception):
    """MLflow did not answer in time, a moment ago or now."""


class MlflowLine:
    """The line to one MLflow: a short probe shows whether it answers, and the result holds for a while.

    Without it, a server that accepts connections and never answers would delay each of a verb's many requests.
    """

    def __init__(self, tracking_uri: str) -> None:
        """Asks nothing yet."""
        self._uri = tracking_uri
        self._heard, self._silent = -PATIENCE, -PATIENCE

    def forget(self) -> None:
        """Ask again at the next call, even if MLflow was silent."""
        self._silent = -PATIENCE

    @contextmanager
    def talk(self) -> Iterator[None]:
        """Block of requests to MLflow; a failure after a long wait counts as silence.

        Raises:
            Silent: it does not answer.
        """
        if time.monotonic() < self._silent + PATIENCE:
            raise Silent("it did not answer a moment ago")
        self._probe()
        began = time.monotonic()
        try:
            yield
        except Exception:
            if time.monotonic() > began + _PROBE_SECONDS:
                self._silent = time.monotonic()
            raise
        self._heard = time.monotonic()

    def _probe(self) -> None:
        """Send a server a small request, unless it answered a moment ago; any reply counts as an answer."""
        if urlparse(self._uri).scheme not in ("http", "https") or time.monotonic() < self._heard + _FRESH_SECONDS:
            return
        from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
        from mlflow.exceptions import MlflowException
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        patience = min(_PROBE_SECONDS, MLFLOW_HTTP_REQUEST_TIMEOUT.get())
        creds, began = get_default_host_creds(self._uri), time.monotonic()
        try:
            http_request(creds, _PROBE, "GET", max_retries=0, timeout=patience, raise_on_status=False)
        except MlflowException as error:
            if time.monotonic() >= began + patience:  # other failures than silence show at once
                self._silent = time.monotonic()
                raise Silent(f"it takes connections, and does not answer within {patience:.0f} seconds") from error
            raise


def is_denial(error: BaseException) -> bool:
    """True if MLflow says that the account has no right to it; its client wraps errors in each other."""
    from mlflow.exceptions import MlflowException

    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, MlflowException) and inner.get_http_status_code() == FORBIDDEN:
            return True
        inner = inner.__cause__ or inner.__context__
    return False


def _make(file: Path) -> None:
    """Make a file with MLflow's empty tables, put in place in one go.

    MLflow's migrations run SQLite's `CREATE` and `ALTER` outside a transaction: a process killed amid them would leave
    a database that no later one could open ("duplicate column name").
    """
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(file.parent):
        if file.exists():
            return
        part = file.with_name(file.name + ".unfinished")
        part.unlink(missing_ok=True)
        SqlAlchemyStore(f"sqlite:///{part}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
        part.replace(file)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Block that only one process at a time is in, by a lock on the folder; the system frees that of a killed one."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
