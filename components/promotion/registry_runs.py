"""MLflow runs: what people see of a version's learning, its curves, numbers, data sets, files and model.

Everything may be repeated: what is there already is left or written again with the same content.
"""

import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from components.libraries import requirement
from components.storage.objects import Json

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.tracking import MlflowClient

LEARNING = "learning"
"""Tag of a run that is shown while it learns; its value is the run's key."""
HEADS = "heads"
"""Tag of the run that keeps signed heads of the log; its value is the assistant's name."""
MOST_METRICS = 1000
DATASET_DIGEST = 36
"""What MLflow takes: points in one call, characters of a data set's digest."""
MODEL_PATH = "assistant"
"""Artifact folder of a run that is the model: what `components.serving.bundle` describes, wrapped for MLflow."""
_REQUIREMENTS = (
    "cryptography", "fsspec", "gguf", "icu4py", "numpy", "pandas", "peft", "pillow", "pydantic", "pyyaml", "regex",
    "rfc8785", "safetensors", "scipy", "securesystemslib", "torch", "transformers",
)  # fmt: skip
"""What answering needs in another environment; the sources of `components` travel with the model."""


def artifact_location(root: str) -> str | None:
    """Where a new experiment's files go; None where the server keeps them, below its id, by which rights are given."""
    if root.startswith("mlflow-artifacts:"):
        return None
    return root if urlparse(root).scheme else Path(root).absolute().as_uri()


def candidate_run(
    client: "MlflowClient", experiment: str, assistant: str, publication: Mapping[str, Json], folder: Path
) -> str:
    """Id of the finished run of a candidate; see `Registry.publish_candidate` for what it shows.

    The run that showed the learning becomes it, or one that a crash left.
    """
    digest = str(publication["digest"])
    tags = {**texts(publication.get("tags", {})), "digest": digest}
    known = client.search_runs([experiment], filter_string=f"tags.digest = '{digest}'")
    for run in known:
        if run.info.status == "FINISHED":
            return str(run.info.run_id)
    begun = [str(run.info.run_id) for run in known] or _in_flight(client, experiment, publication.get("learning"))
    identity = begun[0] if begun else str(client.create_run(experiment, tags=tags).info.run_id)
    description = publication.get("description")
    tags |= {"mlflow.runName": f"{assistant} v{publication['number']}"}
    for key, text in (tags | ({"mlflow.note.content": str(description)} if description else {})).items():
        client.set_tag(identity, key, text)
    for key, value in publication.get("params", {}).items():
        client.log_param(identity, key, value)
    for key, value in publication.get("metrics", {}).items():
        client.log_metric(identity, key.replace("@", ":"), float(value))  # MLflow allows no @: name@version
    _log_curves(client, identity, publication.get("curves", {}))
    client.log_inputs(identity, [_dataset(entry) for entry in publication.get("datasets", [])])
    if (folder / MODEL_PATH).is_dir():
        _wrap(folder / MODEL_PATH, digest)
    if any(folder.iterdir()):
        client.log_artifacts(identity, str(folder))
    if LEARNING in client.get_run(identity).data.tags:
        client.delete_tag(identity, LEARNING)
    client.set_terminated(identity, "FINISHED")
    return identity


def follow(
    client: "MlflowClient",
    experiment: str,
    key: str,
    name: str,
    tags: Mapping[str, str],
    curves: Mapping[str, Json],
) -> None:
    """Show a run that still learns; each call adds what its curves have gained."""
    begun = _in_flight(client, experiment, key)
    if not begun:
        shown = {**tags, LEARNING: key, "state": "learning"}
        begun = [str(client.create_run(experiment, run_name=name, tags=shown).info.run_id)]
    _log_curves(client, begun[0], curves)


def unfollow(client: "MlflowClient", experiment: str, key: str, reason: str) -> None:
    """End what `follow` showed: the run failed."""
    for identity in _in_flight(client, experiment, key):
        client.set_tag(identity, "state", "failed")
        client.set_tag(identity, "mlflow.note.content", reason)
        client.set_terminated(identity, "FAILED")


def heads_run(client: "MlflowClient", experiment: str, assistant: str) -> str:
    """Id of the run that keeps the signed heads of the log; made at the first call."""
    found = client.search_runs([experiment], f"tags.{HEADS} = '{assistant}'", order_by=["attributes.start_time"])
    if found:
        return str(found[0].info.run_id)
    made = client.create_run(experiment, run_name=f"{assistant}: signed heads of the log", tags={HEADS: assistant})
    client.set_terminated(made.info.run_id, "FINISHED")
    return str(made.info.run_id)


def files_of(client: "MlflowClient", run: "Run") -> "ArtifactRepository":
    """A run's files, wherever they are: the client's own calls remember where they were before."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(run.info.artifact_uri, client.tracking_uri)


def artifact(client: "MlflowClient", run: str, name: str) -> bytes | None:
    """Content of a file of a run; None where it has none of that name."""
    files = files_of(client, client.get_run(run))
    if all(file.path != name for file in files.list_artifacts()):
        return None
    with tempfile.TemporaryDirectory(prefix="lcia-artifact-") as folder:
        return Path(files.download_artifacts(name, folder)).read_bytes()


def _in_flight(client: "MlflowClient", experiment: str, key: str | None) -> list[str]:
    """Runs under the key that have not ended, newest first."""
    if key is None:
        return []
    query = f"tags.{LEARNING} = '{key}' and attributes.status = 'RUNNING'"
    return [str(run.info.run_id) for run in client.search_runs([experiment], query)]


def _log_curves(client: "MlflowClient", run: str, curves: Mapping[str, Json]) -> None:
    """Add the points beyond the last step that is there, so that repeating it adds nothing."""
    from mlflow.entities import Metric

    moment = int(time.time() * 1000)
    for name, points in curves.items():
        last = max((point.step for point in client.get_metric_history(run, name)), default=0)
        fresh = [Metric(name, float(value), moment, int(step)) for step, value in points if step > last]
        for start in range(0, len(fresh), MOST_METRICS):
            client.log_batch(run, metrics=fresh[start : start + MOST_METRICS])


def _dataset(entry: Mapping[str, Json]) -> "DatasetInput":
    """A split as MLflow names data sets: by digest and number of rows, never with its rows."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = json.dumps({"num_rows": entry["rows"]}) if "rows" in entry else None
    digest = str(entry["digest"])[:DATASET_DIGEST]
    source = json.dumps({"object": entry["digest"], "task": entry["source"]})
    named = Dataset(name=str(entry["name"]), digest=digest, source_type="lcia", source=source, profile=profile)
    return DatasetInput(named, [InputTag("mlflow.data.context", str(entry["context"]))])


def _wrap(bundle: Path, version: str) -> None:
    """Make the bundle a pyfunc model from code, in place: `mlflow.pyfunc.load_model` answers with it."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import Array

    columns = [ColSpec("string", "instruction"), ColSpec("string", "input", required=False)]
    inputs = Schema([*columns, ColSpec(Array("binary"), "image", required=False)])
    outputs = Schema([
        ColSpec("string", "answer"),
        ColSpec("string", "group", required=False),
        ColSpec("double", "similarity"),
        ColSpec("string", "nearest_task", required=False),
    ])  # fmt: skip
    components = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory(prefix="lcia-model-") as name, warnings.catch_warnings(), unprinted():
        warnings.simplefilter("ignore")  # no example of input is given: the signature says it all
        made = Path(name) / MODEL_PATH
        mlflow.pyfunc.save_model(
            path=str(made),
            python_model=str(components / "serving" / "mlflow_model.py"),
            artifacts={"assistant": str(bundle)},
            code_paths=[str(components)],
            model_config={"version": version, "base_model": "", "models": "", "public_key": "", "candidate": False},
            pip_requirements=list(map(requirement, _REQUIREMENTS)),
            signature=ModelSignature(inputs=inputs, outputs=outputs),
        )
        shutil.rmtree(bundle)
        shutil.move(made, bundle)


@contextmanager
def unprinted() -> Iterator[None]:
    """Keep MLflow from printing: it tells of a copy on standard error, past the loggers; failures are raised anyway."""
    from mlflow.utils.logging_utils import MLFLOW_LOGGING_STREAM

    before = MLFLOW_LOGGING_STREAM.enabled
    MLFLOW_LOGGING_STREAM.enabled = False
    try:
        yield
    finally:
        MLFLOW_LOGGING_STREAM.enabled = before


def texts(values: Mapping[str, Json]) -> dict[str, str]:
    """Values as MLflow's tags take them."""
    return {name: str(value) for name, value in values.items()}
