"""What may run where runs are: Jobs as ZenML makes them of our settings, and nothing that a worker could gain by.

The Jobs are those of ZenML's own builders. Attacks are such a Job with one thing changed.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, get_args

import pytest
from admission import policies, refusals
from kubernetes import client
from zenml.entrypoints.step_entrypoint_configuration import StepEntrypointConfiguration
from zenml.integrations.kubernetes.manifest_utils import (
    build_job_manifest,
    build_pod_manifest,
    pod_template_manifest_from_pod,
)
from zenml.integrations.kubernetes.orchestrators.kubernetes_orchestrator_entrypoint_configuration import (
    KubernetesOrchestratorEntrypointConfiguration,
)
from zenml.integrations.kubernetes.pod_settings import KubernetesPodSettings

from components.settings.cluster import SHARED, ClusterSettings, StepName, StepPod
from infra.stacks import pods, trainjob
from infra.stacks.kubernetes import trial

IMAGE = "localhost/lcia-train:0.1.0"
SETTINGS = ClusterSettings(
    image=IMAGE, steps={"tune": StepPod(gpu=1, tolerations=({"key": "gpu", "operator": "Exists"},))}
)
SHARED_SETTINGS = ClusterSettings(image=IMAGE, steps={"tune": StepPod(nodes=2)})
TOKEN = {"name": "ZENML_STORE_API_TOKEN", "valueFrom": {"secretKeyRef": {"name": "zenml-token-1", "key": "token"}}}
Doc = dict[str, Any]


def job(step: StepName | None, settings: ClusterSettings = SETTINGS) -> Doc:
    """A step's Job, or that of ZenML's own pod, as it is sent to the cluster."""
    told = pods.run_options(settings, "/state", get_args(StepName))
    if step is None:
        orders = told["settings"]["orchestrator"]
        pod, account = orders["orchestrator_pod_settings"], orders["service_account_name"]
        command = KubernetesOrchestratorEntrypointConfiguration.get_entrypoint_command()
    else:
        orders = told["steps"][step]["settings"]["orchestrator"]
        pod, account = orders["pod_settings"], orders["step_pod_service_account_name"]
        command = StepEntrypointConfiguration.get_entrypoint_command()
    labels = {"pipeline": "learn_task", "run_id": "1", **({"step_name": step} if step else {})}
    made = build_pod_manifest(
        pod_name=None,
        image_name=settings.image,
        command=command,
        args=["--snapshot_id", "1"],
        privileged=False,
        pod_settings=KubernetesPodSettings(**{**pod, "env": [*pod["env"], TOKEN]}),
        service_account_name=account,
        env={"ZENML_STORE_URL": "http://zenml:8080"},
        labels=dict(labels),
    )
    whole = build_job_manifest(
        "a-job", pod_template_manifest_from_pod(made), 1, labels=labels, pod_failure_policy=pods.FAILURE_POLICY
    )
    found: Doc = client.ApiClient().sanitize_for_serialization(whole)
    return found


def pod_of(job: Doc) -> Doc:
    """The pod that the Job's controller makes, with what the API server puts into one that has a token."""
    made = copy.deepcopy(job["spec"]["template"])
    made["metadata"].setdefault("labels", {}).update({"batch.kubernetes.io/job-name": "a-job", "controller-uid": "1"})
    if made["spec"].get("automountServiceAccountToken"):
        sources = [{"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "kube-root-ca.crt"}},
                   {"downwardAPI": {"items": []}}]  # fmt: skip
        made["spec"]["volumes"].append({"name": "kube-api-access-abcde", "projected": {"sources": sources}})
    return made


@pytest.mark.parametrize("step", [None, *get_args(StepName)])
def test_every_step_and_zenmls_pod_may_run(step: StepName | None) -> None:
    assert refusals("jobs", job(step), IMAGE) == []
    assert refusals("pods", pod_of(job(step)), IMAGE) == []


def test_what_stack_up_tries_is_a_step() -> None:
    assert refusals("jobs", trial(SETTINGS), IMAGE) == []


def test_a_step_on_several_nodes_may_run() -> None:
    """The pod that waits for the TrainJob, and the pods that Trainer makes of it."""
    assert set(SHARED) == {"tune", "evaluate_forgetting"}
    assert refusals("jobs", job("tune", SHARED_SETTINGS), IMAGE) == []
    made = trainjob.train_job(SHARED_SETTINGS, "tune", "/state", "order", ["steps.rank"], "answer")
    template = made["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    node = copy.deepcopy(template["template"]["spec"]["template"])
    asked = made["spec"]["trainer"]
    counted = {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['index']"}}}
    env = [*asked["env"], counted]
    node["spec"]["containers"][0] |= {"image": asked["image"], "command": asked["command"], "env": env}
    node["spec"]["automountServiceAccountToken"] = False  # of the account `step`
    assert refusals("pods", node, IMAGE) == []


def _pod(change: Callable[[Doc], object]) -> Callable[[Doc], object]:
    return lambda job: change(job["spec"]["template"]["spec"])


def _container(change: Callable[[Doc], object]) -> Callable[[Doc], object]:
    return lambda job: change(job["spec"]["template"]["spec"]["containers"][0])


def _volume(**source: Any) -> Callable[[Doc], object]:
    return _pod(lambda pod: pod["volumes"].append({"name": "loot", **source}))


def _env(**source: Any) -> Callable[[Doc], object]:
    return _container(lambda one: one["env"].append({"name": "LOOT", "valueFrom": source}))


def _security(**values: Any) -> Callable[[Doc], object]:
    return _container(lambda one: one["securityContext"].update(values))


ATTACKS: Mapping[str, Callable[[Doc], object]] = {
    "a Secret as a volume": _volume(secret={"secretName": "database"}),
    "a Secret in a projected volume": _volume(projected={"sources": [{"secret": {"name": "database"}}]}),
    "a Secret in the token's volume": _pod(
        lambda pod: pod["volumes"].append(
            {"name": "kube-api-access-x", "projected": {"sources": [{"secret": {"name": "database"}}]}}
        )
    ),
    "a folder of the node": _volume(hostPath={"path": "/"}),
    "another claim": _volume(persistentVolumeClaim={"claimName": "keys"}),
    "a volume of a driver": _volume(csi={"driver": "secrets-store.csi.k8s.io"}),
    "a claim made on the spot": _volume(ephemeral={"volumeClaimTemplate": {}}),
    "a Secret as a variable": _env(secretKeyRef={"name": "database", "key": "owner-url"}),
    "a ConfigMap as a variable": _env(configMapKeyRef={"name": "settings", "key": "zenml.yaml"}),
    "a whole Secret as variables": _container(lambda one: one.update(envFrom=[{"secretRef": {"name": "database"}}])),
    "another image": _container(lambda one: one.update(image="docker.io/attacker/shell:1")),
    "another command": _container(lambda one: one.update(command=["sh", "-c", "id"])),
    "no command": _container(lambda one: one.pop("command")),
    "the account of the servers": _pod(lambda pod: pod.update(serviceAccountName="service")),
    "the default account": _pod(lambda pod: pod.pop("serviceAccountName")),
    "a step with a token": _pod(lambda pod: pod.update(automountServiceAccountToken=True)),
    "a step whose token is not refused": _pod(lambda pod: pod.pop("automountServiceAccountToken")),
    "a step without its label": lambda job: job["spec"]["template"]["metadata"]["labels"].pop("step_name"),
    "a pod without labels": lambda job: job["spec"]["template"]["metadata"].pop("labels"),
    "a server's label": lambda job: job["spec"]["template"]["metadata"]["labels"].update(
        {"app.kubernetes.io/component": "worker"}
    ),
    "a server's name": lambda job: job["spec"]["template"]["metadata"]["labels"].update(
        {"app.kubernetes.io/name": "service"}
    ),
    "a second container": _pod(lambda pod: pod["containers"].append({**pod["containers"][0], "name": "other"})),
    "a container before": _pod(lambda pod: pod.update(initContainers=[{"name": "a", "image": IMAGE}])),
    "a container beside": _pod(lambda pod: pod.update(ephemeralContainers=[{"name": "a", "image": IMAGE}])),
    "the node's network": _pod(lambda pod: pod.update(hostNetwork=True)),
    "the node's processes": _pod(lambda pod: pod.update(hostPID=True)),
    "the node's memory": _pod(lambda pod: pod.update(hostIPC=True)),
    "a node past the scheduler": _pod(lambda pod: pod.update(nodeName="control-plane")),
    "another runtime": _pod(lambda pod: pod.update(runtimeClassName="unconfined")),
    "root": _security(runAsUser=0),
    "perhaps root": _security(runAsNonRoot=False),
    "privileged": _security(privileged=True),
    "more privileges": _security(allowPrivilegeEscalation=True),
    "a capability": _security(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
    "capabilities kept": _security(capabilities={"drop": ["NET_RAW"]}),
    "a root that can be written to": _security(readOnlyRootFilesystem=False),
    "no seccomp profile": _security(seccompProfile={"type": "Unconfined"}),
    "no security context": _container(lambda one: one.pop("securityContext")),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_job_that_differs_is_refused(attack: str) -> None:
    """Both as a Job and as the bare pod."""
    changed = job("tune")
    ATTACKS[attack](changed)
    assert refusals("jobs", changed, IMAGE) != []
    assert refusals("pods", pod_of(changed), IMAGE) != []


def test_zenmls_pod_does_not_pass_for_a_step() -> None:
    """Only pods without `step_name` reach the API server; only the account that needs it goes without."""
    changed = job(None)
    changed["spec"]["template"]["metadata"]["labels"]["step_name"] = "tune"
    assert refusals("jobs", changed, IMAGE) == ["the label step_name is borne by steps, and by them alone"]


def test_accounts_of_lcia_write_tokens_of_runs_and_no_other_secret() -> None:
    token: Doc = {"metadata": {"name": "zenml-token-1"}, "type": "Opaque"}
    assert refusals("secrets", token, IMAGE) == []
    assert refusals("secrets", {**token, "metadata": {"name": "registry"}}, IMAGE) != []
    of_account = {**token, "type": "kubernetes.io/service-account-token"}
    assert refusals("secrets", of_account, IMAGE, "system:serviceaccount:lcia-runs:orchestrator") != []
    assert refusals("secrets", {**token, "metadata": {"name": "registry"}}, IMAGE, "kubernetes-admin") == []


def test_a_policy_that_can_not_be_evaluated_refuses() -> None:
    assert all(policy["spec"]["failurePolicy"] == "Fail" for policy in policies())
    assert refusals("jobs", {"spec": {"template": {}}}, IMAGE) != []
