"""Rendering the overlays, and checks of what was rendered; each returns what is wrong, in words."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import jsonschema
import kubernetes_validate
import yaml
from croniter import croniter

K8S = Path(__file__).parents[2] / "k8s"
OVERLAYS = (
    *("single-node", "production", "single-node+gateway", "production+gateway+vllm"),
    *("kserve", "inference-extension"),
)
"""Overlays that are shipped, some with components that people take in."""
BROUGHT = {
    "service": {"session-secret", "oidc-secret", "webhook-secret", "smtp-password"},
    "zenml": {"store-url", "username", "password", "token-secret"},
    "mlflow": {
        *("backend-url", "session-secret", "basic_auth.ini"),
        *(f"{who}-{what}" for who in ("admin", "trainer", "promoter") for what in ("name", "password")),
    },
    "database": {
        *(f"{who}-{what}" for who in ("worker", "service", "promoter", "keeper") for what in ("url", "password")),
        "owner-url",
    },
}
"""Keys of the Secrets that people make where the database is outside, as docs/kubernetes.md lists them."""
BROUGHT_ALWAYS = {"Secret": {"gateway": {"token", "secret"}}, "ConfigMap": {"gateway-key": {"audit-key.pub.pem"}}}
"""Keys of what people make from an installation that runs: the gateway's token and the pinned key."""
PICKERS = ("gateway-epp", "gateway-candidate-epp")
"""Endpoint pickers of the pools, which people install with the chart of llm-d-router."""
Doc = dict[str, Any]
SPECS = {
    kind: json.loads(Path(__file__).with_name(f"{name}-spec.json").read_text(encoding="utf-8"))
    for kind, name in (
        ("InferenceService", "inference-service"), ("InferencePool", "inference-pool"), ("HTTPRoute", "http-route"),
    )
}  # fmt: skip
"""Schemas of the kinds that Kubernetes does not have itself."""


def validate(doc: Doc, version: str) -> None:
    """Check an object by the schema of its kind; `version` is that of Kubernetes.

    Raises:
        kubernetes_validate.ValidationError, jsonschema.ValidationError: it does not fit.
    """
    if doc["kind"] not in SPECS:
        kubernetes_validate.validate(doc, version, strict=True)
        return
    jsonschema.validate(doc["spec"], SPECS[doc["kind"]])
    carrier = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": doc["metadata"]}
    if doc["kind"] == "InferenceService":
        fields = SPECS["InferenceService"]["properties"]["predictor"]["properties"]
        pod = {name: value for name, value in doc["spec"]["predictor"].items() if not fields[name]}
        carrier = {**carrier, "kind": "Pod", "spec": pod}
    kubernetes_validate.validate(carrier, version, strict=True)


def render(overlay: str, folder: Path, components: Sequence[str] = (), files: Mapping[str, str] = {}) -> list[Doc]:
    """What `kubectl apply -k` would send, from a copy below `folder`, with fresh random secrets where it makes them.

    `components` are taken in beside, as people would write it; so are those that follow the overlay's name after `+`.
    `files` of the overlay are replaced.
    """
    overlay, *more = overlay.split("+")
    components = [*more, *components]
    copy = folder / "k8s"
    shutil.copytree(K8S, copy, ignore=shutil.ignore_patterns("secrets"))
    place = copy / "overlays" / overlay
    if (place / "make-secrets.sh").exists():
        subprocess.run([place / "make-secrets.sh"], check=True)
    for name, text in files.items():
        (place / name).write_text(text, encoding="utf-8")
    if components:
        file = place / "kustomization.yaml"
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
        told["components"] = [f"../../components/{name}" for name in components]
        file.write_text(yaml.safe_dump(told), encoding="utf-8")
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([kubectl, "kustomize", place], check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(done.stdout))


SERVERS, RUNS_SPACE = "lcia", "lcia-runs"
"""Namespaces: of the servers, and of the runs."""


def named(docs: list[Doc], kind: str, space: str = SERVERS) -> dict[str, Doc]:
    """Objects of a kind in a namespace, with those that have none."""
    return {
        doc["metadata"]["name"]: doc
        for doc in docs
        if doc["kind"] == kind and doc["metadata"].get("namespace") in (None, space)
    }


def pods(docs: list[Doc]) -> Iterator[tuple[str, Doc, Doc]]:
    """Name, labels and pod spec of everything that makes pods."""
    for doc in docs:
        spec = doc.get("spec", {})
        name = f"{doc['kind']} {doc['metadata']['name']}"
        template = spec.get("jobTemplate", {}).get("spec", {}).get("template") or spec.get("template")
        if doc["kind"] == "InferenceService":
            yield name, spec["predictor"]["labels"], spec["predictor"]
        elif template is not None and doc["kind"] != "PersistentVolume":
            yield name, template.get("metadata", {}).get("labels", {}), template["spec"]


def containers(pod: Doc) -> list[Doc]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def keys_of(docs: list[Doc], kind: str, *, brought: bool) -> dict[str, set[str]]:
    found = {name: {*doc.get("data", {}), *doc.get("stringData", {})} for name, doc in named(docs, kind).items()}
    return {**BROUGHT_ALWAYS[kind], **(BROUGHT if brought and kind == "Secret" else {}), **found}


def dangling(docs: list[Doc], *, brought: bool = False) -> list[str]:  # noqa: C901 - a list of checks
    """References to what is not there. `brought`: Secrets are people's own."""
    secrets, maps = (keys_of(docs, kind, brought=brought) for kind in ("Secret", "ConfigMap"))
    claims, accounts, classes = (
        named(docs, kind) for kind in ("PersistentVolumeClaim", "ServiceAccount", "PriorityClass")
    )
    wrong = []

    def need(where: str, what: str, ok: bool) -> None:
        if not ok:
            wrong.append(f"{where}: {what} is not there")

    for where, _, pod in pods(docs):
        need(where, f"account {pod.get('serviceAccountName')}", pod.get("serviceAccountName") in accounts)
        need(where, "its priority class", pod.get("priorityClassName") in {None, *classes})
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        for volume in volumes.values():
            if claim := volume.get("persistentVolumeClaim"):
                need(where, f"claim {claim['claimName']}", claim["claimName"] in claims)
            for field, name, there in (("secret", "secretName", secrets), ("configMap", "name", maps)):
                if source := volume.get(field):
                    need(where, f"{field} {source[name]}", source[name] in there)
                    for item in source.get("items", ()):
                        key = item["key"]
                        need(where, f"key {key} of {source[name]}", key in there.get(source[name], ()))
        for container in containers(pod):
            for mount in container.get("volumeMounts", ()):
                need(where, f"volume {mount['name']}", mount["name"] in volumes)
                volume = volumes.get(mount["name"], {})
                if "configMap" in volume and "subPath" in mount:
                    need(
                        where, f"file {mount['subPath']}", mount["subPath"] in maps.get(volume["configMap"]["name"], ())
                    )
            for one in container.get("env", ()):
                for field, there in (("secretKeyRef", secrets), ("configMapKeyRef", maps)):
                    source = one.get("valueFrom", {}).get(field, {"optional": True})
                    if not source.get("optional"):
                        need(where, f"{source['name']}/{source['key']}", source["key"] in there.get(source["name"], ()))
            ports = {port.get("name") for port in container.get("ports", ())}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                for how in ("httpGet", "tcpSocket"):
                    if asked := container.get(probe, {}).get(how):
                        need(where, f"port {asked['port']} of {probe}", asked["port"] in ports)
    for name, scaler in named(docs, "HorizontalPodAutoscaler").items():
        target = scaler["spec"]["scaleTargetRef"]
        need(f"HorizontalPodAutoscaler {name}", target["name"], target["name"] in named(docs, target["kind"]))
    for name, route in named(docs, "HTTPRoute").items():
        for backend in (one for rule in route["spec"]["rules"] for one in rule["backendRefs"]):
            need(f"HTTPRoute {name}", backend["name"], backend["name"] in named(docs, backend["kind"]))
    for name, pool in named(docs, "InferencePool").items():
        need(f"InferencePool {name}", "its picker", pool["spec"]["endpointPickerRef"]["name"] in PICKERS)
    for space in (SERVERS, RUNS_SPACE):
        for name, binding in named(docs, "RoleBinding", space).items():
            role = binding["roleRef"]["name"]
            need(f"RoleBinding {name}", f"role {role}", role in named(docs, "Role", space))
            for subject in binding["subjects"]:
                there = named(docs, "ServiceAccount", subject["namespace"])
                need(f"RoleBinding {name}", f"account {subject['name']}", subject["name"] in there)
    for name, binding in named(docs, "ValidatingAdmissionPolicyBinding").items():
        need(f"binding {name}", "its policy", binding["spec"]["policyName"] in named(docs, "ValidatingAdmissionPolicy"))
        if given := binding["spec"].get("paramRef"):
            need(f"binding {name}", "its ConfigMap", given["name"] in named(docs, "ConfigMap", given["namespace"]))
    return wrong


def matches(selector: Doc, labels: Doc) -> bool:
    """Whether a label selector selects these labels."""
    for one in selector.get("matchExpressions", ()):
        value, told = labels.get(one["key"]), one.get("values", ())
        ok = {
            "In": value in told,
            "NotIn": value not in told,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not ok[one["operator"]]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


RUNS = ({"pipeline": "p", "run_id": "1"}, {"pipeline": "p", "run_id": "1", "step_name": "tune"})
"""Labels that ZenML gives to the orchestrator's pod and to a step's."""


def unselected(docs: list[Doc]) -> list[str]:  # noqa: C901 - a list of checks
    """Selectors that select nothing, and ports of Services and policies that no selected pod has."""
    servers = [
        (labels, {p[way] for c in containers(pod) for p in c.get("ports", ()) for way in ("name", "containerPort")})
        for _, labels, pod in pods(docs)
    ]
    servers += [({"llm-d-router-gateway": picker}, {9002}) for picker in PICKERS]
    known: dict[str, list[tuple[Doc, set[Any]]]] = {SERVERS: servers, RUNS_SPACE: [(labels, set()) for labels in RUNS]}
    wrong = []

    def check(where: str, selector: Doc, ports: list[Any], space: str = SERVERS) -> None:
        found = [ports_ for labels, ports_ in known[space] if matches(selector, labels)]
        if not found:
            wrong.append(f"{where} selects no pod")
        wrong.extend(f"{where}: no pod has port {port}" for port in ports if not any(port in ps for ps in found))

    for name, service in named(docs, "Service").items():
        spec = service["spec"]
        check(f"Service {name}", {"matchLabels": spec["selector"]}, [p["targetPort"] for p in spec["ports"]])
    for name, pool in named(docs, "InferencePool").items():
        check(f"InferencePool {name}", pool["spec"]["selector"], [p["number"] for p in pool["spec"]["targetPorts"]])
    for kind in ("Deployment", "StatefulSet"):
        for name, doc in named(docs, kind).items():
            if not matches(doc["spec"]["selector"], doc["spec"]["template"]["metadata"]["labels"]):
                wrong.append(f"{kind} {name} does not select its own pods")
            for spread in doc["spec"]["template"]["spec"].get("topologySpreadConstraints", ()):
                check(f"spread of {name}", spread["labelSelector"], [])
    for name, doc in named(docs, "PodDisruptionBudget").items():
        check(f"budget {name}", doc["spec"]["selector"], [])
    for space in known:
        for name, doc in named(docs, "NetworkPolicy", space).items():
            spec = doc["spec"]
            if spec["podSelector"]:
                ports = [p["port"] for rule in spec.get("ingress", ()) for p in rule.get("ports", ())]
                check(f"policy {name}", spec["podSelector"], [p for p in ports if isinstance(p, str)], space)
            for rule in spec.get("egress", ()):
                for peer in rule.get("to", ()):
                    other = _space(peer, space)
                    if other in known:
                        check(f"policy {name}, to", peer["podSelector"], [p["port"] for p in rule["ports"]], other)
            for rule in spec.get("ingress", ()):
                for peer in rule.get("from", ()):
                    if "podSelector" in peer:
                        check(f"policy {name}, from", peer["podSelector"], [], space)
    return wrong


def _space(peer: Doc, own: str) -> str | None:
    """The one namespace that a peer of a policy is in, where it is named."""
    if "namespaceSelector" not in peer:
        return own
    found: str | None = peer["namespaceSelector"].get("matchLabels", {}).get("kubernetes.io/metadata.name")
    return found


def reaches(docs: list[Doc], source: tuple[str, Doc], target: tuple[str, Doc]) -> bool:
    """Whether network policies let pods of one namespace and labels open a connection to a port of another's."""

    def meets(peer: Doc, own: str, other: tuple[str, Doc]) -> bool:
        space, labels = other
        spaces = peer.get("namespaceSelector")
        there = {"kubernetes.io/metadata.name": space}
        return (matches(spaces, there) if spaces is not None else space == own) and matches(
            peer.get("podSelector", {}), labels
        )

    def lets(way: str, ends: str, here: tuple[str, Doc], there: tuple[str, Doc]) -> bool:
        space, labels = here
        mine = [
            doc["spec"]
            for doc in docs
            if doc["kind"] == "NetworkPolicy"
            and doc["metadata"]["namespace"] == space
            and matches(doc["spec"]["podSelector"], labels)
        ]
        return any(
            ends not in rule or any(meets(peer, space, there) for peer in rule[ends])
            for spec in mine
            for rule in spec.get(way, ())
        )

    return lets("egress", "to", source, target) and lets("ingress", "from", target, source)


def unrestricted(docs: list[Doc]) -> list[str]:  # noqa: C901 - a list of checks
    """What the Pod Security Standard `restricted` refuses, and beyond it: no token unasked, no writable root file
    system, no container without requests and a memory limit."""
    wrong = []
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for where, _, pod in pods(docs):
        outer = pod.get("securityContext", {})
        if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            wrong.append(f"{where} shares the host's namespaces")
        if any(set(volume) - {"name"} - allowed for volume in pod.get("volumes", ())):
            wrong.append(f"{where} has a volume of a kind that is refused")
        if pod.get("automountServiceAccountToken") not in (False, pod.get("serviceAccountName") == "worker"):
            wrong.append(f"{where}: its token is not as its work asks")
        for container in containers(pod):
            name, inner = f"{where}/{container['name']}", container.get("securityContext", {})
            both = {**outer, **inner}
            if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
                wrong.append(f"{name} may run as root")
            if both.get("seccompProfile", {}).get("type") != "RuntimeDefault":
                wrong.append(f"{name} has no seccomp profile")
            if inner.get("allowPrivilegeEscalation") is not False or inner.get("privileged"):
                wrong.append(f"{name} may get privileges")
            if inner.get("capabilities") != {"drop": ["ALL"]}:
                wrong.append(f"{name} keeps capabilities")
            if inner.get("readOnlyRootFilesystem") is not True:
                wrong.append(f"{name} may write to its root")
            if any("hostPort" in port for port in container.get("ports", ())):
                wrong.append(f"{name} has a port of the host")
            told = container.get("resources", {})
            if not {"cpu", "memory"} <= told.get("requests", {}).keys() or "memory" not in told.get("limits", {}):
                wrong.append(f"{name} says not what it needs")
    return wrong


def schedules(docs: list[Doc]) -> list[str]:
    """CronJobs whose times or zone can't be read."""
    wrong = []
    for name, doc in named(docs, "CronJob").items():
        if not croniter.is_valid(doc["spec"]["schedule"]) or len(doc["spec"]["schedule"].split()) != 5:
            wrong.append(f"CronJob {name}: schedule {doc['spec']['schedule']!r}")
        if doc["spec"].get("timeZone") not in available_timezones():
            wrong.append(f"CronJob {name}: time zone {doc['spec'].get('timeZone')!r}")
    return wrong


def granted(docs: list[Doc], account: str, home: str = SERVERS, space: str = RUNS_SPACE) -> set[tuple[str, str]]:
    """(resource, verb) that an account of namespace `home` is given in `space`."""
    found = set()
    for binding in named(docs, "RoleBinding", space).values():
        if (account, home) in {(subject["name"], subject["namespace"]) for subject in binding["subjects"]}:
            for rule in named(docs, "Role", space)[binding["roleRef"]["name"]]["rules"]:
                found |= {(resource, verb) for resource in rule["resources"] for verb in rule["verbs"]}
    return found


KINDS = {"job": "jobs", "pod": "pods", "pod_log": "pods/log", "secret": "secrets", "cron_job": "cronjobs"}
WORDS = {"read": "get"}


def zenml_verbs() -> set[tuple[str, str]]:
    """(resource, verb) that ZenML's orchestrator can ask for: its two modules' calls, and those of their helpers.

    Left out: making a service account (ours is named) and ZenML's own schedules (CronJobs are ours).
    """
    found = util.find_spec("zenml.integrations.kubernetes")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent
    helpers = {
        node.name: ast.unparse(node)
        for node in ast.parse((folder / "kube_utils.py").read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    texts = [(folder / "orchestrators" / name).read_text() for name in (
        "kubernetes_orchestrator.py", "kubernetes_orchestrator_entrypoint.py")]  # fmt: skip
    todo = {name for text in texts for name in re.findall(r"kube_utils\.(\w+)", text)}
    todo.discard("create_edit_service_account")
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in helpers and name not in seen:
            seen.add(name)
            texts.append(helpers[name])
            todo |= {other for other in helpers if re.search(rf"\b{other}\b", helpers[name])}
    calls = {
        call
        for text in texts
        for call in re.findall(r"\.(create|read|list|patch|delete|replace)_namespaced_(\w+)", text)
    }
    return {(KINDS.get(kind, kind), WORDS.get(verb, verb)) for verb, kind in calls if kind != "cron_job"}
