"""The gateway on a cluster, in every way in which it is shipped: what it reaches, sees and waits for."""

import copy
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
from manifests import OVERLAYS, SERVERS, Doc, containers, matches, named, pods, reaches, render, validate

from components.serving import vllm
from components.settings import Settings, load_settings

GATEWAYS = {"app.kubernetes.io/component": "gateway"}
WITH_GATEWAY = OVERLAYS[2:]
GPU = "production+gateway+vllm"


@pytest.fixture(scope="module")
def installations(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[Doc]]:
    return {name: render(name, tmp_path_factory.mktemp(name)) for name in WITH_GATEWAY}


@pytest.fixture(params=WITH_GATEWAY)
def docs(request: pytest.FixtureRequest, installations: Mapping[str, list[Doc]]) -> list[Doc]:
    return installations[request.param]


def gateways(docs: list[Doc]) -> dict[str, tuple[Doc, Doc]]:
    """Labels and pod of each workload of gateways."""
    return {name: (labels, pod) for name, labels, pod in pods(docs) if matches({"matchLabels": GATEWAYS}, labels)}


def main_container(pod: Doc) -> Doc:
    container: Doc
    (container,) = pod["containers"]
    return container


def settings_of(docs: list[Doc], container: Doc, folder: Path) -> Settings:
    """Settings that a gateway's container runs under."""
    (text,) = (doc["data"]["zenml.yaml"] for name, doc in named(docs, "ConfigMap").items() if "settings" in name)
    file = folder / "zenml.yaml"
    file.write_text(text, encoding="utf-8")
    environment = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    return load_settings(file, environment=environment, home_folder=Path("/state"))


def test_requests_may_end_before_a_pod_does(docs: list[Doc], tmp_path: Path) -> None:
    """Kubernetes counts the pause as part of the grace period."""
    for _, pod in gateways(docs).values():
        container = main_container(pod)
        settings = settings_of(docs, container, tmp_path)
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod["terminationGracePeriodSeconds"] >= pause + settings.gateway.drain_seconds + 10


def test_probes_ask_the_two_kinds_of_health_at_the_port_that_it_listens_on(docs: list[Doc], tmp_path: Path) -> None:
    for _, pod in gateways(docs).values():
        container = main_container(pod)
        paths = {name: container[name]["httpGet"]["path"] for name in ("readinessProbe", "livenessProbe")}
        assert paths == {"readinessProbe": "/health/ready", "livenessProbe": "/health/live"}
        settings = settings_of(docs, container, tmp_path)
        assert container["ports"] == [{"name": "http", "containerPort": settings.gateway.port}]
        assert settings.gateway.host == "0.0.0.0"


def test_it_reaches_names_and_the_service_alone(docs: list[Doc]) -> None:
    servers = {name.partition(" ")[2]: labels for name, labels, _ in pods(docs)}
    for labels, _ in gateways(docs).values():
        targets = {name for name, other in servers.items() if reaches(docs, (SERVERS, labels), (SERVERS, other))}
        assert targets == {"service"}
        assert outside(docs, labels) == []
    broken = copy.deepcopy(docs)
    named(broken, "NetworkPolicy")["gateway"]["spec"]["egress"].append({"ports": [{"port": 5432}]})
    assert outside(broken, labels) != []


def outside(docs: list[Doc], labels: Doc) -> list[Doc]:
    """Rules that let pods of these labels open connections to anywhere, or to addresses."""
    policies = [one["spec"] for one in named(docs, "NetworkPolicy").values() if one["metadata"]["namespace"] == SERVERS]
    rules = [rule for spec in policies if matches(spec["podSelector"], labels) for rule in spec.get("egress", ())]
    return [rule for rule in rules if not rule.get("to") or any("ipBlock" in peer for peer in rule["to"])]


def test_applications_reach_it_and_nothing_else(docs: list[Doc]) -> None:
    """Their namespaces bear a label of their own."""
    policies = {
        name
        for name, policy in named(docs, "NetworkPolicy").items()
        for rule in policy["spec"].get("ingress", ())
        for peer in rule.get("from", ())
        if matches(peer.get("namespaceSelector", {"matchLabels": {"": ""}}), {"lcia-ask": "true"})
    }
    assert policies == {"gateway"}


def test_it_has_no_storage_of_the_servers_and_the_key_read_only(docs: list[Doc], tmp_path: Path) -> None:
    for _, pod in gateways(docs).values():
        container = main_container(pod)
        claims = {one["name"]: one["persistentVolumeClaim"] for one in pod["volumes"] if "persistentVolumeClaim" in one}
        assert claims in ({}, {"base-models": {"claimName": "objects", "readOnly": True}})
        for each in containers(pod):
            for mount in each["volumeMounts"]:
                if mount["name"] in claims:
                    assert (mount["subPath"], mount["readOnly"]) == ("base-models", True)
        (key,) = (mount for mount in container["volumeMounts"] if mount["name"] == "key")
        settings = settings_of(docs, container, tmp_path)
        assert key["readOnly"] is True
        assert Path(settings.audit.public_key) == Path(key["mountPath"]) / "audit-key.pub.pem"
        assert settings.gateway.cache.startswith("/state/")


def test_a_vllm_is_reached_by_its_gateway_alone(installations: Mapping[str, list[Doc]], tmp_path: Path) -> None:
    _, pod = gateways(installations[GPU])["Deployment gateway"]
    (server,) = pod["initContainers"]
    container = main_container(pod)
    settings = settings_of(installations[GPU], container, tmp_path)
    assert "--host=127.0.0.1" in server["args"]
    assert "ports" not in server
    assert server["restartPolicy"] == "Always"  # it starts before the gateway, and ends after it
    assert "readinessProbe" not in server, "the gateway's own says if the adapters are there"
    assert settings.gateway.engine == "vllm"
    assert settings.gateway.vllm == ("http://127.0.0.1:8000",)
    assert "--port=8000" in server["args"]
    folders = {each["name"]: mount_of(each, "adapters") for each in (server, container)}
    assert folders["vllm"] == {**folders["gateway"], "readOnly": True}
    assert folders["gateway"]["mountPath"] == f"{settings.gateway.cache}/adapters"
    assert settings.gateway.vllm_folder == ""
    limits = {name for name in server["resources"]["limits"] if "gpu" in name}
    assert limits == {"nvidia.com/gpu"}
    assert pod["nodeSelector"]
    assert f":v{vllm.TESTED}@sha256:" in server["image"]


def mount_of(container: Doc, volume: str) -> Doc:
    mount: Doc
    (mount,) = (one for one in container["volumeMounts"] if one["name"] == volume)
    return mount


def test_a_vllm_is_started_as_the_gateway_says(installations: Mapping[str, list[Doc]]) -> None:
    _, pod = gateways(installations[GPU])["Deployment gateway"]
    (server,) = pod["initContainers"]
    name, *options = server["args"]
    settings = Settings.model_validate({"base_model": {"name": name, "dtype": "bfloat16"}})
    expected_name, expected = vllm.gateway_arguments(settings, "", Path("models"), 8)
    parts = [part for option in options for part in option.split("=")]
    assert (name, parts[: len(expected)]) == (expected_name, expected)
    assert parts[len(expected) :: 2] == ["--host", "--port"]
    assert {one["name"]: one["value"] for one in server["env"]}[vllm.RUNTIME_LOADING] == "True"


def test_it_scales_by_what_its_engine_lacks(installations: Mapping[str, list[Doc]]) -> None:
    metrics = {
        name: named(docs, "HorizontalPodAutoscaler")["gateway"]["spec"]["metrics"]
        for name, docs in installations.items()
        if name != "kserve"
    }
    assert [one["type"] for one in metrics[GPU]] == ["Pods"]
    assert metrics[GPU][0]["pods"]["metric"] == {"name": "lcia_gateway_running"}
    assert [one["resource"]["name"] for one in metrics["single-node+gateway"]] == ["cpu"]


def test_kserve_gets_the_same_pod(installations: Mapping[str, list[Doc]], tmp_path: Path) -> None:
    """All of it, by the specification itself; KServe counts and scales."""
    plain = render("production+gateway", tmp_path)
    (service,) = named(installations["kserve"], "InferenceService").values()
    other = named(plain, "Deployment")["gateway"]
    predictor = service["spec"]["predictor"]
    pod = copy.deepcopy(other["spec"]["template"]["spec"])
    pod["containers"][0]["name"] = "kserve-container"  # the one that KServe looks for
    assert {name: predictor[name] for name in pod} == pod
    assert predictor["labels"] == other["spec"]["template"]["metadata"]["labels"]
    scaler = named(plain, "HorizontalPodAutoscaler")["gateway"]["spec"]
    target = scaler["metrics"][0]["resource"]["target"]["averageUtilization"]
    numbers = (predictor["minReplicas"], predictor["maxReplicas"], predictor["scaleMetric"], predictor["scaleTarget"])
    assert numbers == (scaler["minReplicas"], scaler["maxReplicas"], "cpu", target)
    assert "gateway" not in named(installations["kserve"], "Deployment"), "or there would be two"
    assert "gateway" not in named(installations["kserve"], "HorizontalPodAutoscaler")


@pytest.mark.parametrize("field", [{"containers": [], "minReplica": 2}, {"minReplicas": "two"}, {"volumes": [{}]}])
def test_the_schema_refuses_what_kserve_would(field: Doc, installations: Mapping[str, list[Doc]]) -> None:
    doc = copy.deepcopy(named(installations["kserve"], "InferenceService")["gateway"])
    validate(doc, "1.36")
    doc["spec"]["predictor"].update(field)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(doc, "1.36")
