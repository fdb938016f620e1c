"""Files of MLflow's runs: read where MLflow says they are; written and deleted only below this installation's root."""

import contextlib
import os
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from components.storage.fence import (
    NotErased,
    OutsideRoot,
    erase,
    lies_below,
    local_path,
    need_below,
    need_inside,
    stray,
)
from components.storage.objects import digest_of

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.tracking import MlflowClient

ADVICE = "A state that was moved or copied is mended by `lcia sync`; else registry.artifacts has to name their place"
KEY = "registry.artifacts"
"""The setting that names the root."""
_COMPILED = "__pycache__"
SERVED = "mlflow-artifacts:"
"""Artifacts that the MLflow server keeps and hands out itself."""


@dataclass(frozen=True)
class Root:
    """The root below which the files of every run have to be."""

    place: str
    """`registry.artifacts`: a path or URL."""
    home: Path | None = None
    """State folder; a root below it is valid only if no link leads out of the folder."""


def artifact_location(root: str) -> str | None:
    """Location of a new experiment's files; None if the server keeps them: below the id, by which it grants rights."""
    if root.startswith(SERVED):
        return None
    return root if urlparse(root).scheme else Path(root).absolute().as_uri()


class RunFiles:
    """The files of one run.

    MLflow's client caches old locations of files, so its repository for the run's place is used directly.
    """

    def __init__(self, client: "MlflowClient", run: "Run", root: "Root") -> None:
        """Nothing outside `root` is written or deleted."""
        self.place = str(run.info.artifact_uri)
        self._run, self._client = run, client
        on_server = root.place.startswith(SERVED) and local_path(self.place) is None
        self._root, self._home = self._server_root() if on_server else root.place, root.home

    @property
    def own(self) -> bool:
        """True if they are below this installation's root."""
        inside = lies_below(self.place, self._root) and (self._home is None or stray(self._root, self._home) is None)
        return inside and self.link is None

    @property
    def link(self) -> Path | None:
        """Real path of the files if the run's folder, or `artifacts` in it, is a link; else None."""
        here = local_path(self.place)
        if here is None:
            return None
        real = Path(os.path.realpath(here))
        return None if real.parts[-2:] == here.parts[-2:] else real

    def read(self, name: str) -> bytes | None:
        """Content of one file; None if there is none."""
        from mlflow.exceptions import MlflowException

        with (
            tempfile.TemporaryDirectory(prefix="lcia-artifact-") as folder,
            contextlib.suppress(MlflowException, OSError),
        ):
            return Path(self._repository().download_artifacts(name, folder)).read_bytes()
        return None

    def names(self, folder: str) -> list[str]:
        """Full names of the files and folders in a folder; none if it does not exist or is a link."""
        here = local_path(self.place)
        if here is not None and (here / folder).is_symlink():
            return []
        return [str(file.path) for file in self._repository().list_artifacts(folder)]

    def digests(self, folder: str, skip: str) -> dict[str, str]:
        """Name below a folder -> digest, of every file in it; `skip` names an entry that is left out.

        Compiled code is left out: any process that loads the model in place writes some.
        """
        digests = {}
        with tempfile.TemporaryDirectory(prefix="lcia-artifact-") as scratch:
            for name in self.names(folder):
                if name != f"{folder}/{skip}":
                    self._repository().download_artifacts(name, scratch)
            top = Path(scratch) / folder
            for path in top.rglob("*"):
                if path.is_file() and _COMPILED not in path.parts:
                    digests[path.relative_to(top).as_posix()] = digest_of(path.read_bytes())
        return digests

    def keep_only(self, folder: str, names: Collection[str], skip: str) -> None:
        """Delete the files below a folder that are not among `names`, and compiled code; `skip` as in `digests`.

        Raises:
            OutsideRoot, NotErased: as in `erase`.
        """
        self._need_own()
        repository, here = self._repository(), local_path(self.place)
        folders = [folder]
        for each in folders:
            for entry in repository.list_artifacts(each):
                name = str(entry.path).removeprefix(f"{folder}/")
                if name == skip or name in names:
                    continue
                if entry.is_dir and any(wanted_name.startswith(f"{name}/") for wanted_name in names):
                    folders.append(str(entry.path))
                elif here is not None:
                    erase(here / str(entry.path), here)
                else:
                    repository.delete_artifacts(str(entry.path))

    def write(self, folder: Path) -> None:
        """Add every file of a folder; a file or link of the same name is replaced.

        Raises:
            OutsideRoot: they would go outside the root.
        """
        self._need_own()
        here = local_path(self.place)
        for path in sorted(folder.rglob("*")) if here is not None else ():
            assert here is not None  # noqa: S101 - the loop is empty otherwise
            target = here / path.relative_to(folder)
            if path.is_file() or target.is_symlink():  # a link would be followed, a hard link is another state's file
                erase(target, here)
        self._repository().log_artifacts(str(folder))

    def erase(self) -> None:
        """Delete all of them, and check that they are gone.

        Raises:
            OutsideRoot: they are outside the root.
            NotErased: some are still there.
        """
        self._need_own()
        here = local_path(self.place)
        if here is not None:
            erase(here, Path(str(local_path(self._root))))
            return
        files = self._repository()
        for file in files.list_artifacts():
            files.delete_artifacts(file.path)
        rest = [file.path for file in files.list_artifacts()]
        if rest:
            raise NotErased(f"{self.place} still holds {', '.join(rest)} after they were deleted")

    def _need_own(self) -> None:
        if self._home is not None:
            need_inside(self._root, self._home, KEY)
        need_below(self.place, self._root, f"MLflow keeps the files of run {self._run.info.run_id}", ADVICE)
        if self.link is not None:
            raise OutsideRoot(
                f"a link stands at {self.place} or the folder above it, and leads to {self.link}: nothing is written "
                "or deleted there. Look who put it there, remove it, and run `lcia sync`"
            )

    def _repository(self) -> "ArtifactRepository":
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(self.place, self._client.tracking_uri)

    def _server_root(self) -> str:
        """Location of the experiment, which the server chose."""
        return str(self._client.get_experiment(self._run.info.experiment_id).artifact_location)
