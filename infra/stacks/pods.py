"""Runs on Kubernetes: settings of every pod for ZenML's orchestrator, compiled from the section `cluster`.

ZenML ignores `ResourceSettings` there, starts pods that the `restricted` Pod Security Standard refuses, and counts a
step whose node went away as failed. So resources, security and failure policy are spelt out for each step.
"""

from collections.abc import Iterable
from typing import Any

from components.settings.cluster import ClusterSettings, StepName, StepPod

MEMORY, TEMPORARY = "/dev/shm", "/tmp"  # noqa: S108 - folders inside a pod
DISRUPTED: dict[str, Any] = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
FAILED: dict[str, Any] = {
    "action": "Count",
    "onExitCodes": {"containerName": "main", "operator": "NotIn", "values": [0]},
}
CONFINED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""Security context of every container."""
CODE_IN_IMAGE = {
    "skip_build": True,
    "allow_download_from_artifact_store": False,
    "allow_download_from_code_repository": False,
    "allow_including_files_in_images": False,
}
"""Pods run the code of their image; ZenML would otherwise put this process's code where any step can change it."""
FAILURE_POLICY = {"rules": [DISRUPTED, FAILED]}
"""A pod that was evicted is started again and not counted. Order matters: it ends with an exit code, too."""


def run_options(settings: ClusterSettings, state: str, steps: Iterable[StepName]) -> dict[str, Any]:
    """Options of a pipeline of `steps` for `with_options`; `state` is the state folder, the same in every pod."""
    orchestrator = pod(settings, StepPod(cpu="100m", memory="1Gi"), state, token=True)
    common = {
        "service_account_name": settings.orchestrator_account,
        "step_pod_service_account_name": settings.step_account,
        "orchestrator_pod_settings": orchestrator,
        "pod_failure_policy": FAILURE_POLICY,
        "pod_stop_grace_period": settings.grace_seconds,
        "ttl_seconds_after_finished": round(settings.keep_jobs_hours * 3600),
        "backoff_limit_margin": 1,
    }
    return {
        "settings": {
            "docker": CODE_IN_IMAGE | {"parent_image": settings.image},
            "orchestrator": {**common, "pod_settings": pod(settings, settings.default, state)},
        },
        "retry": {"max_retries": settings.retries},
        "steps": {
            step: {
                "settings": {"orchestrator": common | _step(settings, step, state)},
                "retry": {"max_retries": settings.retries},
            }
            for step in steps
        },
    }


def _step(settings: ClusterSettings, step: StepName, state: str) -> dict[str, Any]:
    """Settings that differ from step to step. A step on several nodes only makes a TrainJob, and waits."""
    if settings.pod(step).nodes == 1:
        return {"pod_settings": pod(settings, settings.pod(step), state)}
    waiting = pod(settings, settings.default, state, token=True)
    return {"pod_settings": waiting, "step_pod_service_account_name": settings.trainer_account}


def pod(settings: ClusterSettings, request: StepPod, state: str, *, token: bool = False) -> dict[str, Any]:
    """One pod as ZenML's `KubernetesPodSettings`: resources, volumes, and no right that it does not need.

    `token`: it talks to Kubernetes' API.
    """
    return {
        "resources": resources(request),
        "node_selectors": request.node_selector,
        "tolerations": list(request.tolerations),
        "volumes": [
            {"name": "state", "persistentVolumeClaim": {"claimName": settings.claim}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
            {"name": "temporary", "emptyDir": {}},
        ],
        "volume_mounts": [
            {"name": "state", "mountPath": state},
            {"name": "shared-memory", "mountPath": MEMORY},
            {"name": "temporary", "mountPath": TEMPORARY},
        ],
        "env": [{"name": name, "value": value} for name, value in (("HOME", TEMPORARY), ("LCIA_HOME", state))],
        "container_security_context": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            **CONFINED,
        },
        "additional_pod_spec_args": {"automount_service_account_token": token},
    }


def resources(request: StepPod) -> dict[str, dict[str, str]]:
    """Reserved resources and their limits; cores have no limit, so that a pod may use idle ones."""
    limits = {"memory": request.memory, **({request.gpu_resource: str(request.gpu)} if request.gpu else {})}
    return {"requests": {"cpu": request.cpu, **limits}, "limits": limits}
