"""The stack `kubeflow`: checked as far as possible from here, then registered with ZenML and activated.

Kubeflow Pipelines makes the pods instead of ZenML; all else is as with the stack `kubernetes`. An extra: what it needs
can't be installed beside the locked packages.

Never run on a real Kubeflow: the specification that it would get is compiled and checked (tests/k8s/test_kubeflow.py).
It stays for clusters on which Kubeflow alone may start pods.
"""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from components.settings import ClusterSettings
from components.settings.cluster import KubeflowSettings, StepName
from infra.stacks.kubernetes import SECONDS, ClusterRefused, Requirement, register
from infra.stacks.pods import CODE_IN_IMAGE, pod

NAME = "lcia-kubeflow"
WAIT_SECONDS = 14 * 24 * 3600
"""ZenML otherwise gives up waiting for a run after 20 minutes."""


def up(settings: ClusterSettings, state: Path) -> list[Requirement]:
    """Check, register and activate; may be repeated. Returns what was checked.

    Raises:
        ClusterRefused: something is missing, all of it in the message; nothing was registered.
    """
    checks = list(examine(settings))
    missing = [f"  {check.what}: {check.advice}" for check in checks if not check.ok]
    if missing or settings.kubeflow is None:
        raise ClusterRefused("the stack kubeflow was not set up; missing:\n" + "\n".join(missing))
    from zenml.client import Client
    from zenml.enums import StackComponentType

    if not Client().list_flavors(name=NAME).items:
        Client().create_flavor("infra.stacks.kubeflow_pods.Flavor", StackComponentType.ORCHESTRATOR)
    register(NAME, (NAME, component(settings.kubeflow)), state, settings.image.rpartition("/")[0])
    return checks


def component(settings: KubeflowSettings) -> dict[str, str]:
    """Configuration of ZenML's orchestrator."""
    return {"kubeflow_hostname": settings.host, "kubeflow_namespace": settings.namespace}


def examine(settings: ClusterSettings) -> Iterator[Requirement]:
    """Check each thing that runs need."""
    from zenml.client import Client

    there = all(find_spec(name) is not None for name in ("kfp", "kfp.kubernetes")) if find_spec("kfp") else False
    yield Requirement(
        "kfp", there, "it can't be beside the locked packages: `make kubeflow` makes an environment with it"
    )
    remote = Client().zen_store.type.value == "rest"
    yield Requirement(
        "a ZenML server", remote, "set ZENML_STORE_URL, ZENML_STORE_USERNAME and ZENML_STORE_PASSWORD to one"
    )
    yield Requirement(
        "a registry in cluster.image", "/" in settings.image, f"{settings.image!r} names none; Kubeflow pulls it"
    )
    if settings.kubeflow is None:
        yield Requirement(
            "the setting cluster.kubeflow", False, "`lcia settings cluster` explains its keys; `host` is needed"
        )
        return
    host = settings.kubeflow.host
    yield Requirement(f"an answer of {host}", _answers(host), "Kubeflow Pipelines does not answer there")


def _answers(host: str) -> bool:
    """True if the host answers with anything but a server error. Permissions show only when a run is sent."""
    import httpx2

    try:
        return httpx2.get(f"{host.rstrip('/')}/apis/v2beta1/healthz", timeout=SECONDS).status_code < 500
    except httpx2.HTTPError:
        return False


def run_options(settings: ClusterSettings, state: str, steps: Iterable[StepName]) -> dict[str, Any]:
    """Options of a pipeline of `steps` for `with_options`, as `pods.run_options` for the stack `kubernetes`."""
    common: dict[str, Any] = {"timeout": WAIT_SECONDS, "retries": settings.retries}
    if settings.kubeflow is not None and settings.kubeflow.user_namespace:
        common["user_namespace"] = settings.kubeflow.user_namespace
    return {
        "settings": {
            "docker": CODE_IN_IMAGE | {"parent_image": settings.image},
            "orchestrator": {**common, "pod": pod(settings, settings.default, state)},
        },
        "steps": {
            step: {"settings": {"orchestrator": {**common, "pod": pod(settings, settings.pod(step), state)}}}
            for step in steps
        },
    }
