"""Deletion of ZenML's records of runs: artifacts, logs and rows. It costs dashboards only."""

from typing import Any

from components.storage.fence import NotErased, erase, local_path, need_below

ADVICE = "A state that was moved or copied is mended by `lcia sync`; then withdraw again"


def delete_runs(prefixes: list[str]) -> int:
    """Delete every run whose name begins so, with its artifacts; returns how many. Repeating it does no harm.

    Raises:
        OutsideRoot: ZenML says that artifacts are outside the artifact store they belong to; their run stays.
        NotErased: files are still there; their run stays.
    """
    from zenml.client import Client

    client, count = Client(), 0
    for prefix in prefixes:
        # always the first page: what was on it is gone by the next call
        while runs := client.list_pipeline_runs(name=f"startswith:{prefix}", size=50).items:
            for run in runs:
                _delete(client, run)
                count += 1
    return count


def _delete(client: Any, run: Any) -> None:  # noqa: ANN401 - zenml's Client and PipelineRunResponse
    """Delete the files first: as long as they are there, the run is found again."""
    artifacts = {a.id: a for step in run.steps.values() for versions in step.outputs.values() for a in versions}
    logs = [log for each in (run, *run.steps.values()) for log in (each.log_collection or [])]
    for item in (*artifacts.values(), *logs):
        if item.uri is not None:  # logs may be in a log store, which has no files
            _erase(client, item.uri, item.artifact_store_id)
    client.delete_pipeline_run(run.id)
    for identity in artifacts:
        client.delete_artifact_version(identity)


def _erase(client: Any, uri: str, store: Any) -> None:  # noqa: ANN401 - zenml's Client, and the id of a store
    """Delete a file or folder of an artifact store, and check that it is gone."""
    files = _store(client, store)
    root = _root(files)
    need_below(uri, root, "ZenML keeps an artifact", ADVICE)
    here, top = local_path(uri), local_path(root)
    if here is not None and top is not None:
        erase(here, top)
        return
    if not files.exists(uri):
        return
    if files.isdir(uri):
        files.rmtree(uri)
    else:
        files.remove(uri)
    if files.exists(uri):
        raise NotErased(f"{uri} is still there after ZenML's artifact store deleted it")


def _root(files: Any) -> str:  # noqa: ANN401 - zenml's BaseArtifactStore
    """Folder of an artifact store's files, read from ZenML's settings: the store itself remembers an earlier folder."""
    from zenml.artifact_stores import LocalArtifactStore

    if isinstance(files, LocalArtifactStore) and not files.config.path:
        return LocalArtifactStore.get_default_local_path(files.id)
    return str(files.path)


def _store(client: Any, identity: Any) -> Any:  # noqa: ANN401 - zenml's Client, BaseArtifactStore
    """The artifact store that a record names; the active one if it names none."""
    active = client.active_stack.artifact_store
    if identity is None or identity == active.id:
        return active
    from zenml.artifact_stores import BaseArtifactStore
    from zenml.enums import StackComponentType

    return BaseArtifactStore.from_model(client.get_stack_component(StackComponentType.ARTIFACT_STORE, identity))
