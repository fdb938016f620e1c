"""A test double of Kubernetes' API server, and of the controllers that ZenML's orchestrator needs.

It is no Kubernetes. It keeps objects in memory, starts the command of each Job as a process of this machine, and tells
how that ended in the statuses of Job and Pod. Containers, images, volumes, scheduling, limits and defaults are not
there, except for what its clients stumble over. Rights are: every request is allowed or refused by the Roles and
RoleBindings of k8s/runs/accounts.yaml, so a right that is missing there fails here too; and every Job, pod and Secret
by the admission policies beside it.
"""

import base64
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

import yaml
from admission import refusals
from pod import PAUSED, start, warm_up

ROOT = Path(__file__).parents[2]
SUBRESOURCES = frozenset({"log", "status"})


@dataclass
class Running:
    """The process of a pod."""

    process: BaseProcess
    log: Path
    taken: Literal["", "evicted", "deleted"] = ""


@dataclass(frozen=True)
class Loss:
    """How a pod is lost: evicted as by a drained node, or deleted; seconds between SIGTERM and SIGKILL."""

    how: Literal["evicted", "deleted"]
    grace: float


@dataclass
class Double:
    """The server. `environment` is that of an image; `folder` takes logs and kubeconfigs."""

    folder: Path
    environment: Mapping[str, str]
    namespace: str = "lcia-runs"
    image: str = "lcia-train:test"
    """That of the ConfigMap `steps`."""
    forked: bool = True
    """Pods are forked from a server; else each is an interpreter of its own, as in a cluster."""
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """By resource (`jobs`) and name."""
    refused: list[str] = field(default_factory=list)
    used: set[tuple[str, str, str]] = field(default_factory=set)
    """Account, verb and resource of every request that was allowed."""
    running: dict[str, Running] = field(default_factory=dict)
    losses: dict[str, Loss] = field(default_factory=dict)
    """By step: what befalls its first pod at the worst moment, when all is done and nothing of it is published."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __enter__(self) -> Self:
        double = self

        class Handler(_Handler):
            cluster = double

        if self.forked:
            warm_up()
        self._rules = _rules(ROOT / "k8s" / "runs" / "accounts.yaml")
        for account in ("orchestrator", "step"):
            self.objects["serviceaccounts", account] = {"metadata": {"name": account}}
        self.objects["persistentvolumeclaims", "objects"] = {"metadata": {"name": "objects"}}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self._server.serve_forever, self._control)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()
        for pod in self.running.values():
            pod.process.kill()
            pod.process.join()

    def kubeconfig(self, account: str) -> Path:
        """How a process of this account reaches the double."""
        path = self.folder / f"kubeconfig-{account}"
        url = f"http://127.0.0.1:{self._server.server_port}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "double",
            "clusters": [{"name": "double", "cluster": {"server": url}}],
            "users": [{"name": account, "user": {"token": account}}],
            "contexts": [
                {"name": "double", "context": {"cluster": "double", "user": account, "namespace": self.namespace}}
            ],
        }
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    def allowed(self, account: str, verb: str, group: str, resource: str, name: str | None) -> bool:
        """What the Roles say."""
        return any(
            account in rule["accounts"]
            and group in rule["apiGroups"]
            and resource in rule["resources"]
            and verb in rule["verbs"]
            and ("resourceNames" not in rule or name in rule["resourceNames"])
            for rule in self._rules
        )

    def pods(self) -> list[dict[str, Any]]:
        """Every pod there was, oldest first."""
        with self.lock:
            return [value for (kind, _), value in self.objects.items() if kind == "pods"]

    def take_away(self, pod: str, loss: Loss) -> None:
        """Take a pod away: SIGTERM, a grace period, SIGKILL."""
        with self.lock:
            running = self.running[pod]
            running.taken = loss.how
        if loss.grace:
            running.process.terminate()
        running.process.join(loss.grace)
        running.process.kill()

    # -- controllers --------------------------------------------------------------------------------

    def _control(self) -> None:
        while not self._stop.wait(0.2):
            with self.lock:
                for (kind, name), job in list(self.objects.items()):
                    if kind == "jobs" and not job["status"].get("conditions"):
                        self._advance(name, job)
                for name, running in self.running.items():
                    if not running.taken and running.log.with_name(PAUSED).exists():
                        loss = self.losses[running.log.with_name(PAUSED).read_text(encoding="utf-8")]
                        threading.Thread(target=self.take_away, args=(name, loss)).start()

    def _advance(self, name: str, job: dict[str, Any]) -> None:
        """One Job: start its pod, look at its end, count failures."""
        status = job["status"]
        active = status.get("activePod")
        if active is None:
            status["activePod"] = self._start(name, job)
            status.setdefault("startTime", _now())
            status["active"] = 1
            return
        running = self.running[active]
        code = running.process.exitcode
        if code is None:
            return
        pod = self.objects["pods", active]
        ended = {
            "exitCode": code if code >= 0 else 128 - code,
            "finishedAt": _now(),
            "reason": "Completed" if code == 0 else "Error",
        }
        pod["status"]["phase"] = "Succeeded" if code == 0 else "Failed"
        pod["status"]["containerStatuses"] = [_container(pod, {"terminated": ended})]
        status.pop("activePod")
        status["active"] = 0
        if code == 0:
            self._finish(status, "Complete", "")
            status["succeeded"] = 1
        elif running.taken == "evicted":
            pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
            rules = job["spec"].get("podFailurePolicy", {}).get("rules", [])
            if not any(rule["action"] == "Ignore" and rule.get("onPodConditions") for rule in rules):
                self._failed(job, status)
        else:
            if running.taken == "deleted":
                del self.objects["pods", active]
            self._failed(job, status)

    def _failed(self, job: dict[str, Any], status: dict[str, Any]) -> None:
        status["failed"] = status.get("failed", 0) + 1
        if status["failed"] > job["spec"].get("backoffLimit", 6):
            self._finish(status, "Failed", "Job has reached the specified backoff limit")

    def _finish(self, status: dict[str, Any], kind: str, message: str) -> None:
        status["completionTime"] = _now()
        status["conditions"] = [
            {"type": kind, "status": "True", "message": message, "lastTransitionTime": _now(), "lastProbeTime": _now()}
        ]

    def _start(self, name: str, job: dict[str, Any]) -> str:
        template = job["spec"]["template"]
        spec = template["spec"]
        pod_name = f"{name}-{uuid.uuid4().hex[:5]}"
        account = (
            spec.get("serviceAccountName", "default") if spec.get("automountServiceAccountToken", True) else "nobody"
        )
        container = spec["containers"][0]
        command = [*container.get("command", []), *container.get("args", [])]
        first = not any(pod.startswith(f"{name}-") for pod in self.running)
        lost = next((step for step in self.losses if first and ("--step_name", step) in pairwise(command)), None)
        environment = {
            **self.environment,
            **dict(self._variables(container)),
            "KUBECONFIG": str(self.kubeconfig(account)),
            "DOUBLE_POD_NAME": pod_name,
            **({"DOUBLE_PAUSE": lost} if lost else {}),
            "ZENML_CONFIG_PATH": str(self.folder / "pods" / pod_name),
        }
        (self.folder / "pods" / pod_name).mkdir(parents=True)
        log = self.folder / "pods" / pod_name / "log"
        log.touch()
        process = start(command, environment, log, forked=self.forked)
        self.running[pod_name] = Running(process, log)
        labels = {
            **template.get("metadata", {}).get("labels", {}),
            "job-name": name,
            "batch.kubernetes.io/job-name": name,
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**_made(pod_name, self.namespace), "labels": labels},
            "spec": spec,
            "status": {"phase": "Running", "startTime": _now()},
        }
        pod["status"]["containerStatuses"] = [_container(pod, {"running": {"startedAt": _now()}})]
        wrong = refusals("pods", pod, self.image)
        self.refused.extend(f"pod {pod_name}: {one}" for one in wrong)
        self.objects["pods", pod_name] = pod
        return pod_name

    def _variables(self, container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for one in container.get("env", []):
            named = (one.get("valueFrom") or {}).get("secretKeyRef")
            if named is None:
                yield one["name"], str(one.get("value") or "")
                continue
            secret = self.objects["secrets", named["name"]]
            yield one["name"], base64.b64decode(secret["data"][named["key"]]).decode()


class _Handler(BaseHTTPRequestHandler):
    """HTTP in, objects out."""

    cluster: Double
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("get")

    def do_POST(self) -> None:
        self._answer("create")

    def do_PATCH(self) -> None:
        self._answer("patch")

    def do_DELETE(self) -> None:
        self._answer("delete")

    def log_message(self, *_: object) -> None:
        """Silence."""

    def _answer(self, verb: str) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        parts = url.path.strip("/").split("/")
        account = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if parts == ["version"]:
            return self._send(200, {"major": "1", "minor": "36", "gitVersion": "v1.36.0-double", "platform": "double"})
        group = "" if parts[0] == "api" else parts[1]
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        if rest == ["selfsubjectaccessreviews"]:
            asked = body["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
            allowed = self.cluster.allowed(account, asked["verb"], asked.get("group", ""), resource, asked.get("name"))
            return self._send(201, {**body, "status": {"allowed": allowed}})
        resource, name = rest[2], rest[3] if len(rest) > 3 else None
        part = rest[4] if len(rest) > 4 else None
        named = f"{resource}/{part}" if part in SUBRESOURCES else resource
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        verb = "list" if verb == "get" and name is None else verb
        with self.cluster.lock:
            if not self.cluster.allowed(account, verb, group, named, name):
                self.cluster.refused.append(f"{account}: {verb} {named} {name or ''}")
                return self._fail(403, "Forbidden", f"{account} may not {verb} {named}")
            self.cluster.used.add((account, verb, named))
            return getattr(self, f"_{verb}")(resource, name, part, query, body)

    def _list(self, resource: str, _name: None, _part: None, query: dict[str, str], _body: Any) -> None:
        wanted = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
        phase = query.get("fieldSelector", "").partition("status.phase=")[2]
        found = [
            value
            for (kind, _), value in self.cluster.objects.items()
            if kind == resource
            and all(value["metadata"].get("labels", {}).get(key) == label for key, label in wanted.items())
            and (not phase or value["status"]["phase"] == phase)
        ]
        self._send(200, {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": found})

    def _get(self, resource: str, name: str, part: str | None, _query: Any, _body: Any) -> None:
        if (resource, name) not in self.cluster.objects:
            return self._fail(404, "NotFound", f"{resource} {name} not found")
        if part == "log":
            return self._text(self.cluster.running[name].log.read_bytes())
        return self._send(200, self.cluster.objects[resource, name])

    def _create(self, resource: str, _name: None, _part: None, query: Any, body: dict[str, Any]) -> None:
        given = body["metadata"]
        name = given.get("name") or f"{given['generateName']}{uuid.uuid4().hex[:5]}"
        if (resource, name) in self.cluster.objects:
            return self._fail(409, "AlreadyExists", f"{resource} {name} already exists")
        body["metadata"] = {**given, **_made(name, self.cluster.namespace)}
        if wrong := refusals(resource, body, self.cluster.image):
            if "dryRun" not in query:
                self.cluster.refused.extend(f"{resource} {name}: {one}" for one in wrong)
            return self._fail(422, "Invalid", f"{resource} {name} is forbidden: {'; '.join(wrong)}")
        if "dryRun" in query:
            return self._send(201, {**body, "status": {}})
        if resource == "secrets":
            encoded = {
                key: base64.b64encode(text.encode()).decode() for key, text in body.get("stringData", {}).items()
            }
            body["data"] = {**body.get("data", {}), **encoded}
        body["status"] = {}
        for rule in body.get("spec", {}).get("podFailurePolicy", {}).get("rules", []):
            for condition in rule.get("onPodConditions") or []:
                condition.setdefault("status", "True")
        self.cluster.objects[resource, name] = body
        return self._send(201, body)

    def _patch(self, resource: str, name: str, _part: Any, _query: Any, body: dict[str, Any]) -> None:
        if (resource, name) not in self.cluster.objects:
            return self._fail(404, "NotFound", f"{resource} {name} not found")
        _merge(self.cluster.objects[resource, name], body)
        return self._send(200, self.cluster.objects[resource, name])

    def _delete(self, resource: str, name: str, _part: Any, _query: Any, _body: Any) -> None:
        found = self.cluster.objects.pop((resource, name), None)
        if found is None:
            return self._fail(404, "NotFound", f"{resource} {name} not found")
        if resource == "jobs":
            for pod in [key for key in self.cluster.running if key.startswith(f"{name}-")]:
                self.cluster.running[pod].process.terminate()
                self.cluster.objects.pop(("pods", pod), None)
        return self._send(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _fail(self, code: int, reason: str, message: str) -> None:
        self._send(
            code,
            {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": reason,
                "message": message,
                "code": code,
            },
        )

    def _send(self, code: int, value: dict[str, Any]) -> None:
        hidden = (
            {**value, "status": {k: v for k, v in value["status"].items() if k != "activePod"}}
            if isinstance(value.get("status"), dict)
            else value
        )
        self._write(code, "application/json", json.dumps(hidden).encode())

    def _text(self, content: bytes) -> None:
        self._write(200, "text/plain", content)

    def _write(self, code: int, kind: str, content: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _rules(manifest: Path) -> list[dict[str, Any]]:
    """The rules of every Role, each with the accounts that are bound to it."""
    documents = [one for one in yaml.safe_load_all(manifest.read_text(encoding="utf-8")) if one]
    bound: dict[str, set[str]] = {}
    for one in documents:
        if one["kind"] == "RoleBinding":
            bound.setdefault(one["roleRef"]["name"], set()).update(subject["name"] for subject in one["subjects"])
    return [
        {**rule, "accounts": bound.get(one["metadata"]["name"], set())}
        for one in documents
        if one["kind"] == "Role"
        for rule in one["rules"]
    ]


def _container(pod: Mapping[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    container = pod["spec"]["containers"][0]
    image = container["image"]
    return {
        "name": container["name"],
        "image": image,
        "imageID": image,
        "ready": True,
        "restartCount": 0,
        "state": state,
    }


def _made(name: str, namespace: str) -> dict[str, str]:
    return {
        "name": name,
        "namespace": namespace,
        "uid": str(uuid.uuid4()),
        "creationTimestamp": _now(),
        "resourceVersion": str(time.monotonic_ns()),
    }


def _merge(into: dict[str, Any], patch: Mapping[str, Any]) -> None:
    """RFC 7396."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
