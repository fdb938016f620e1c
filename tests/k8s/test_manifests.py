"""The overlays as they would be sent to a cluster: schema, references, selectors, rights, hardening.

Every check is also shown something broken, which it has to find.
"""

import copy
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from manifests import (
    OVERLAYS,
    RUNS_SPACE,
    Doc,
    containers,
    dangling,
    granted,
    named,
    pods,
    render,
    schedules,
    unrestricted,
    unselected,
    validate,
    zenml_verbs,
)

from components.settings import Settings
from infra.stacks.kubernetes import NEEDED

ALL = {overlay: {"brought": not overlay.startswith("single-node")} for overlay in OVERLAYS}
BUILT = {"lcia-runtime", "lcia-train", "lcia-database", "vllm-openai"}
STACK = {("serviceaccounts", "get"), ("persistentvolumeclaims", "get")}
"""What `lcia stack up kubernetes` reads beside."""


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def docs(overlay: str, tmp_path_factory: pytest.TempPathFactory) -> list[Doc]:
    return render(overlay, tmp_path_factory.mktemp(overlay))


def _broken(docs: list[Doc], kind: str, name: str) -> tuple[list[Doc], Doc]:
    changed = copy.deepcopy(docs)
    return changed, named(changed, kind)[name]


@pytest.mark.parametrize("version", ["1.30", "1.36"])
def test_the_schemas_take_every_object(docs: list[Doc], version: str) -> None:
    for doc in docs:
        validate(doc, version)
    broken, worker = _broken(docs, "Deployment", "worker")
    worker["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(worker, version, strict=True)
    assert len(broken) == len(docs)


def test_every_reference_resolves(docs: list[Doc], overlay: str) -> None:
    assert dangling(docs, **ALL[overlay]) == []
    broken, service = _broken(docs, "Deployment", "service")
    pod = service["spec"]["template"]["spec"]
    container = pod["containers"][0]
    pod["serviceAccountName"] = "nobody"
    pod["volumes"][0]["persistentVolumeClaim"]["claimName"] = "gone"
    container["env"][0]["valueFrom"]["secretKeyRef"]["key"] = "other-url"
    container["readinessProbe"]["httpGet"]["port"] = "https"
    container["volumeMounts"][-1]["name"] = "gone"
    found = " ".join(dangling(broken, **ALL[overlay]))
    assert all(word in found for word in ("nobody", "claim gone", "other-url", "https", "volume gone"))


def test_every_selector_and_port_meets_a_pod(docs: list[Doc]) -> None:
    assert unselected(docs) == []
    broken, mlflow = _broken(docs, "Service", "mlflow")
    mlflow["spec"]["ports"][0]["targetPort"] = "grpc"
    named(broken, "NetworkPolicy")["zenml"]["spec"]["podSelector"]["matchLabels"] = {"app.kubernetes.io/name": "zen"}
    found = " ".join(unselected(broken))
    assert "grpc" in found
    assert "policy zenml selects no pod" in found


def test_every_pod_is_restricted(docs: list[Doc]) -> None:
    assert unrestricted(docs) == []
    for space in named(docs, "Namespace").values():
        assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for key, value, word in (
        ("readOnlyRootFilesystem", False, "root"),
        ("allowPrivilegeEscalation", True, "privileges"),
        ("capabilities", {"drop": ["ALL"], "add": ["NET_RAW"]}, "capabilities"),
        ("runAsUser", 0, "as root"),
    ):
        broken, worker = _broken(docs, "Deployment", "worker")
        worker["spec"]["template"]["spec"]["containers"][0]["securityContext"][key] = value
        assert [word in line for line in unrestricted(broken)] == [True]


def test_no_token_but_the_workers(docs: list[Doc]) -> None:
    accounts = [doc for doc in docs if doc["kind"] == "ServiceAccount"]
    assert len(accounts) == (7 if "gateway" in named(docs, "ServiceAccount") else 6)
    assert all(not account["automountServiceAccountToken"] for account in accounts)
    broken, mlflow = _broken(docs, "Deployment", "mlflow")
    del mlflow["spec"]["template"]["spec"]["automountServiceAccountToken"]
    assert ["token" in line for line in unrestricted(broken)] == [True]


def test_rights_are_those_that_are_used(docs: list[Doc]) -> None:
    """Granted = what the stack's check asks for = what ZenML's source can call, plus `watch` of what it polls."""
    needed = {(resource, verb) for (_, resource), verbs in NEEDED.items() for verb in verbs}
    assert zenml_verbs() <= needed
    assert needed - zenml_verbs() <= {("jobs", "watch"), ("pods", "watch"), ("pods", "get"), ("pods/log", "get")}
    assert granted(docs, "orchestrator", RUNS_SPACE) == needed
    assert granted(docs, "worker") == needed | STACK
    assert (
        granted(docs, "service") == granted(docs, "step", RUNS_SPACE) == granted(docs, "default", RUNS_SPACE) == set()
    )
    assert not any(doc["kind"] in ("ClusterRole", "ClusterRoleBinding") for doc in docs)
    broken = copy.deepcopy(docs)
    named(broken, "Role", RUNS_SPACE)["runs"]["rules"][-1]["verbs"].append("get")
    assert granted(broken, "worker") != needed | STACK


def test_schedules_can_be_read(docs: list[Doc]) -> None:
    assert schedules(docs) == []
    wrong = {"kind": "CronJob", "metadata": {"name": "n"}, "spec": {"schedule": "61 * * * *", "timeZone": "Mars/Base"}}
    assert len(schedules([wrong])) == 2


def test_settings_are_taken_and_name_what_is_there(docs: list[Doc], overlay: str) -> None:
    maps = {name.rsplit("-", 1)[0]: doc for name, doc in named(docs, "ConfigMap").items()}
    settings = Settings.model_validate(yaml.safe_load(maps["settings"]["data"]["zenml.yaml"]))
    assert settings.cluster is not None
    assert settings.cluster.namespace in named(docs, "Namespace")
    runs = settings.cluster.namespace
    accounts = {settings.cluster.orchestrator_account, settings.cluster.step_account}
    assert accounts <= named(docs, "ServiceAccount", runs).keys()
    assert settings.cluster.claim in named(docs, "PersistentVolumeClaim", runs)
    assert named(docs, "ConfigMap", runs)["steps"]["data"] == {"image": settings.cluster.image}
    images = {container["image"] for _, _, pod in pods(docs) for container in containers(pod)}
    assert settings.cluster.image.replace("lcia-train", "lcia-runtime") in images
    assert settings.serve.host == "0.0.0.0"
    assert settings.registry.tracking_uri == "http://mlflow:5000"


def test_every_claim_of_a_single_node_has_its_volume(tmp_path: Path) -> None:
    docs = render("single-node", tmp_path)
    claims = {_place(doc["metadata"]): doc for doc in docs if doc["kind"] == "PersistentVolumeClaim"}
    volumes = named(docs, "PersistentVolume")
    bound = {_place(volume["spec"]["claimRef"]): volume["spec"] for volume in volumes.values()}
    assert bound["lcia", "objects"]["local"] == bound["lcia-runs", "objects"]["local"], "one storage, two claims"
    assert bound.keys() == claims.keys()
    for name, claim in claims.items():
        assert bound[name]["capacity"]["storage"] == claim["spec"]["resources"]["requests"]["storage"]
        assert bound[name]["accessModes"] == claim["spec"]["accessModes"] == ["ReadWriteOnce"]
        assert bound[name]["storageClassName"] == claim["spec"]["storageClassName"] == "lcia-node"


def _place(meta: Doc) -> tuple[str, str]:
    return meta["namespace"], meta["name"]


def test_images_are_those_on_the_node(docs: list[Doc]) -> None:
    for where, _, pod in pods(docs):
        for container in containers(pod):
            assert container["imagePullPolicy"] == "IfNotPresent", where
            assert re.split("[@:]", container["image"].split("/")[-1])[0] in BUILT, where
            assert not container["image"].endswith(":latest"), where
