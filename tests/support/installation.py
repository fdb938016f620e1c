"""A ZenML server and the double, with the tiny base model and one package."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from double import ROOT, Double
from small_loop import SECTIONS, write_package

PASSWORD = "of-this-test"
START_SECONDS = 300
WITHOUT_TORCH = Path(__file__).with_name("without_torch")


@dataclass(frozen=True)
class Site:
    """One installation on the double."""

    home: Path
    config: Path
    package: Path
    cluster: Double
    environment: Mapping[str, str]
    python = sys.executable

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`lcia` as the worker's account, and with what the worker's image has installed."""
        more = {"KUBECONFIG": str(self.cluster.kubeconfig("worker")), "PYTHONPATH": str(WITHOUT_TORCH)}
        return subprocess.Popen(
            [sys.executable, "-m", "lcia.cli.main", *arguments, "--config", str(self.config)],
            cwd=ROOT, env={**self.environment, **more},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def lcia(self, *arguments: str, seconds: float = 900) -> tuple[int, str]:
        """Exit code and output."""
        process = self.start(*arguments)
        out, _ = process.communicate(timeout=seconds)
        return process.returncode, out

    def embedded(self, *arguments: str) -> tuple[int, str]:
        """The same on this machine alone, with a state folder of its own."""
        config = self.config.with_name("embedded.yaml")
        settings = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        config.write_text(yaml.safe_dump({**settings, "cluster": None}), encoding="utf-8")
        plain = {name: value for name, value in self.environment.items() if not name.startswith("ZENML_STORE")}
        done = subprocess.run(
            [self.python, "-m", "lcia.cli.main", *arguments, "--config", str(config)], cwd=ROOT,
            env={**plain, "LCIA_HOME": str(self.home.with_name("embedded"))},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def pods(self, step: str) -> list[dict[str, Any]]:
        """Pods of a step, oldest first."""
        return [pod for pod in self.cluster.pods() if _names(pod, step)]

    def failures(self, step: str) -> int:
        """How many pods of a step's Job count as failed."""
        jobs = [job for (kind, _), job in self.cluster.objects.items() if kind == "jobs"]
        return sum(job["status"].get("failed", 0) for job in jobs if _names(job["spec"]["template"], step))

    def log(self, pod: Mapping[str, Any]) -> str:
        """What a pod printed."""
        return self.cluster.running[pod["metadata"]["name"]].log.read_text()

    def wait_for(
        self, there: Callable[[], object], what: str, worker: subprocess.Popen[str], seconds: float = 500
    ) -> None:
        """Until something is there."""
        end = time.monotonic() + seconds
        while not there():
            assert worker.poll() is None, f"no {what}, the worker ended: {worker.communicate()[0]}"
            assert time.monotonic() < end, f"no {what} after {seconds} s"
            time.sleep(0.05)


@pytest.fixture(scope="session")
def zenml_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One for all tests."""
    with zenml_serving(tmp_path_factory.mktemp("zenml-server")) as told:
        yield told


@contextmanager
def zenml_serving(folder: Path) -> Iterator[dict[str, str]]:
    """A real ZenML server on SQLite; gives the variables by which its clients find it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {
        "ZENML_SERVER": "true", "ZENML_CONFIG_PATH": str(folder / "config"), "ZENML_STORE_TYPE": "sql",
        "ZENML_STORE_URL": f"sqlite:///{folder}/zenml.db", "ZENML_SERVER_DEPLOYMENT_TYPE": "other",
        "ZENML_SERVER_AUTO_ACTIVATE": "true", "ZENML_DEFAULT_USER_NAME": "lcia",
        "ZENML_DEFAULT_USER_PASSWORD": PASSWORD, "ZENML_ANALYTICS_OPT_IN": "false",
    }  # fmt: skip
    (folder / "config").mkdir(parents=True)
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--port", str(port)],
            env={**_plain(), **told}, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        end = time.monotonic() + START_SECONDS
        while not _answers(f"{url}/health"):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, "ZenML's server did not start"
            time.sleep(0.5)
        yield {"ZENML_STORE_URL": url, "ZENML_STORE_USERNAME": "lcia", "ZENML_STORE_PASSWORD": PASSWORD}
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def site(zenml_server: dict[str, str], tiny_folder: Path, tmp_path: Path) -> Iterator[Site]:
    """A new one."""
    with installed(tmp_path, zenml_server, tiny_folder) as found:
        yield found


@contextmanager
def installed(folder: Path, zenml: Mapping[str, str], base: Path, *, forked: bool = True) -> Iterator[Site]:
    """Settings of a cluster, whose pods see the same state folder."""
    home, config = folder / "home", folder / "zenml.yaml"
    settings = {
        "base_model": {"name": str(base), "threads": 1},
        **SECTIONS,
        "cluster": {
            "context": "double",
            "retries": 2,
            "image": "lcia-train:test",
            "steps": {"tune": {"gpu": 1, "memory": "8Gi", "node_selector": {"pool": "gpu"}}},
        },
    }
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    environment = {**_plain(), **zenml, "LCIA_HOME": str(home)}
    (folder / "double").mkdir()
    image = {**_plain(), "ZENML_ANALYTICS_OPT_IN": "false"}
    with Double(folder / "double", image, forked=forked) as cluster:
        yield Site(home, config, write_package(folder / "packages", "movie_sentiment"), cluster, environment)


def _names(pod: Mapping[str, Any], step: str) -> bool:
    container = pod["spec"]["containers"][0]
    words = [*container.get("command", []), *container.get("args", [])]
    return ("--step_name", step) in pairwise(words)


def _plain() -> dict[str, str]:
    """The variables of this process that any other has."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": os.environ.get("HOME", "/"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
