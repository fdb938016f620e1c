"""Both pipelines as Jobs of the test double: ZenML's real orchestrator, its pod and the steps' pods."""

import json
import sqlite3
import subprocess
from contextlib import closing
from typing import Any

import pytest
from double import Loss
from installation import Site

LONG = ("--set", "tuning.steps=60")
"""Optimizer steps, so that there is a moment in which the tuning is under way."""
LOSSES = {
    "ingest_task": Loss("evicted", 0),
    "validate_data": Loss("deleted", 20),
    "check_drift": Loss("evicted", 20),
    "group_instructions": Loss("deleted", 0),
    "evaluate_forgetting": Loss("deleted", 20),
    "gate": Loss("evicted", 0),
    "register_candidate": Loss("deleted", 0),
}
"""Of every step's first pod; `tune` loses its own in the midst of training."""


@pytest.mark.timeout(1800)
def test_a_task_is_learnt_though_every_step_loses_its_pod_and_the_worker_dies_twice(site: Site) -> None:
    code, out = site.lcia("stack", "up", "kubernetes")
    assert code == 0, out
    site.cluster.losses.update(LOSSES)
    worker = site.start("run", str(site.package), "--as", "site", *LONG)
    site.wait_for(lambda: site.failures("validate_data"), "lost pod that validates", worker)
    worker.kill()
    worker.wait()

    worker = site.start("work", *LONG)
    site.wait_for(lambda: list(site.home.glob("objects/scratch/**/checkpoint.safetensors")), "checkpoint", worker)
    (first,) = site.pods("tune")
    site.cluster.take_away(first["metadata"]["name"], Loss("evicted", 20))
    site.wait_for(lambda: site.pods("evaluate_forgetting"), "pod that evaluates", worker)
    worker.kill()
    worker.wait()

    code, out = site.lcia("work", *LONG)
    assert code == 3, out
    assert "gate" in out
    for step, loss in {**LOSSES, "tune": Loss("evicted", 20)}.items():
        phases = [pod["status"]["phase"] for pod in site.pods(step)]
        evicted = loss.how == "evicted"
        assert (phases, site.failures(step)) == ((["Failed"] if evicted else []) + ["Succeeded"], int(not evicted)), (
            step
        )
    tuned = site.pods("tune")
    assert "RunInterruptedException" in site.log(tuned[0])
    limits = tuned[0]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"memory": "8Gi", "nvidia.com/gpu": "1"}
    assert tuned[0]["spec"]["nodeSelector"] == {"pool": "gpu"}
    assert sorted(_zenml_runs(site).values()) == ["completed", "completed"], "the dead worker's runs were waited for"
    with closing(sqlite3.connect(site.home / "mlflow.db")) as registry:
        published = registry.execute("SELECT name, version FROM model_versions").fetchall()
    assert published == [("assistant-candidates", 1)], "by a worker whose image has no torch"
    assert site.cluster.refused == []
    assert _restricted(site) == []

    code, out = site.lcia("status", "--json")
    made = json.loads(out)["candidates"]
    code, out = site.embedded("run", str(site.package), "--as", "site", *LONG, "--json")
    assert json.loads(out[out.index("{") :])["digest"] == made[0]["digest"], "the same version as on a laptop"


def _zenml_runs(site: Site) -> dict[str, str]:
    script = (
        "import json\nfrom zenml.client import Client\n"
        "print(json.dumps({r.name: r.status.value for r in Client().list_pipeline_runs().items}))"
    )
    done = subprocess.run(
        [site.python, "-c", script], env={**site.environment, "ZENML_CONFIG_PATH": str(site.home / "zenml")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def _restricted(site: Site) -> list[str]:
    """What the Pod Security Standard `restricted` would refuse."""
    wrong = []
    for pod in site.cluster.pods():
        security: dict[str, Any] = pod["spec"]["containers"][0].get("securityContext") or {}
        fine = (
            security.get("runAsNonRoot") is True
            and security.get("allowPrivilegeEscalation") is False
            and security.get("capabilities", {}).get("drop") == ["ALL"]
            and security.get("seccompProfile", {}).get("type") == "RuntimeDefault"
        )
        wrong += [] if fine else [pod["metadata"]["name"]]
    return wrong
