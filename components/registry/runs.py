"""MLflow runs: a version's learning for people to see, with its curves, numbers, data sets, files and model.

Everything may be repeated: existing content is left, or written again unchanged.
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

from components.libraries import requirement
from components.registry import limits
from components.registry.files import Root, RunFiles
from components.registry.limits import cut_to
from components.storage.objects import Json, digest_of

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.tracking import MlflowClient

LEARNING = "learning"
"""Tag of a run that is shown while it learns; its value is the run's key."""
HEADS = "heads"
"""Tag of the run that keeps signed heads of the log; its value is the assistant's name."""
MODEL_PATH = "assistant"
"""Artifact folder with the model: the bundle of `components.serving.bundle`, wrapped for MLflow."""
BUNDLES = "artifacts"
"""Folder of an MLflow model for its artifacts, here the bundle; all beside it is MLflow's packing."""
WHOLE_CARD = "the whole card is the file reports/card.md of the run"
_REQUIREMENTS = (
    "cryptography", "fsspec", "gguf", "icu4py", "numpy", "pandas", "peft", "pillow", "pydantic", "pyyaml", "regex",
    "rfc8785", "safetensors", "scipy", "securesystemslib", "torch", "transformers",
)  # fmt: skip
"""Requirements of answering in another environment; the sources of `components` travel with the model."""


def candidate_run(
    client: "MlflowClient", experiment: str, root: Root, assistant: str, publication: Mapping[str, Json], folder: Path
) -> tuple[str, dict[str, str] | None]:
    """Id of the finished run of a candidate; see `Registry.publish_candidate` for its content.

    With it come the digests of its packing (see `write_files`); None if the run was finished before. The run that
    showed the learning, or one that a crash left, becomes this run. Its files have to go below `root`.

    Raises:
        OutsideRoot: MLflow keeps its files elsewhere.
    """
    digest = str(publication["digest"])
    tags = {**texts(publication.get("tags", {})), "digest": digest}
    runs = client.search_runs([experiment], filter_string=f"tags.digest = '{digest}'")
    for run in runs:
        if run.info.status == "FINISHED":
            return str(run.info.run_id), None
    open_runs = [str(run.info.run_id) for run in runs] or _in_flight(client, experiment, publication.get("learning"))
    identity = open_runs[0] if open_runs else str(client.create_run(experiment, tags=tags).info.run_id)
    description = publication.get("description")
    tags |= {"mlflow.runName": cut_to(f"{assistant} v{publication['number']}", limits.RUN_NAME)}
    note = {"mlflow.note.content": cut_to(description, limits.RUN_TAG, WHOLE_CARD)} if description else {}
    for key, text in (tags | note).items():
        client.set_tag(identity, key, cut_to(text, limits.RUN_TAG))
    for key, value in publication.get("params", {}).items():
        client.log_param(identity, limits.key(key), cut_to(value, limits.PARAM))
    for key, value in publication.get("metrics", {}).items():
        client.log_metric(identity, limits.key(key), float(value))
    _log_curves(client, identity, publication.get("curves", {}))
    datasets = [_dataset(entry) for entry in publication.get("datasets", [])]
    for start in range(0, len(datasets), limits.DATASETS):
        client.log_inputs(identity, datasets[start : start + limits.DATASETS])
    packing = write_files(client, identity, root, folder, digest)
    if LEARNING in client.get_run(identity).data.tags:
        client.delete_tag(identity, LEARNING)
    client.set_terminated(identity, "FINISHED")
    return identity, packing


def write_files(
    client: "MlflowClient", run: str, root: Root, folder: Path, version: str, *, packing_alone: bool = False
) -> dict[str, str]:
    """Write a publication's files into its run; those of the model become an MLflow model on the way.

    With `packing_alone` only MLflow's packing of the model is written. Returns name -> digest of the packing; other
    files in its place are deleted.

    Raises:
        OutsideRoot: MLflow keeps the run's files elsewhere.
    """
    model, files = folder / MODEL_PATH, RunFiles(client, client.get_run(run), root)
    packing = {}
    if model.is_dir():
        _wrap(model, version)
        own = (path for path in model.rglob("*") if path.is_file() and not path.is_relative_to(model / BUNDLES))
        packing = {path.relative_to(model).as_posix(): digest_of(path.read_bytes()) for path in own}
    if packing_alone:
        shutil.rmtree(model / BUNDLES)
        for path in folder.iterdir():
            if path != model:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    if any(folder.iterdir()):
        files.write(folder)
    if packing:
        files.keep_only(MODEL_PATH, packing, BUNDLES)
    return packing


def follow(
    client: "MlflowClient",
    experiment: str,
    key: str,
    name: str,
    tags: Mapping[str, str],
    curves: Mapping[str, Json],
) -> None:
    """Show a run that is still learning; each call adds the new points of its curves."""
    open_runs = _in_flight(client, experiment, key)
    if not open_runs:
        run_tags = {**texts(tags), LEARNING: key, "state": "learning"}
        run_name = cut_to(name, limits.RUN_NAME)
        open_runs = [str(client.create_run(experiment, run_name=run_name, tags=run_tags).info.run_id)]
    _log_curves(client, open_runs[0], curves)


def unfollow(client: "MlflowClient", experiment: str, key: str, reason: str) -> None:
    """End what `follow` showed: the run failed."""
    for identity in _in_flight(client, experiment, key):
        client.set_tag(identity, "state", "failed")
        client.set_tag(identity, "mlflow.note.content", cut_to(reason, limits.RUN_TAG))
        client.set_terminated(identity, "FAILED")


def heads_run(client: "MlflowClient", experiment: str, assistant: str) -> str:
    """Id of the run that keeps the signed heads of the log; made at the first call."""
    runs = client.search_runs([experiment], f"tags.{HEADS} = '{assistant}'", order_by=["attributes.start_time"])
    if runs:
        return str(runs[0].info.run_id)
    run = client.create_run(experiment, run_name=f"{assistant}: signed heads of the log", tags={HEADS: assistant})
    client.set_terminated(run.info.run_id, "FINISHED")
    return str(run.info.run_id)


def _in_flight(client: "MlflowClient", experiment: str, key: str | None) -> list[str]:
    """Runs under the key that have not ended, newest first."""
    if key is None:
        return []
    query = f"tags.{LEARNING} = '{key}' and attributes.status = 'RUNNING'"
    return [str(run.info.run_id) for run in client.search_runs([experiment], query)]


def _log_curves(client: "MlflowClient", run: str, curves: Mapping[str, Json]) -> None:
    """Add the points beyond the last step recorded, so that repeating it adds nothing."""
    from mlflow.entities import Metric

    moment = int(time.time() * 1000)
    for name, points in curves.items():
        last = max((point.step for point in client.get_metric_history(run, name)), default=0)
        fresh = [Metric(name, float(value), moment, int(step)) for step, value in points if step > last]
        for start in range(0, len(fresh), limits.METRICS):
            client.log_batch(run, metrics=fresh[start : start + limits.METRICS])


def _dataset(entry: Mapping[str, Json]) -> "DatasetInput":
    """A split in the form of MLflow's data sets: digest and number of rows, never the rows."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = json.dumps({"num_rows": entry["rows"]}) if "rows" in entry else None
    digest = str(entry["digest"])[: limits.DATASET_DIGEST]
    source = json.dumps({"object": entry["digest"], "task": entry["source"]})
    dataset = Dataset(
        name=cut_to(entry["name"], limits.DATASET_NAME),
        digest=digest,
        source_type="lcia",
        source=source,
        profile=profile,
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", str(entry["context"]))])


def _wrap(bundle: Path, version: str) -> None:
    """Turn the bundle, in place, into a pyfunc model from code, which `mlflow.pyfunc.load_model` can load."""
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
    with tempfile.TemporaryDirectory(prefix="lcia-model-") as name, warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # about a missing input example: the signature is enough
        model = Path(name) / MODEL_PATH
        mlflow.pyfunc.save_model(
            path=str(model),
            python_model=str(components / "serving" / "mlflow_model.py"),
            artifacts={"assistant": str(bundle)},
            code_paths=[str(components)],
            model_config={"version": version, "base_model": "", "models": "", "public_key": "", "candidate": False},
            pip_requirements=list(map(requirement, _REQUIREMENTS)),
            signature=ModelSignature(inputs=inputs, outputs=outputs),
        )
        shutil.rmtree(bundle)
        shutil.move(model, bundle)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow from printing: it announces a copy on standard error, past the loggers. Failures still raise."""
    from mlflow.utils.logging_utils import MLFLOW_LOGGING_STREAM

    before = MLFLOW_LOGGING_STREAM.enabled
    MLFLOW_LOGGING_STREAM.enabled = False
    try:
        yield
    finally:
        MLFLOW_LOGGING_STREAM.enabled = before


def texts(values: Mapping[str, Json]) -> dict[str, str]:
    """Values in the form that tags of MLflow's runs and versions take."""
    return {name: cut_to(value, limits.RUN_TAG) for name, value in values.items()}
