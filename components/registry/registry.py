"""The registry, MLflow: a view for people, never the truth.

Every call first looks, by the tag `digest`, for what it would make, so each may be repeated at any time.
`<name>-candidates` holds every candidate, `<name>` the promoted versions; its alias `champion` marks the one in use. In
MLflow the last writer of an alias wins; the outbox lets only one process write, and this module reads back.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlparse

from components.audit.heads import need_same
from components.errors import LciaError
from components.registry import client as registry_client
from components.registry import limits, locations, runs
from components.registry.deletion import forget
from components.registry.differences import Difference, ExpectedVersion, MlflowView, run_of, source
from components.registry.files import Root, RunFiles, artifact_location
from components.storage.objects import Json

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ALIAS = "champion"


class RegistryError(LciaError):
    """MLflow failed, or does not hold what it should."""


class RegistryDenied(RegistryError):
    """The account in use may not do this in MLflow; a process with another account may."""


@dataclass(frozen=True)
class Published:
    """A candidate in MLflow."""

    version: int
    """MLflow's number."""
    packing: dict[str, str] | None
    """Digests of MLflow's packing of the model; None if its files existed before."""


class Registry:
    """The registered models of one assistant."""

    def __init__(self, tracking_uri: str, artifacts: str, experiment: str, name: str, home: Path | None = None) -> None:
        """Only remembers the addresses; the first call imports and contacts MLflow.

        `artifacts`: path or URL of the files of every run. Nothing outside it is written or deleted; nothing at all if
        it is below the state folder `home` and a link leads out of that folder.
        """
        self.name = name
        self.candidates_name = f"{name}-candidates"
        self._tracking_uri = tracking_uri
        self._root = Root(artifacts, home)
        self._experiment = experiment
        self._opened: MlflowClient | None = None
        self._line = registry_client.MlflowLine(tracking_uri)

    def publish_candidate(self, publication: Mapping[str, Json], folder: Path) -> Published:
        """Log a candidate as a run and register its version.

        `publication`: `digest`, `number`, and optionally `params` {name: value}, `metrics` {name: number},
        `curves` {name: [[step, value]]}, `tags` {name: text}, `datasets` [{name, digest, context, source, rows}],
        `description` text, and `learning`, the key under which `follow` showed the run before. `folder` holds the
        artifacts; `assistant/` in it is the model.

        Raises:
            RegistryError: MLflow refused or can't be reached.
        """
        digest = str(publication["digest"])
        with self._talk() as client:
            existing = self._find(client, self.candidates_name, digest)
            tags = {**runs.texts(publication.get("tags", {})), "digest": digest}
            if existing is not None:
                for name, value in tags.items():
                    client.set_model_version_tag(self.candidates_name, str(existing), name, value)
                return Published(existing, None)
            model = (folder / runs.MODEL_PATH).is_dir()
            experiment = self._experiment_id(client)
            run, packing = runs.candidate_run(client, experiment, self._root, self.name, publication, folder)
            self._ensure_model(client, self.candidates_name)
            text = publication.get("description")
            version = client.create_model_version(
                self.candidates_name,
                source=source(run, model=model),
                run_id=run,
                tags=tags,
                description=limits.cut_to(text, limits.DESCRIPTION, runs.WHOLE_CARD) if text else None,
            )
            return Published(int(version.version), packing)

    def follow(self, key: str, name: str, tags: Mapping[str, str], curves: Mapping[str, Json]) -> None:
        """Show a run that is still learning; each call adds the new points of its curves.

        Raises:
            RegistryError: MLflow can't be reached.
        """
        with self._talk() as client:
            runs.follow(client, self._experiment_id(client), key, name, tags, curves)

    def unfollow(self, key: str, reason: str) -> None:
        """End what `follow` showed: the run failed.

        Raises:
            RegistryError: MLflow can't be reached.
        """
        with self._talk() as client:
            runs.unfollow(client, self._experiment_id(client), key, reason)

    def tag(self, digest: str, tags: Mapping[str, str], copy_tags: Mapping[str, str] | None = None) -> None:
        """Set tags on a candidate's version and run; on its promoted copy, if any, `copy_tags` or the same tags.

        Raises:
            RegistryError: the candidate was never published, or MLflow can't be reached.
        """
        tags, copy_texts = runs.texts(tags), runs.texts(tags if copy_tags is None else copy_tags)
        with self._talk() as client:
            candidate = self._candidate(client, digest)
            copy = self._find(client, self.name, digest)
            run = client.get_model_version(self.candidates_name, str(candidate)).run_id
            for name, value in tags.items():
                client.set_model_version_tag(self.candidates_name, str(candidate), name, value)
                client.set_tag(run, name, value)
            for name, value in copy_texts.items() if copy is not None else ():
                client.set_model_version_tag(self.name, str(copy), name, value)

    def add_promoted(self, digest: str, tags: Mapping[str, str]) -> int:
        """Copy a candidate's version to `<name>`, unless it is there, with these tags; the alias stays.

        Raises:
            RegistryError: never published, or refused.
        """
        with self._talk() as client:
            version = self._find(client, self.name, digest) or self._copy(client, digest)
            for name, value in runs.texts(tags).items():
                client.set_model_version_tag(self.name, str(version), name, value)
            return version

    def promote(self, digest: str, tags: Mapping[str, str] | None = None) -> int:
        """Copy a candidate's version to `<name>`, unless it is there; move the alias, and read back.

        Raises:
            RegistryError: never published, refused, or the alias was moved by somebody else meanwhile.
        """
        version = self.add_promoted(digest, tags or {})
        with self._talk() as client:
            return self._serve(client, version, digest)

    # -- repairing what was changed in MLflow itself ------------------------------------------------

    def differences(self, versions: Mapping[str, ExpectedVersion], champion: str | None) -> list[Difference]:
        """Differences between MLflow and what lcia sent it; `champion`: digest that it has to serve.

        Raises:
            RegistryError: MLflow can't be reached.
        """
        with self._talk() as client:
            return self._view(client).differences(versions, champion)

    def need_loadable(self, digest: str, record: ExpectedVersion) -> None:
        """Refuse a version that can't be loaded from MLflow, or that would load as something else.

        Raises:
            RegistryError: with the files that are missing or in the wrong place.
        """
        with self._talk() as client:
            wrong = [one.words for one in self._view(client).of_version(digest, record) if one.loading]
        if wrong:
            raise RegistryError(f"{'; '.join(wrong)}: it can't be loaded. `lcia sync` publishes again what is missing")

    def answers(self) -> bool:
        """True if MLflow can be reached, so that a failure is a refusal."""
        try:
            with self._talk() as client:
                client.search_registered_models(max_results=1)
        except LciaError:
            return False
        return True

    def ask_anew(self) -> None:
        """Forget that MLflow was silent: somebody says that it works again."""
        self._line.forget()

    def recorded_place(self) -> str | None:
        """Location of the experiment's files by MLflow; None if there is no experiment yet.

        Raises:
            RegistryError: MLflow can't be reached.
        """
        with self._talk() as client:
            experiment = client.get_experiment_by_name(self._experiment)
        return None if experiment is None else str(experiment.artifact_location)

    def moved_from(self) -> str | None:
        """Location of the experiment's files by MLflow if it is not `registry.artifacts`; else None.

        Raises:
            RegistryError: MLflow can't be reached.
        """
        return locations.moved_from(self.recorded_place(), self._root.place)

    def serve(self, digest: str | None) -> None:
        """Move the alias to a promoted version; remove it if there is no champion (None)."""
        if digest is not None:
            self.promote(digest)
            return
        with self._talk() as client:
            client.delete_registered_model_alias(self.name, ALIAS)

    def drop_broken(self, digest: str) -> None:
        """Delete a candidate's registered versions that have no run, or are loaded from files other than the run's."""
        with self._talk() as client:
            for model in (self.candidates_name, self.name):
                for version in client.search_model_versions(f"name = '{model}' and tags.digest = '{digest}'"):
                    location = client.get_model_version_download_uri(model, str(version.version))
                    own = {source(version.run_id, model=True), source(version.run_id, model=False)}
                    if run_of(client, version) is None or location not in own:
                        client.delete_model_version(model, str(version.version))

    def copy_again(self, digest: str) -> None:
        """Make the promoted copy of a candidate again."""
        with self._talk() as client:
            for version in client.search_model_versions(f"name = '{self.name}' and tags.digest = '{digest}'"):
                client.delete_model_version(self.name, str(version.version))
            self._copy(client, digest)

    def tag_version(self, digest: str, tags: Mapping[str, str], copy_tags: Mapping[str, str] | None) -> None:
        """Set tags on a candidate's version and run, and `copy_tags` on its promoted copy, made if missing."""
        with self._talk() as client:
            candidate, run = str(self._candidate(client, digest)), self._living_run(client, digest)
            for name, value in tags.items():
                client.set_model_version_tag(self.candidates_name, candidate, name, value)
                client.set_tag(run, name, value)
            if copy_tags is not None:
                version = self._find(client, self.name, digest) or self._copy(client, digest)
                for name, value in copy_tags.items():
                    client.set_model_version_tag(self.name, str(version), name, value)

    def restore_run(self, digest: str) -> None:
        """Bring back a deleted run of a candidate, and its experiment."""
        with self._talk() as client:
            self._living_run(client, digest)

    def upload(self, digest: str, folder: Path) -> None:
        """Write files into a candidate's run, over existing ones."""
        with self._talk() as client:
            RunFiles(client, client.get_run(self._run(client, digest)), self._root).write(folder)

    def upload_all(self, digest: str, folder: Path, *, packing_alone: bool = False) -> dict[str, str]:
        """Write the files of a publication into a candidate's run; see `runs.write_files`."""
        with self._talk() as client:
            run = self._run(client, digest)
            return runs.write_files(client, run, self._root, folder, digest, packing_alone=packing_alone)

    def keep_head(self, name: str, content: bytes) -> None:
        """Write a signed head of the log as an artifact of a run of its own, and read it back.

        Raises:
            RegistryError: MLflow can't be reached.
            HeadNotKept: another content is there under that name.
        """
        with self._talk() as client:
            run = runs.heads_run(client, self._experiment_id(client), self.name)
            files = RunFiles(client, client.get_run(run), self._root)
            stored_content = files.read(name) if files.own else None
            if stored_content is None:
                with tempfile.TemporaryDirectory(prefix="lcia-head-") as folder:
                    (Path(folder) / name).write_bytes(content)
                    files.write(Path(folder))
                stored_content = files.read(name) or b""
        need_same("MLflow", name, content, stored_content)

    def rollback(self, digest: str) -> int:
        """Move the alias to an earlier promoted version; a lost copy is made again.

        Raises:
            RegistryError: as in `promote`.
        """
        return self.promote(digest)

    def models_page(self) -> str | None:
        """Address of MLflow's page of the candidates; None if MLflow is a database, not a server."""
        if urlparse(self._tracking_uri).scheme not in ("http", "https"):
            return None
        return f"{self._tracking_uri.rstrip('/')}/#/models/{self.candidates_name}"

    def compare_page(self, digests: Sequence[str]) -> str | None:
        """Address of MLflow's page that compares candidates; None if MLflow is a database, not a server.

        Raises:
            RegistryError: MLflow can't be reached, or a candidate was never published.
        """
        if self.models_page() is None:
            return None
        with self._talk() as client:
            versions = sorted(self._candidate(client, digest) for digest in digests)
            run_ids = {
                str(version): str(client.get_model_version(self.candidates_name, str(version)).run_id)
                for version in versions
            }
        query = {"name": json.dumps(self.candidates_name), "runs": json.dumps(run_ids, separators=(",", ":"))}
        return f"{self._tracking_uri.rstrip('/')}/#/compare-model-versions?{urlencode(query, quote_via=quote)}"

    def forget(self, digest: str) -> int:
        """Delete a candidate's versions and files; its run keeps its numbers. Returns the number of versions deleted.

        Raises:
            RegistryError: it is the version in use, or MLflow can't be reached.
        """
        if self.champion() == digest:
            raise RegistryError(f"MLflow serves {digest[:12]} as champion; it is not deleted before another one is")
        with self._talk() as client:
            models = (self.candidates_name, self.name)
            self._experiment_id(client)  # restores it with the runs that were deleted with it
            return forget(client, self._root, models, digest)

    def champion(self) -> str | None:
        """Digest of the version under the alias; '' if that has no such tag, None if there is no champion.

        Raises:
            RegistryError: MLflow can't be reached.
        """
        with self._talk() as client:
            model = self._model(client, self.name)
            if model is None or ALIAS not in model.aliases:
                return None
            return str(client.get_model_version_by_alias(self.name, ALIAS).tags.get("digest", ""))

    def _view(self, client: "MlflowClient") -> MlflowView:
        names = (self.candidates_name, self.name)
        versions = {name: list(client.search_model_versions(f"name = '{name}'")) for name in names}
        experiment = client.get_experiment_by_name(self._experiment)
        return MlflowView(client, self._root, *names, ALIAS, versions, experiment.experiment_id if experiment else None)

    def _serve(self, client: "MlflowClient", version: int, digest: str) -> int:
        model = self._model(client, self.name)
        if model is None or str(model.aliases.get(ALIAS)) != str(version):
            client.set_registered_model_alias(self.name, ALIAS, str(version))
        served_version = client.get_model_version_by_alias(self.name, ALIAS)
        if served_version.tags.get("digest") != digest:
            raise RegistryError(
                f"MLflow serves {self.name} version {served_version.version} with digest "
                f"{served_version.tags.get('digest')}, expected {digest}: somebody else moves the "
                f"alias; only the promoter's account should write {self.name}"
            )
        return version

    def _run(self, client: "MlflowClient", digest: str) -> str:
        version = str(self._candidate(client, digest))
        return str(client.get_model_version(self.candidates_name, version).run_id)

    def _living_run(self, client: "MlflowClient", digest: str) -> str:
        """The run of a candidate, restored if it was deleted: a deleted run takes no tags."""
        run = self._run(client, digest)
        self._experiment_id(client)  # restores it with the runs that were deleted with it
        if client.get_run(run).info.lifecycle_stage == "deleted":
            client.restore_run(run)
        return run

    def _copy(self, client: "MlflowClient", digest: str) -> int:
        candidate = self._candidate(client, digest)
        self._ensure_model(client, self.name)
        with runs.quiet():
            copy = client.copy_model_version(f"models:/{self.candidates_name}/{candidate}", self.name)
        return int(copy.version)

    def _experiment_id(self, client: "MlflowClient") -> str:
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            location = artifact_location(self._root.place)
            locations.need_short(location, self._tracking_uri)
            return str(client.create_experiment(self._experiment, artifact_location=location))
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _candidate(self, client: "MlflowClient", digest: str) -> int:
        version = self._find(client, self.candidates_name, digest)
        if version is None:
            raise RegistryError(
                f"MLflow model {self.candidates_name} has no version with digest {digest}, expected one from its "
                "registration; it was deleted or another MLflow is configured (registry.tracking_uri)"
            )
        return version

    def _find(self, client: "MlflowClient", model: str, digest: str) -> int | None:
        """Lowest version of `model` with this digest."""
        versions = client.search_model_versions(f"name = '{model}' and tags.digest = '{digest}'")
        return min((int(version.version) for version in versions), default=None)

    def _model(self, client: "MlflowClient", name: str) -> "Json | None":
        models = client.search_registered_models(f"name = '{name}'")
        return models[0] if models else None

    def _ensure_model(self, client: "MlflowClient", name: str) -> None:
        if self._model(client, name) is None:
            client.create_registered_model(name)

    @contextmanager
    def _talk(self) -> Iterator["MlflowClient"]:
        """The client; failures of MLflow, and of the libraries it calls, are raised as ours."""
        registry_client.prepare(self._tracking_uri)
        try:
            with self._line.talk():
                if self._opened is None:
                    self._opened = registry_client.connect(self._tracking_uri)
                yield self._opened
        except LciaError:
            raise
        except Exception as error:  # MLflow's, SQLAlchemy's, the operating system's, those of a bucket's client
            reason = str(error) or type(error).__name__
            raise (RegistryDenied if registry_client.is_denial(error) else RegistryError)(
                f"MLflow at registry.tracking_uri did not do as asked: {reason}. Nothing is lost: it is told "
                "again at the next `lcia` verb that writes"
            ) from error
