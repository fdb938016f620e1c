"""Removing what ZenML keeps of runs: their artifacts and rows. It costs dashboards only."""

import shutil
from pathlib import Path
from typing import Any


def delete_runs(prefixes: list[str]) -> int:
    """Delete every run whose name begins so, with its artifacts; returns how many. Repeating it does no harm."""
    from zenml.client import Client

    client, deleted = Client(), 0
    for prefix in prefixes:
        while runs := client.list_pipeline_runs(name=f"startswith:{prefix}", size=50).items:
            for run in runs:
                _delete(client, run)
                deleted += 1
    return deleted


def _delete(client: Any, run: Any) -> None:  # noqa: ANN401 - zenml's Client and PipelineRunResponse
    """Files first: as long as they are there, the run is found again."""
    artifacts = {a.id: a for step in run.steps.values() for found in step.outputs.values() for a in found}
    for artifact in artifacts.values():
        if "://" not in artifact.uri:
            if Path(artifact.uri).exists():
                shutil.rmtree(artifact.uri)
        elif (files := client.active_stack.artifact_store).exists(artifact.uri):
            files.rmtree(artifact.uri)
    client.delete_pipeline_run(run.id)
    for identity in artifacts:
        client.delete_artifact_version(identity)
