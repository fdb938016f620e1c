"""A step on several nodes: a TrainJob of Kubeflow Trainer (trainer.kubeflow.org/v1alpha1), made by the step's pod.

Trainer's runtime `torch-distributed` starts a pod a node and tells torchrun of them; each process runs `steps.rank`.
The step waits and takes the answer from the work area. Started again, it finds the TrainJob by its name and waits on.

Never run on a real Kubeflow Trainer: checked against its schema and run on a double of its API with real `torchrun`
processes. It stays because nothing else here lets several nodes share a step.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from components.errors import LciaError
from components.settings.cluster import ClusterSettings, StepName
from components.storage.objects import digest_of
from infra.stacks.kubernetes import SECONDS, connect
from infra.stacks.pods import pod

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
RUNTIME = "torch-distributed"
"""A ClusterTrainingRuntime that comes with Kubeflow Trainer."""
JOB = CONTAINER = "node"
"""Name of that runtime's job and of its container."""
ANSWER = "lcia.dev/answer"
"""Annotation: the name of the processes' answers in the work area."""
POLL_SECONDS = 5.0


class TrainJobFailed(LciaError):
    """Kubeflow Trainer did not bring the step to its end."""


def name_of(step: StepName, order: str) -> str:
    """Name of the TrainJob of a step of an order, the same in every process."""
    return f"lcia-{step.replace('_', '-')}-{digest_of(order.encode())[:10]}"


def train_job(
    settings: ClusterSettings, step: StepName, state: str, order: str, program: Sequence[str], answer: str
) -> dict[str, Any]:
    """The manifest; `program` is what torchrun starts, with its arguments, `state` the state folder of every pod."""
    request = settings.pod(step)
    parts = pod(settings, request, state)
    context = parts["container_security_context"]
    meta = {"labels": {"app.kubernetes.io/name": "lcia-trainer", "step_name": step}}  # network policies select by it
    nodes = {
        "serviceAccountName": settings.step_account,
        "nodeSelector": parts["node_selectors"],
        "tolerations": parts["tolerations"],
        "volumes": parts["volumes"],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": settings.grace_seconds,
        "containers": [{"name": CONTAINER, "volumeMounts": parts["volume_mounts"], "securityContext": context}],
    }
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": name_of(step, order),
            "namespace": settings.namespace,
            "annotations": {ANSWER: answer},
            **meta,
        },
        "spec": {
            "runtimeRef": {"name": RUNTIME},
            "trainer": {
                "image": settings.image,
                "command": ["python", "-m", "torch.distributed.run", "--module"],
                "args": list(program),
                "env": parts["env"],
                "numNodes": request.nodes,
                "numProcPerNode": max(1, request.gpu),
                "resourcesPerNode": parts["resources"],
            },
            "runtimePatches": [
                {
                    "manager": "lcia.dev/step",
                    "trainingRuntimeSpec": {
                        "template": {
                            "spec": {
                                "replicatedJobs": [
                                    {
                                        "name": JOB,
                                        "template": {"spec": {"template": {"metadata": meta, "spec": nodes}}},
                                    }
                                ]
                            }
                        }
                    },
                }
            ],
        },
    }


def run(settings: ClusterSettings, job: dict[str, Any], stop: Callable[[], bool]) -> str:
    """Make the TrainJob, or find it, and wait for its end; returns the name of its processes' answers.

    If `stop` says so it is deleted: its pods get SIGTERM, write a checkpoint and end.

    Raises:
        TrainJobFailed: the cluster refuses it, or it failed.
    """
    from kubernetes import client
    from urllib3.exceptions import HTTPError

    jobs, name = client.CustomObjectsApi(connect(settings)), job["metadata"]["name"]
    where: dict[str, Any] = {"group": GROUP, "version": VERSION, "namespace": settings.namespace, "plural": PLURAL}
    where["_request_timeout"] = SECONDS
    try:
        while (state := _read(jobs, where, name)) is not None and _has(state, "Failed"):
            jobs.delete_namespaced_custom_object(**where, name=name)  # of an earlier attempt
            time.sleep(POLL_SECONDS)
        state = state or jobs.create_namespaced_custom_object(**where, body=job)
        while not (_has(state, "Complete") or _has(state, "Failed")):
            if stop():
                break
            time.sleep(POLL_SECONDS)
            state = _read(jobs, where, name) or _no_job(name)
        if not _has(state, "Failed"):  # one that failed stays for its logs
            jobs.delete_namespaced_custom_object(**where, name=name)
    except client.ApiException as error:
        raise TrainJobFailed(_advice(settings, name, error.status)) from error
    except HTTPError as error:
        raise TrainJobFailed(f"the cluster does not answer about TrainJob {name}: {type(error).__name__}") from error
    return str(state["metadata"]["annotations"][ANSWER])


def _read(jobs: Any, where: dict[str, Any], name: str) -> dict[str, Any] | None:  # noqa: ANN401 - kubernetes' client
    from kubernetes.client import ApiException

    try:
        job: dict[str, Any] = jobs.get_namespaced_custom_object(**where, name=name)
    except ApiException as error:
        if error.status == 404:
            return None
        raise
    return job


def _has(job: dict[str, Any], condition: str) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)


def _no_job(name: str) -> dict[str, Any]:
    raise TrainJobFailed(f"TrainJob {name} was deleted while the step waited for it; retry the task")


def _advice(settings: ClusterSettings, name: str, status: int) -> str:
    if status == 404:
        return (
            f"the cluster knows no TrainJob ({name}): install Kubeflow Trainer 2.3 or newer with its runtime "
            f"{RUNTIME}, or set nodes of the step to 1"
        )
    if status == 403:
        return (
            f"service account {settings.trainer_account} may not make TrainJob {name} in {settings.namespace}: apply "
            "the component k8s/components/trainer with the overlay"
        )
    return f"the cluster refused TrainJob {name} with {status}"
