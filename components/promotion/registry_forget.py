"""What goes from MLflow when a candidate's objects go: its versions and its run's files. The run's numbers stay.

`mlflow gc` is not used: it deletes the files of runs that registered versions still point to, and knows no champion.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from components.promotion.registry_files import Root, RunFiles

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ERASED = "erased"
"""Tag of a run whose files were removed; its value is the digest of what it was."""


def forget(client: "MlflowClient", experiment: str, root: Root, models: Iterable[str], digest: str) -> int:
    """Delete the registered versions with this digest and the files of their runs; returns how many versions.

    The run loses its tag `digest`, so that the same candidate, made again, is published anew. Files of runs that
    somebody deleted in MLflow go too: MLflow keeps them.

    Raises:
        OutsideRoot: MLflow keeps the files outside `root`; no version was deleted.
        NotErased: files are still there.
    """
    from mlflow.entities import ViewType

    found = [version for model in models for version in client.search_model_versions(_of(model, digest))]
    runs = client.search_runs([experiment], f"tags.digest = '{digest}'", run_view_type=ViewType.ALL)
    for run in runs:
        RunFiles(client, run, root).erase()
    for version in found:
        client.delete_model_version(version.name, str(version.version))
    for run in runs:
        deleted = run.info.lifecycle_stage == "deleted"
        if deleted:  # a deleted run takes no tags
            client.restore_run(run.info.run_id)
        client.set_tag(run.info.run_id, ERASED, digest)
        client.delete_tag(run.info.run_id, "digest")
        if deleted:
            client.delete_run(run.info.run_id)
    return len(found)


def _of(model: str, digest: str) -> str:
    return f"name = '{model}' and tags.digest = '{digest}'"
