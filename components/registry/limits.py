"""Lengths that MLflow's stores take, and texts cut to them.

SQLite takes any length and PostgreSQL refuses what exceeds a column, so that the smallest limit of all stores holds
everywhere: what was shown once can be moved from one to the other. Sources: the columns of
`mlflow/store/{tracking,model_registry}/dbmodels/models.py` and `mlflow/utils/validation.py`, MLflow 3.17.
"""

from components.storage.objects import Json
from components.visible import visible

DESCRIPTION = 5000
"""Of a registered version; column `model_versions.description`."""
RUN_TAG = 8000
"""Value of a run's tag, its note included; a version's tag takes more, and both show the same."""
PARAM = 6000
RUN_NAME = 250
KEY = 250
"""Of params, metrics and tags."""
DATASET_NAME = 500
DATASET_DIGEST = 36
METRICS, DATASETS = 1000, 1000
"""In one call."""
ARTIFACT_URI = 200
"""Where a run's files are; column `runs.artifact_uri`."""
RUN_FOLDER = len("/" + 32 * "0" + "/artifacts")
"""Characters that MLflow adds to the experiment's place for each run."""


def cut_to(text: Json, limit: int, whole: str = "") -> str:
    """Text of at most `limit` characters that says where it was cut, and `whole`, where all of it is.

    NUL is left out: PostgreSQL's text has none. Signs that don't show are spelt out: MLflow shows what it is told.
    """
    plain = visible(str(text).replace("\0", ""), lines=True)
    if len(plain) <= limit:
        return plain
    rest = f" [cut: {len(plain)} characters, MLflow takes {limit}{'; ' + whole if whole else ''}]"
    return plain[: limit - len(rest)] + rest


def key(name: str) -> str:
    """A param's or metric's name as MLflow takes it: without `@`, so that `name@version` becomes `name:version`."""
    return name.replace("@", ":")[:KEY]
