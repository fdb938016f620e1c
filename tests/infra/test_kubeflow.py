"""The stack `kubeflow`: what it says is missing, and what Kubeflow would be sent for both pipelines.

kfp can't be beside the locked packages: `make kubeflow` makes its environment and runs this. No Kubeflow is asked.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.runs import STEPS

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build" / "kubeflow" / "bin" / "python"
IMAGE = "registry.example.com/lcia-train@sha256:" + "0" * 64
TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
CLUSTER = {
    "image": IMAGE,
    "retries": 2,
    "kubeflow": {"host": "http://127.0.0.1:9/pipeline"},
    "default": {"cpu": "500m", "memory": "2Gi", "node_selector": {"pool": "cpu"}},
    "steps": {
        "tune": {"cpu": "4", "memory": "24Gi", "gpu": 1, "node_selector": {"pool": "gpu"}, "tolerations": [TOLERATION]}
    },
}


def _settings(folder: Path, **cluster: Any) -> Path:
    file = folder / "zenml.yaml"
    file.write_text(yaml.safe_dump({"cluster": {**CLUSTER, **cluster}}), encoding="utf-8")
    return file


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ZENML_", "LCIA_"))}
    return {**kept, "LCIA_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    start = [sys.executable, "-m", "lcia.cli.main", "stack", "up"]
    for name, cluster, words in (
        (
            "kubeflow",
            {"image": "lcia-train:0.1.0"},
            ("make kubeflow", "ZENML_STORE_URL", "names none", "answer of http"),
        ),
        ("kubeflow", {"kubeflow": None}, ("cluster.kubeflow", "`host` is needed")),
        ("kubernetes", {}, ("cluster.kubeflow",)),
    ):
        config = _settings(tmp_path, **cluster)
        done = subprocess.run(
            [*start, name, "--config", config], cwd=ROOT, env=_environment(tmp_path),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1, done.stdout
        assert all(word in done.stderr for word in words), done.stderr


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """By pipeline: Kubeflow's specification, and that of what Kubernetes adds."""
    if not PYTHON.exists():
        pytest.skip(f"{PYTHON.relative_to(ROOT)} is not there; `make kubeflow` makes it")
    folder = tmp_path_factory.mktemp("kubeflow")
    done = subprocess.run(
        [PYTHON, ROOT / "tests" / "support" / "compile_kubeflow.py", folder / "home", _settings(folder)], cwd=ROOT,
        env=_environment(folder), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _kebab(step: str) -> str:
    return step.replace("_", "-")


@pytest.mark.parametrize("pipeline", STEPS)
def test_every_step_is_a_task_in_order(sent: dict[str, Any], pipeline: str) -> None:
    specification, _ = sent[pipeline]
    tasks = specification["root"]["dag"]["tasks"]
    assert tasks.keys() == {_kebab(step) for step in STEPS[pipeline]}
    above: set[str] = set()
    for step in map(_kebab, STEPS[pipeline]):
        assert set(tasks[step].get("dependentTasks", ())) <= above, step
        assert bool(tasks[step].get("dependentTasks")) is bool(above), step
        assert tasks[step]["retryPolicy"]["maxRetryCount"] == 2
        assert not tasks[step]["cachingOptions"].get("enableCache")
        above.add(step)
    last = STEPS[pipeline][-2:]
    assert _kebab(last[0]) in tasks[_kebab(last[1])]["dependentTasks"]


@pytest.mark.parametrize("pipeline", STEPS)
def test_every_step_runs_its_entrypoint_in_the_image(sent: dict[str, Any], pipeline: str) -> None:
    specification, platform = sent[pipeline]
    executors = specification["deploymentSpec"]["executors"]
    places = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for step in STEPS[pipeline]:
        container, place = executors[f"exec-{_kebab(step)}"]["container"], places[f"exec-{_kebab(step)}"]
        assert container["image"] == IMAGE
        assert container["command"] == ["python", "-m", "zenml.entrypoints.entrypoint"]
        assert container["args"][-2:] == ["--step_name", step]
        told = {one["name"]: one["value"] for one in container["env"]}
        assert (told["HOME"], told["LCIA_HOME"]) == ("/tmp", "/state")
        resources, gpu = container["resources"], step == "tune"
        asked = {key: resources[f"resource{key}"] for key in ("CpuRequest", "MemoryRequest", "MemoryLimit")}
        memory = "24Gi" if gpu else "2Gi"
        assert asked == {"CpuRequest": "4" if gpu else "500m", "MemoryRequest": memory, "MemoryLimit": memory}
        accelerator = resources.get("accelerator")
        assert (accelerator is not None) is gpu
        if gpu:
            assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "1")
        assert place["nodeSelector"] == {"labels": {"pool": "gpu" if gpu else "cpu"}}
        assert place.get("tolerations", []) == ([TOLERATION] if gpu else [])
        assert [(one["constant"], one["mountPath"]) for one in place["pvcMount"]] == [("objects", "/state")]
        assert {one["mountPath"] for one in place["emptyDirMounts"]} == {"/dev/shm", "/tmp"}
        assert place["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
        assert place["imagePullPolicy"] == "IfNotPresent"
