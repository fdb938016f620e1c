"""Deletion from MLflow together with a candidate's objects: its versions and its run's files. The numbers stay.

`mlflow gc` is not used: it deletes the files of runs that registered versions still point to, and knows no champion.
"""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from components.registry.differences import run_of
from components.registry.files import Root, RunFiles

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

ERASED = "erased"
"""Tag of a run whose files were removed; its value is the version's digest."""


def forget(client: "MlflowClient", root: Root, models: Iterable[str], digest: str) -> int:
    """Delete the registered versions with this digest and the files of their runs; returns the number of versions.

    Runs are those that the versions name and those with the digest as their tag, in any experiment; but not the run of
    another version that somebody gave this one's tag.

    The run loses its tag `digest`, so that the same candidate, made again, is published anew. Files of runs that
    somebody deleted in MLflow go, too: MLflow keeps them.

    Raises:
        OutsideRoot: MLflow keeps the files outside `root`; no version was deleted.
        NotErased: files are still there.
    """
    versions = [version for model in models for version in client.search_model_versions(f"name = '{model}'")]
    matches = [version for version in versions if version.tags.get("digest") == digest]
    others = {version.run_id for version in versions if version.tags.get("digest") != digest}
    runs = _runs(client, matches, others, digest)
    for run in runs:
        RunFiles(client, run, root).erase()
    for version in matches:
        client.delete_model_version(version.name, str(version.version))
    for run in runs:
        was_deleted = run.info.lifecycle_stage == "deleted"
        if was_deleted:  # a deleted run takes no tags
            client.restore_run(run.info.run_id)
        client.set_tag(run.info.run_id, ERASED, digest)
        if "digest" in run.data.tags:
            client.delete_tag(run.info.run_id, "digest")
        if was_deleted:
            client.delete_run(run.info.run_id)
    return len(matches)


def _runs(client: "MlflowClient", versions: Iterable[Any], others: Collection[str], digest: str) -> list["Run"]:
    """The runs of versions, by name and by tag; `others` are runs that versions of another digest name."""
    from mlflow.entities import ViewType

    runs = [run for version in versions if (run := run_of(client, version)) is not None]
    own = {
        run.info.run_id: run
        for run in runs
        if run.info.run_id not in others or run.data.tags.get("digest", digest) == digest
    }
    experiments = [one.experiment_id for one in client.search_experiments(view_type=ViewType.ALL)]
    query = f"tags.digest = '{digest}'"
    for run in client.search_runs(experiments, query, run_view_type=ViewType.ALL) if experiments else ():
        if run.info.run_id not in others:
            own.setdefault(run.info.run_id, run)
    return list(own.values())
