"""The images run hardened: read-only, user 10001, no capability, no network, little memory.

They are built before by `make images`; nothing is built here. Minutes, so only where LCIA_CONTAINER_TESTS is set.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HARDENED = (
    *("--rm", "--network", "none", "--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"),
    *("--user", "10001:10001", "--tmpfs", "/tmp:rw,mode=1777", "--volume", "/state"),
)
pytestmark = [
    pytest.mark.container,
    pytest.mark.skipif("LCIA_CONTAINER_TESTS" not in os.environ, reason="LCIA_CONTAINER_TESTS is not set"),
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed"),
]


def _run(
    image: str, *command: str, memory: str = "2g", more: tuple[str, ...] = (), folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    name = f"localhost/lcia-{image}:0.1.0"
    if subprocess.run(["podman", "image", "exists", name], check=False).returncode:
        pytest.skip(f"{name} is not built; `make images` builds it")
    start = ["podman", "run", *HARDENED, "--memory", memory, *more, name, *command]
    return subprocess.run(start, check=False, capture_output=True, text=True, timeout=500, cwd=folder)


def _settings(tmp_path: Path) -> tuple[str, str]:
    """A cluster's settings: this image runs no step."""
    file = tmp_path / "zenml.yaml"
    file.write_text("assistant: assistant\ncluster: {}\n", encoding="utf-8")
    return "-v", f"{file}:/app/zenml.yaml:ro"


def test_the_runtime_is_well_without_torch(tmp_path: Path) -> None:
    done = _run("runtime", "lcia", "doctor", memory="1g", more=_settings(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert _run("runtime", "python", "-c", "import torch").returncode == 1
    assert _run("runtime", "sh", "-c", "command -v gcc cc pip").returncode != 0 or _has_pip_of_the_base()


def _has_pip_of_the_base() -> bool:
    found = _run("runtime", "sh", "-c", "command -v gcc cc; command -v pip").stdout.split()
    return all(not one.startswith("/opt/lcia") and one.endswith("pip") for one in found)


@pytest.mark.parametrize("image", ["runtime", "train"])
def test_what_is_inside_is_listed(image: str) -> None:
    listed = json.loads(_run(image, "cat", "/usr/share/lcia/sbom.cdx.json").stdout)
    names = {component["name"].lower() for component in listed["components"]}
    assert listed["bomFormat"] == "CycloneDX"
    assert {"zenml", "mlflow", "sqlalchemy"} <= names
    assert ("torch" in names) is (image == "train")


def test_nothing_can_be_written_but_the_state() -> None:
    assert _run("runtime", "sh", "-c", "touch /app/x || touch /opt/lcia/x").returncode != 0
    assert _run("runtime", "sh", "-c", "touch /state/x /tmp/x && id -u").stdout.strip() == "10001"


def test_what_takes_more_memory_than_its_limit_is_killed(tmp_path: Path) -> None:
    fill = ("python", "-c", "print(len(b'x' * 2**29))")
    assert _run("runtime", *fill, memory="1g").stdout.strip() == str(2**29)
    assert _run("runtime", *fill, memory="128m", folder=tmp_path).returncode == 137  # podman leaves a file `oom` there


def test_a_task_is_learnt_inside_train() -> None:
    few = ("--set", "tuning.steps=20", "--set", "tuning.max_rows=40")
    done = _run("train", "lcia", "run", "examples/tasks/movie_sentiment", *few, memory="4g")
    assert done.returncode == 3, done.stdout[-2000:] + done.stderr[-2000:]  # people have to decide
    assert "version 1: gate" in done.stdout
