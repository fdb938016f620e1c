"""Differences between what MLflow shows and what it was told: versions deleted or added, tags, files, runs or places
altered, the alias moved.

The outbox says what MLflow was told; all that loading a version needs is compared with that: the version MLflow finds
by its alias, the run and the place that its source leads to, every file by digest. So is the code that MLflow packs
around a model (`MLmodel`, `code/`), by the digests of its publication; what was published before these were kept has to
name what is there, and is packed anew.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from components.registry.files import Root, RunFiles
from components.registry.runs import BUNDLES, MODEL_PATH
from components.storage.objects import Json, digest_of

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

Kind = Literal[
    "alias",
    "version",
    "copy",
    "tags",
    "copy tags",
    "run",
    "run tags",
    "experiment",
    "place",
    "files",
    "packing",
    "unclear",
    "unknown",
]
LOADING: frozenset[Kind] = frozenset({"version", "copy", "run", "place", "files", "unclear"})
"""Without these a version can't be loaded, or loads as something else."""


NAMED = 5
"""Files of MLflow's packing that a sentence names."""


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
    problem: str = ""
    """Why not all of its files are known."""
    packing: Mapping[str, str] | None = None
    """Digests of what MLflow packed around the model; None: it was published before they were kept."""
    row: int = 0
    """Id of the outbox's row that published it."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not as MLflow was told."""

    kind: Kind
    digest: str
    """The version it is about; '' where no version of ours is."""
    words: str
    files: tuple[str, ...] = field(default=())
    """Places that are missing or hold something else."""

    @property
    def loading(self) -> bool:
        """True if the version can't be loaded for it, or would load as something else."""
        return self.kind in LOADING


@dataclass(frozen=True)
class MlflowView:
    """One assistant as MLflow shows it."""

    client: "MlflowClient"
    root: Root
    candidates: str
    promoted: str
    alias: str
    versions: Mapping[str, list[Any]]
    """Registered versions by model."""
    experiment: str | None = None
    """Id of the experiment that runs are logged in; None where there is none yet."""

    def differences(self, told: Mapping[str, Told], champion: str | None) -> list[Difference]:
        """Every difference; what can't be compared is one."""
        found = [one for digest in told for one in self.of_version(digest, told[digest])]
        for name in (self.candidates, self.promoted):
            expected = {d for d, one in told.items() if name == self.candidates or one.copy_tags is not None}
            found += _strangers(name, self.versions[name], expected)
        return [*found, *self._alias(champion)]

    def of_version(self, digest: str, told: Told) -> list[Difference]:
        """Differences of one version."""
        from mlflow.exceptions import MlflowException

        try:
            return list(self._version(digest, told))
        except (MlflowException, OSError) as error:
            what = f"version {told.payload['number']} can't be compared with what MLflow was told: {error}"
            return [Difference("unclear", digest, what)]

    def _version(self, digest: str, told: Told) -> Iterator[Difference]:
        number = f"version {told.payload['number']}"
        if told.problem:
            yield Difference("unclear", digest, f"{number} can't be compared file by file: {told.problem}")
        version = version_of(self.versions[self.candidates], digest)
        if version is None:
            words = f"{number} is gone from {self.candidates}, or its tag `digest` was changed"
            yield Difference("version", digest, words)
            return
        run = run_of(self.client, version)
        if run is None:
            yield Difference("version", digest, f"the run of {number} is gone from MLflow, with its files")
            return
        yield from _tags("tags", digest, f"{number} in {self.candidates}", version.tags, told.tags)
        if run.info.lifecycle_stage == "deleted":
            yield Difference("run", digest, f"the run of {number} was deleted")
        yield from _tags("run tags", digest, f"the run of {number}", run.data.tags, told.tags)
        if self.experiment not in (None, run.info.experiment_id):
            words = f"the run of {number} is in experiment {run.info.experiment_id}, expected {self.experiment}"
            yield Difference("experiment", digest, f"{words} (registry.experiment)")
        yield from self._source("version", digest, number, version, told)
        yield from self._files(digest, number, run, told)
        if told.copy_tags is None:
            return
        copy = version_of(self.versions[self.promoted], digest)
        if copy is None:
            yield Difference("copy", digest, f"{number} is gone from {self.promoted}, or its tag `digest` was changed")
        elif copy.run_id != version.run_id:
            words = f"{number} in {self.promoted} shows the files of another run ({copy.run_id})"
            yield Difference("copy", digest, words)
        else:
            yield from self._source("copy", digest, number, copy, told)
            yield from _tags("copy tags", digest, f"{number} in {self.promoted}", copy.tags, told.copy_tags)

    def _source(
        self,
        kind: Kind,
        digest: str,
        number: str,
        version: Any,  # noqa: ANN401 - mlflow's ModelVersion
        told: Told,
    ) -> Iterator[Difference]:
        """Where loading a registered version leads."""
        expected = source(version.run_id, model=any(place.startswith(f"{MODEL_PATH}/") for place in told.files))
        seen = self.client.get_model_version_download_uri(version.name, str(version.version))
        if seen != expected:
            yield Difference(kind, digest, f"{number} in {version.name} is loaded from {seen}, expected {expected}")

    def _files(self, digest: str, number: str, run: "Run", told: Told) -> Iterator[Difference]:
        files = RunFiles(self.client, run, self.root)
        if not files.own:
            words = f"the files of {number} are at {files.place}, outside {self.root.place}, or a link leads out of it"
            if files.link is not None:
                words = f"the files of {number} should be at {files.place}, and a link leads from there to {files.link}"
            yield Difference("place", digest, words)
            return
        wrong = tuple(place for place, text in told.files.items() if _digest(files, model_place(place)) != text)
        packed: tuple[str, ...] = ()
        if any(place.startswith(f"{MODEL_PATH}/") for place in told.files):
            packed = tuple(_packing(files) if told.packing is None else _altered(files, told.packing))
        if wrong or packed:
            more = f" and {len(packed) - NAMED} more of MLflow's packing" if len(packed) > NAMED else ""
            words = f"{number}: missing, altered or added: {', '.join([*wrong, *packed[:NAMED]])}{more}"
            yield Difference("files", digest, words, (*wrong, *packed))
        elif told.packing is None and any(place.startswith(f"{MODEL_PATH}/") for place in told.files):
            what = f"{number}: what MLflow packed around the model (MLmodel, code) has no digests to compare it with"
            yield Difference("packing", digest, what)

    def _alias(self, champion: str | None) -> Iterator[Difference]:
        known = self.client.search_registered_models(f"name = '{self.promoted}'")
        number = str(known[0].aliases.get(self.alias, "")) if known else ""
        serving = next((one for one in self.versions[self.promoted] if str(one.version) == number), None)
        seen = str(serving.tags.get("digest", "nothing of ours")) if serving else number and "nothing of ours"
        copy = version_of(self.versions[self.promoted], champion) if champion else None
        if (seen or None) != champion:
            what = f"{(seen or 'nothing')[:12]}, expected {(champion or 'nothing')[:12]}"
            yield Difference("alias", champion or "", f"the alias {self.alias} of {self.promoted} points to {what}")
        elif copy is not None and serving is not None and copy.version != serving.version:
            what = f"version {number}, which was registered a second time, expected {copy.version}"
            yield Difference("alias", champion or "", f"the alias {self.alias} of {self.promoted} points to {what}")


def source(run: str, *, model: bool) -> str:
    """Where the files of a version are, as MLflow names them."""
    return f"runs:/{run}/{MODEL_PATH}" if model else f"runs:/{run}"


def model_place(place: str) -> str:
    """Where a file of the publication stands in the run: MLflow wraps the model's own files."""
    inner = place.removeprefix(f"{MODEL_PATH}/")
    return place if inner == place else f"{MODEL_PATH}/artifacts/{MODEL_PATH}/{inner}"


def version_of(versions: Iterable[Any], digest: str) -> Any:  # noqa: ANN401 - mlflow's ModelVersion
    """The lowest version with a digest."""
    found = [version for version in versions if version.tags.get("digest") == digest]
    return min(found, key=lambda version: int(version.version), default=None)


def run_of(client: "MlflowClient", version: Any) -> "Run | None":  # noqa: ANN401 - mlflow's ModelVersion
    """The run of a registered version, deleted or not; None where `mlflow gc` removed it."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(version.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


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


def _digest(files: RunFiles, name: str) -> str | None:
    content = files.read(name)
    return None if content is None else digest_of(content)


def _altered(files: RunFiles, expected: Mapping[str, str]) -> Iterator[str]:
    """Files of MLflow's packing that are not as they were published."""
    seen = files.digests(MODEL_PATH, BUNDLES)
    yield from (
        f"{MODEL_PATH}/{name}" for name in sorted(seen.keys() | expected) if seen.get(name) != expected.get(name)
    )


def _packing(files: RunFiles) -> Iterator[str]:
    """Files that MLflow has packed around a model and lost since: its description, or those that it names."""
    content = files.read(f"{MODEL_PATH}/MLmodel")
    try:
        flavor = yaml.safe_load(content or b"")["flavors"]["python_function"]
        named = [flavor["code"], Path(flavor["model_code_path"]).name, *flavor["env"].values()]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        yield f"{MODEL_PATH}/MLmodel"
        return
    here = set(files.names(MODEL_PATH))
    yield from (f"{MODEL_PATH}/{name}" for name in named if f"{MODEL_PATH}/{name}" not in here)
