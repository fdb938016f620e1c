"""Removing what ZenML keeps of runs: their artifacts and rows. It costs dashboards only."""

from typing import Any


def delete_runs(prefixes: list[str]) -> tuple[int, list[str]]:
    """Delete every run whose name begins so, with its artifacts; repeating it does no harm.

    Returns how many there were, and the places of artifacts that this machine can't reach, which stay.
    """
    from zenml.client import Client

    client, deleted, left = Client(), 0, list[str]()
    for prefix in prefixes:
        while runs := client.list_pipeline_runs(name=f"startswith:{prefix}", size=50).items:
            for run in runs:
                left += _delete(client, run)
                deleted += 1
    return deleted, left


def _delete(client: Any, run: Any) -> list[str]:  # noqa: ANN401 - zenml's Client and PipelineRunResponse
    """Files first: as long as they are there, the run is found again."""
    files, left = client.active_stack.artifact_store, []
    artifacts = {a.id: a for step in run.steps.values() for found in step.outputs.values() for a in found}
    for artifact in artifacts.values():
        try:
            if files.exists(artifact.uri):
                files.rmtree(artifact.uri)
        except FileNotFoundError:  # outside of the artifact store: the state folder was moved, or another stack's
            left.append(artifact.uri)
    client.delete_pipeline_run(run.id)
    for identity in artifacts:
        client.delete_artifact_version(identity)
    return left
