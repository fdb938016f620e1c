"""Lengths that MLflow's stores take, and texts cut to them.

SQLite takes any length and PostgreSQL refuses text longer than a column, so the smallest limit of all stores is used
everywhere: records can be moved from one store to the other. Sources: the columns of
`mlflow/store/{tracking,model_registry}/dbmodels/models.py` and `mlflow/utils/validation.py`, MLflow 3.17.
"""

from components.storage.objects import Json
from components.visible import visible

DESCRIPTION = 5000
"""Of a registered version: column `model_versions.description`."""
RUN_TAG = 8000
"""Of the value of a run's tag, also its note; a version's tag takes more, but both show the same text."""
PARAM = 6000
RUN_NAME = 250
KEY = 250
"""Of params, metrics and tags."""
DATASET_NAME = 500
DATASET_DIGEST = 36
METRICS, DATASETS = 1000, 1000
"""Most in one call."""
ARTIFACT_URI = 200
"""Of the location of a run's files: column `runs.artifact_uri`."""
RUN_FOLDER = len("/" + 32 * "0" + "/artifacts")
"""Characters that MLflow adds to the experiment's place for each run."""


def cut_to(text: Json, limit: int, whole: str = "") -> str:
    """Text of at most `limit` characters; if it was cut, it says so, and `whole` says where to find all of it.

    NUL is left out because PostgreSQL's text can't hold it. Hidden characters are spelt out: MLflow shows them as is.
    """
    plain = visible(str(text).replace("\0", ""), lines=True)
    if len(plain) <= limit:
        return plain
    rest = f" [cut: {len(plain)} characters, MLflow takes {limit}{'; ' + whole if whole else ''}]"
    return plain[: limit - len(rest)] + rest


def key(name: str) -> str:
    """Name of a param or metric in the form MLflow takes: `name@version` becomes `name:version`."""
    return name.replace("@", ":")[:KEY]
