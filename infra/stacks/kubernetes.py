"""The stack `kubernetes`: checked against the cluster, then registered with ZenML and activated.

Artifacts of ZenML lie on the claim that all pods share; images are there already, so nothing is built or pushed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import LciaError
from components.settings import ClusterSettings
from infra.stacks.pods import pod

NAME = "lcia-kubernetes"
SECONDS = 20
"""Longest time for an answer of the cluster."""
NEEDED = {
    ("batch", "jobs"): ("create", "get", "list", "watch", "patch", "delete"),
    ("", "pods"): ("get", "list", "watch"),
    ("", "pods/log"): ("get",),
    ("", "secrets"): ("create", "patch", "delete"),
}
"""Rights that ZenML's orchestrator needs, in the process that starts runs and in its pod."""


class ClusterRefused(LciaError):
    """The cluster lacks something that runs need, or can't be asked."""


@dataclass(frozen=True)
class Requirement:
    """One thing that runs need."""

    what: str
    ok: bool
    advice: str


def up(settings: ClusterSettings, state: Path) -> list[Requirement]:
    """Check, register and activate; may be repeated. Returns what was checked.

    Raises:
        ClusterRefused: something is missing, all of it in the message; nothing was registered.
    """
    checks = list(examine(settings))
    missing = [f"  {check.what}: {check.advice}" for check in checks if not check.ok]
    if missing:
        raise ClusterRefused("the stack kubernetes was not set up; missing:\n" + "\n".join(missing))
    orchestrator = {
        "incluster": settings.context is None,
        "kubernetes_context": settings.context,
        "kubernetes_namespace": settings.namespace,
        "pass_zenml_token_as_secret": True,
        "skip_local_validations": True,  # the artifact store lies on the shared claim
    }
    register(NAME, ("kubernetes", orchestrator), state, "localhost")
    return checks


def examine(settings: ClusterSettings) -> Iterator[Requirement]:
    """Check each thing that runs need of ZenML and of the cluster.

    Raises:
        ClusterRefused: the cluster does not answer.
    """
    from kubernetes import client
    from urllib3.exceptions import HTTPError
    from zenml.client import Client

    remote = Client().zen_store.type.value == "rest"
    yield Requirement(
        "a ZenML server", remote, "set ZENML_STORE_URL, ZENML_STORE_USERNAME and ZENML_STORE_PASSWORD to one"
    )
    api = connect(settings)
    core, space = client.CoreV1Api(api), settings.namespace
    try:
        for kind, name, read in (
            ("service account", settings.orchestrator_account, core.read_namespaced_service_account),
            ("service account", settings.step_account, core.read_namespaced_service_account),
            ("volume claim", settings.claim, core.read_namespaced_persistent_volume_claim),
        ):
            yield Requirement(
                f"{kind} {space}/{name}", _is_there(read, name, space), "`kubectl apply -k` of an overlay makes it"
            )
        yield from _rights(api, space)
        yield from _admission(api, settings)
    except (client.ApiException, HTTPError) as error:
        raise ClusterRefused(f"the cluster of namespace {space} does not answer: {type(error).__name__}") from error


def connect(settings: ClusterSettings) -> Any:  # noqa: ANN401 - kubernetes' ApiClient
    """A client of the cluster that the settings name.

    Raises:
        ClusterRefused: the kubeconfig or the pod does not lead to one.
    """
    from kubernetes import client, config

    try:
        if settings.context is None:
            config.load_incluster_config()
        else:
            config.load_kube_config(context=settings.context)
    except config.ConfigException as error:
        where = f"context {settings.context!r} of the kubeconfig" if settings.context else "inside a cluster"
        raise ClusterRefused(
            f"no cluster is to be reached by {where} ({error}); set cluster.context, or run it in a pod"
        ) from error
    return client.ApiClient()


def _is_there(read: Any, name: str, space: str) -> bool:  # noqa: ANN401 - a method of the client
    from kubernetes.client import ApiException

    try:
        read(name, space, _request_timeout=SECONDS)
    except ApiException as error:
        if error.status == 404:
            return False
        raise
    return True


def _rights(api: Any, space: str) -> Iterator[Requirement]:  # noqa: ANN401 - kubernetes' ApiClient
    """Ask the cluster for each right of this process."""
    from kubernetes import client

    ask = client.AuthorizationV1Api(api).create_self_subject_access_review
    for (group, resource), verbs in NEEDED.items():
        kind, _, part = resource.partition("/")
        for verb in verbs:
            about = client.V1ResourceAttributes(
                namespace=space, group=group, resource=kind, subresource=part or None, verb=verb
            )
            review = client.V1SelfSubjectAccessReview(
                spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=about)
            )
            ok = bool(ask(review, _request_timeout=SECONDS).status.allowed)
            yield Requirement(f"right to {verb} {resource}", ok, f"the Role in {space} does not give it")


def _admission(api: Any, settings: ClusterSettings) -> Iterator[Requirement]:  # noqa: ANN401 - kubernetes' ApiClient
    """Send a step's Job, and the same Job with a Secret of the servers in it, as a dry run."""
    fine, loot = trial(settings), trial(settings)
    loot["spec"]["template"]["spec"]["volumes"].append({"name": "loot", "secret": {"secretName": "database"}})
    refusal = _refusal(api, settings.namespace, fine)
    advice = f"{refusal}; `cluster.image` has to be that of the ConfigMap steps, see the overlay's kustomization.yaml"
    yield Requirement(f"Jobs of steps in {settings.namespace}", refusal is None, advice)
    yield Requirement(
        f"refusal of Jobs that mount Secrets in {settings.namespace}",
        _refusal(api, settings.namespace, loot) is not None,
        "`kubectl apply -k` of an overlay makes the admission policy lcia-runs (Kubernetes 1.30 or newer)",
    )


def trial(settings: ClusterSettings) -> dict[str, Any]:
    """A Job of the shape that steps have."""
    parts = pod(settings, settings.default, "/state")
    container = {
        "name": "main",
        "image": settings.image,
        "command": ["python", "-m", "zenml.entrypoints.entrypoint"],
        "resources": parts["resources"],
        "env": parts["env"],
        "volumeMounts": parts["volume_mounts"],
        "securityContext": parts["container_security_context"],
    }
    spec = {
        "restartPolicy": "Never",
        "serviceAccountName": settings.step_account,
        "automountServiceAccountToken": False,
        "volumes": list(parts["volumes"]),
        "containers": [container],
    }
    meta = {"labels": {"pipeline": "trial", "step_name": "trial"}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": "lcia-trial-", **meta},
        "spec": {"template": {"metadata": meta, "spec": spec}},
    }


def _refusal(api: Any, space: str, job: dict[str, Any]) -> str | None:  # noqa: ANN401 - kubernetes' ApiClient
    """The cluster's words if it would refuse a Job; None if it would accept it."""
    from kubernetes import client

    try:
        client.BatchV1Api(api).create_namespaced_job(space, job, dry_run="All", _request_timeout=SECONDS)
    except client.ApiException as error:
        if error.status not in (400, 403, 422):
            raise
        return str(json.loads(error.body or "{}").get("message", error.reason))
    return None


def register(name: str, orchestrator: tuple[str, dict[str, Any]], state: Path, images: str) -> None:
    """Bring components and stack to the state that the settings name, and activate the stack.

    `orchestrator` is its flavor and configuration, `images` the registry that ZenML asks for; nothing is pushed.
    """
    from zenml.client import Client
    from zenml.enums import StackComponentType as Kind

    zenml = Client()
    components: dict[Kind, tuple[str, dict[str, Any]]] = {
        Kind.ORCHESTRATOR: orchestrator,
        Kind.ARTIFACT_STORE: ("local", {"path": str(state / "zenml-artifacts")}),
        Kind.CONTAINER_REGISTRY: ("default", {"uri": images}),
        Kind.IMAGE_BUILDER: ("local", {}),
    }
    for kind, (flavor, configuration) in components.items():
        if _first(zenml.list_stack_components(type=kind, name=name)):
            zenml.update_stack_component(name, kind, configuration=configuration)
        else:
            zenml.create_stack_component(name, flavor, kind, configuration=configuration)
    if not _first(zenml.list_stacks(name=name)):
        zenml.create_stack(name, dict.fromkeys(components, name))
    zenml.activate_stack(name)


def _first(page: Any) -> Any:  # noqa: ANN401 - zenml's Page
    return page.items[0] if page.items else None
