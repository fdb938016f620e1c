"""Differences between MLflow and what lcia sent it: versions deleted or added; tags, files, runs or places altered; the
alias moved.

The outbox has what was sent. All that loading a version needs is compared with it: the version MLflow finds by
its alias, the run and the place that its source leads to, every file by digest. The code that MLflow packs around a
model (`MLmodel`, `code/`) is compared by the digests from its publication; for publications without such digests the
description has to name files that exist, and the model is packed anew.
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
"""Kinds that keep a version from being loaded, or make it load as something else."""


NAMED = 5
"""Most files of MLflow's packing that a sentence names."""


@dataclass
class ExpectedVersion:
    """One version as lcia sent it to MLflow."""

    payload: dict[str, Json]
    """Payload of the row `candidate` that published it."""
    tags: dict[str, str]
    files: dict[str, str]
    """Path below the run's artifacts -> digest of the content."""
    copy_tags: dict[str, str] | None = None
    """Tags of its promoted copy; None: never promoted."""
    problem: str = ""
    """Reason why its list of files is incomplete; empty if it is complete."""
    packing: Mapping[str, str] | None = None
    """Digests of the files MLflow packed around the model; None: published before these were recorded."""
    row: int = 0
    """Id of the outbox row that published it."""


@dataclass(frozen=True)
class Difference:
    """One difference from what lcia sent."""

    kind: Kind
    digest: str
    """The version it is about; '' if it is about none of ours."""
    words: str
    files: tuple[str, ...] = field(default=())
    """Paths that are missing or hold something else."""

    @property
    def loading(self) -> bool:
        """True if it keeps the version from being loaded, or makes it load as something else."""
        return self.kind in LOADING


@dataclass(frozen=True)
class MlflowView:
    """One assistant as MLflow shows it now."""

    client: "MlflowClient"
    root: Root
    candidates: str
    model: str
    alias: str
    versions: Mapping[str, list[Any]]
    """Registered versions by model."""
    experiment: str | None = None
    """Id of the experiment that runs are logged in; None if there is none yet."""

    def differences(self, versions: Mapping[str, ExpectedVersion], champion: str | None) -> list[Difference]:
        """Every difference; a version that can't be compared counts as one."""
        differences = [one for digest in versions for one in self.of_version(digest, versions[digest])]
        for name in (self.candidates, self.model):
            ours = {d for d, one in versions.items() if name == self.candidates or one.copy_tags is not None}
            differences += _strangers(name, self.versions[name], ours)
        return [*differences, *self._alias(champion)]

    def of_version(self, digest: str, record: ExpectedVersion) -> list[Difference]:
        """Differences of one version."""
        from mlflow.exceptions import MlflowException

        try:
            return list(self._version(digest, record))
        except (MlflowException, OSError) as error:
            what = f"version {record.payload['number']} can't be compared with what MLflow was told: {error}"
            return [Difference("unclear", digest, what)]

    def _version(self, digest: str, record: ExpectedVersion) -> Iterator[Difference]:
        number = f"version {record.payload['number']}"
        if record.problem:
            yield Difference("unclear", digest, f"{number} can't be compared file by file: {record.problem}")
        version = version_of(self.versions[self.candidates], digest)
        if version is None:
            words = f"{number} is gone from {self.candidates}, or its tag `digest` was changed"
            yield Difference("version", digest, words)
            return
        run = run_of(self.client, version)
        if run is None:
            yield Difference("version", digest, f"the run of {number} is gone from MLflow, with its files")
            return
        yield from _tags("tags", digest, f"{number} in {self.candidates}", version.tags, record.tags)
        if run.info.lifecycle_stage == "deleted":
            yield Difference("run", digest, f"the run of {number} was deleted")
        yield from _tags("run tags", digest, f"the run of {number}", run.data.tags, record.tags)
        if self.experiment not in (None, run.info.experiment_id):
            words = f"the run of {number} is in experiment {run.info.experiment_id}, expected {self.experiment}"
            yield Difference("experiment", digest, f"{words} (registry.experiment)")
        yield from self._source("version", digest, number, version, record)
        yield from self._files(digest, number, run, record)
        if record.copy_tags is None:
            return
        copy = version_of(self.versions[self.model], digest)
        if copy is None:
            yield Difference("copy", digest, f"{number} is gone from {self.model}, or its tag `digest` was changed")
        elif copy.run_id != version.run_id:
            words = f"{number} in {self.model} shows the files of another run ({copy.run_id})"
            yield Difference("copy", digest, words)
        else:
            yield from self._source("copy", digest, number, copy, record)
            yield from _tags("copy tags", digest, f"{number} in {self.model}", copy.tags, record.copy_tags)

    def _source(
        self,
        kind: Kind,
        digest: str,
        number: str,
        version: Any,  # noqa: ANN401 - mlflow's ModelVersion
        record: ExpectedVersion,
    ) -> Iterator[Difference]:
        """Difference in the source that a registered version is loaded from."""
        right = source(version.run_id, model=any(place.startswith(f"{MODEL_PATH}/") for place in record.files))
        actual = self.client.get_model_version_download_uri(version.name, str(version.version))
        if actual != right:
            yield Difference(kind, digest, f"{number} in {version.name} is loaded from {actual}, expected {right}")

    def _files(self, digest: str, number: str, run: "Run", record: ExpectedVersion) -> Iterator[Difference]:
        files = RunFiles(self.client, run, self.root)
        if not files.own:
            words = f"the files of {number} are at {files.place}, outside {self.root.place}, or a link leads out of it"
            if files.link is not None:
                words = f"the files of {number} should be at {files.place}, and a link leads from there to {files.link}"
            yield Difference("place", digest, words)
            return
        wrong = tuple(place for place, text in record.files.items() if _digest(files, model_place(place)) != text)
        packing: tuple[str, ...] = ()
        if any(place.startswith(f"{MODEL_PATH}/") for place in record.files):
            packing = tuple(_packing(files) if record.packing is None else _changes(files, record.packing))
        if wrong or packing:
            more = f" and {len(packing) - NAMED} more of MLflow's packing" if len(packing) > NAMED else ""
            words = f"{number}: missing, altered or added: {', '.join([*wrong, *packing[:NAMED]])}{more}"
            yield Difference("files", digest, words, (*wrong, *packing))
        elif record.packing is None and any(place.startswith(f"{MODEL_PATH}/") for place in record.files):
            what = f"{number}: what MLflow packed around the model (MLmodel, code) has no digests to compare it with"
            yield Difference("packing", digest, what)

    def _alias(self, champion: str | None) -> Iterator[Difference]:
        models = self.client.search_registered_models(f"name = '{self.model}'")
        number = str(models[0].aliases.get(self.alias, "")) if models else ""
        serving = next((one for one in self.versions[self.model] if str(one.version) == number), None)
        actual = str(serving.tags.get("digest", "nothing of ours")) if serving else number and "nothing of ours"
        copy = version_of(self.versions[self.model], champion) if champion else None
        if (actual or None) != champion:
            what = f"{(actual or 'nothing')[:12]}, expected {(champion or 'nothing')[:12]}"
            yield Difference("alias", champion or "", f"the alias {self.alias} of {self.model} points to {what}")
        elif copy is not None and serving is not None and copy.version != serving.version:
            what = f"version {number}, which was registered a second time, expected {copy.version}"
            yield Difference("alias", champion or "", f"the alias {self.alias} of {self.model} points to {what}")


def source(run: str, *, model: bool) -> str:
    """MLflow's URI of a version's files."""
    return f"runs:/{run}/{MODEL_PATH}" if model else f"runs:/{run}"


def model_place(place: str) -> str:
    """Path in the run of a file of the publication: MLflow wraps the model's own files."""
    inner = place.removeprefix(f"{MODEL_PATH}/")
    return place if inner == place else f"{MODEL_PATH}/artifacts/{MODEL_PATH}/{inner}"


def version_of(versions: Iterable[Any], digest: str) -> Any:  # noqa: ANN401 - mlflow's ModelVersion
    """The lowest version with a digest."""
    matches = [version for version in versions if version.tags.get("digest") == digest]
    return min(matches, key=lambda version: int(version.version), default=None)


def run_of(client: "MlflowClient", version: Any) -> "Run | None":  # noqa: ANN401 - mlflow's ModelVersion
    """The run of a registered version, deleted or not; None if `mlflow gc` removed it."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(version.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _tags(
    kind: Kind, digest: str, where: str, actual: Mapping[str, str], right: Mapping[str, str]
) -> Iterator[Difference]:
    wrong = [
        f"{name} is {actual.get(name)!r}, expected {text!r}" for name, text in right.items() if actual.get(name) != text
    ]
    if wrong:
        yield Difference(kind, digest, f"{where}: {'; '.join(wrong)}")


def _strangers(name: str, versions: Iterable[Any], ours: set[str]) -> Iterator[Difference]:
    """Versions that lcia did not make: reported, never deleted."""
    digests: set[str] = set()
    for version in sorted(versions, key=lambda one: int(one.version)):
        digest = version.tags.get("digest", "")
        if digest not in ours or digest in digests:
            what = "a second time" if digest in digests else "by somebody else"
            yield Difference("unknown", "", f"{name} version {version.version} was registered {what}")
        digests.add(digest)


def _digest(files: RunFiles, name: str) -> str | None:
    content = files.read(name)
    return None if content is None else digest_of(content)


def _changes(files: RunFiles, right: Mapping[str, str]) -> Iterator[str]:
    """Files of MLflow's packing that differ from those published."""
    actual = files.digests(MODEL_PATH, BUNDLES)
    yield from (f"{MODEL_PATH}/{name}" for name in sorted(actual.keys() | right) if actual.get(name) != right.get(name))


def _packing(files: RunFiles) -> Iterator[str]:
    """Files of MLflow's packing that are gone: the model's description, or files that it names."""
    content = files.read(f"{MODEL_PATH}/MLmodel")
    try:
        flavor = yaml.safe_load(content or b"")["flavors"]["python_function"]
        names = [flavor["code"], Path(flavor["model_code_path"]).name, *flavor["env"].values()]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        yield f"{MODEL_PATH}/MLmodel"
        return
    here = set(files.names(MODEL_PATH))
    yield from (f"{MODEL_PATH}/{name}" for name in names if f"{MODEL_PATH}/{name}" not in here)
