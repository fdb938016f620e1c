"""Gateways behind the inference extension of the Gateway API: two pools, and a route with the weights of a canary."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
from manifests import K8S, Doc, containers, matches, named, pods, render, validate

from components.settings import Settings, load_settings
from infra import canary

OVERLAY = "inference-extension"


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> list[Doc]:
    return render(OVERLAY, tmp_path_factory.mktemp(OVERLAY))


def arm_of(pod: Doc) -> str:
    """Version with which a gateway's pod answers while a canary is under way."""
    (container,) = containers(pod)
    environment = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    return load_settings(environment=environment, home_folder=Path("/state")).gateway.arm


def test_the_two_pools_answer_as_champion_and_as_candidate(docs: list[Doc]) -> None:
    arms = {}
    for name, pool in named(docs, "InferencePool").items():
        (arms[name],) = (arm_of(pod) for _, labels, pod in pods(docs) if matches(pool["spec"]["selector"], labels))
        assert pool["spec"]["targetPorts"] == [{"number": Settings().gateway.port}]
    assert arms == {"gateway": "champion", "gateway-candidate": "candidate"}
    (route,) = named(docs, "HTTPRoute").values()
    (rule,) = route["spec"]["rules"]
    assert [one["name"] for one in rule["backendRefs"]] == ["gateway", "gateway-candidate"], (
        "as the weights are written"
    )
    assert int(rule["timeouts"]["request"].removesuffix("s")) > Settings().gateway.answer_seconds


def test_both_pools_have_the_same_pods_but_for_the_arm(docs: list[Doc]) -> None:
    one, other = (
        copy.deepcopy(named(docs, "Deployment")[name]["spec"]["template"]["spec"])
        for name in ("gateway", "gateway-candidate")
    )
    for pod in (one, other):
        pod["containers"][0]["env"].pop()
        del pod["topologySpreadConstraints"]
    assert one == other


def test_the_route_has_the_weights_of_the_canary_under_way(tmp_path: Path) -> None:
    file = K8S / "overlays" / OVERLAY / "weights.yaml"
    assert file.read_text(encoding="utf-8") == canary.patch(json.dumps({"trials": []}))
    trial = {"kind": "canary", "share": 0.05, "state": "under_way", "signed": True, "over": None}
    patch = canary.patch(json.dumps({"trials": [trial]}))
    (route,) = named(render(OVERLAY, tmp_path, files={"weights.yaml": patch}), "HTTPRoute").values()
    validate(route, "1.36")
    backends = route["spec"]["rules"][0]["backendRefs"]
    assert [(one["name"], one["weight"]) for one in backends] == [("gateway", 9500), ("gateway-candidate", 500)]


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("InferencePool", {"targetPorts": [{"number": 0}]}),
        ("InferencePool", {"selector": {}}),
        ("HTTPRoute", {"rules": [{"backendRefs": [{"name": "gateway", "weight": -1}]}]}),
        ("HTTPRoute", {"weight": 1}),
    ],
)
def test_a_schema_refuses_what_does_not_fit(kind: str, field: Doc, docs: list[Doc]) -> None:
    doc = copy.deepcopy(named(docs, kind)["gateway"])
    doc["spec"].update(field)
    with pytest.raises(jsonschema.ValidationError):
        validate(doc, "1.36")
