"""What was changed in MLflow directly: versions deleted or added, tags, files or runs altered, the alias moved.

The outbox says what MLflow was told; what it shows is compared with that, file by file by digest. The code that MLflow
packs around a model (`MLmodel`, `code/`) has no digest of ours and is not compared.
"""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.promotion.registry_runs import MODEL_PATH, files_of
from components.storage.objects import Json, digest_of

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.tracking import MlflowClient

Kind = Literal["alias", "version", "copy", "tags", "copy tags", "run", "files", "unknown"]


@dataclass
class Told:
    """What MLflow was told of one version."""

    payload: dict[str, Json]
    """Of the row `candidate` that published it."""
    tags: dict[str, str]
    files: dict[str, str]
    """Place below the run's artifacts -> digest of the content."""
    copy_tags: dict[str, str] | None = None
    """Tags of its promoted copy; None: never promoted."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not as MLflow was told."""

    kind: Kind
    digest: str
    """The version it is about; '' where no version of ours is."""
    words: str
    files: tuple[str, ...] = field(default=())
    """Places that are missing or hold something else."""


def differences(
    client: "MlflowClient", models: tuple[str, str], alias: str, told: Mapping[str, Told], champion: str | None
) -> list[Difference]:
    """Every difference; `models` are the names of the candidates' and of the promoted model."""
    candidates, promoted = models
    shown = {name: client.search_model_versions(f"name = '{name}'") for name in models}
    found: list[Difference] = []
    for digest, one in told.items():
        found += _version(client, shown, models, digest, one)
    for name in models:
        expected = {digest for digest, one in told.items() if name == candidates or one.copy_tags is not None}
        found += _strangers(name, shown[name], expected)
    return [*found, *_alias(client, promoted, alias, champion)]


def model_place(place: str) -> str:
    """Where a file of the publication stands in the run: MLflow wraps the model's own files."""
    inner = place.removeprefix(f"{MODEL_PATH}/")
    return place if inner == place else f"{MODEL_PATH}/artifacts/{MODEL_PATH}/{inner}"


def _version(
    client: "MlflowClient", shown: Mapping[str, Iterable[Any]], models: tuple[str, str], digest: str, told: Told
) -> Iterator[Difference]:
    number, (candidates, promoted) = f"version {told.payload['number']}", models
    version = _of(shown[candidates], digest)
    if version is None:
        yield Difference("version", digest, f"{number} is gone from {candidates}, or its tag `digest` was changed")
        return
    yield from _tags("tags", digest, f"{number} in {candidates}", version.tags, told.tags)
    run = client.get_run(version.run_id)
    if run.info.lifecycle_stage == "deleted":
        yield Difference("run", digest, f"the run of {number} was deleted")
    wrong = tuple(_wrong_files(files_of(client, run), told.files))
    if wrong:
        yield Difference("files", digest, f"{number}: missing or altered: {', '.join(wrong)}", wrong)
    if told.copy_tags is None:
        return
    copy = _of(shown[promoted], digest)
    if copy is None:
        yield Difference("copy", digest, f"{number} is gone from {promoted}, or its tag `digest` was changed")
    elif copy.run_id != version.run_id:
        yield Difference("copy", digest, f"{number} in {promoted} shows the files of another run ({copy.run_id})")
    else:
        yield from _tags("copy tags", digest, f"{number} in {promoted}", copy.tags, told.copy_tags)


def _tags(
    kind: Kind, digest: str, where: str, seen: Mapping[str, str], expected: Mapping[str, str]
) -> Iterator[Difference]:
    wrong = [
        f"{name} is {seen.get(name)!r}, expected {text!r}" for name, text in expected.items() if seen.get(name) != text
    ]
    if wrong:
        yield Difference(kind, digest, f"{where}: {'; '.join(wrong)}")


def _strangers(name: str, versions: Iterable[Any], expected: set[str]) -> Iterator[Difference]:
    """Versions that lcia never made: said, never deleted."""
    seen: set[str] = set()
    for version in sorted(versions, key=lambda one: int(one.version)):
        digest = version.tags.get("digest", "")
        if digest not in expected or digest in seen:
            what = "a second time" if digest in seen else "by somebody else"
            yield Difference("unknown", "", f"{name} version {version.version} was registered {what}")
        seen.add(digest)


def _alias(client: "MlflowClient", model: str, alias: str, champion: str | None) -> Iterator[Difference]:
    known = client.search_registered_models(f"name = '{model}'")
    seen: str | None = None
    if known and alias in known[0].aliases:
        seen = str(client.get_model_version_by_alias(model, alias).tags.get("digest", "nothing of ours"))
    if seen != champion:
        what = f"{(seen or 'nothing')[:12]}, expected {(champion or 'nothing')[:12]}"
        yield Difference("alias", champion or "", f"the alias {alias} of {model} points to {what}")


def _wrong_files(files: "ArtifactRepository", expected: Mapping[str, str]) -> Iterator[str]:
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="lcia-check-") as name:
        for place, digest in expected.items():
            seen = None
            with contextlib.suppress(MlflowException, OSError):  # it is not there
                seen = digest_of(Path(files.download_artifacts(model_place(place), name)).read_bytes())
            if seen != digest:
                yield place


def _of(versions: Iterable[Any], digest: str) -> Any:  # noqa: ANN401 - mlflow's ModelVersion
    found = [version for version in versions if version.tags.get("digest") == digest]
    return min(found, key=lambda version: int(version.version), default=None)
