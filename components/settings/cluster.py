"""Settings of runs on Kubernetes and of scheduled work; no version depends on them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, model_validator

from components.settings.section import Section

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|[KMGT]i?)?$")]
"""An amount as Kubernetes writes it: `500m`, `2`, `4Gi`."""
Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
"""A name as Kubernetes takes it."""
StepName: TypeAlias = Literal[
    "ingest_task",
    "validate_data",
    "check_drift",
    "group_instructions",
    "tune",
    "evaluate_forgetting",
    "gate",
    "register_candidate",
    "register_change",
]
ScheduleName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")]
SHARED: tuple[StepName, ...] = ("tune", "evaluate_forgetting")
"""Steps that several processes can do together."""
Work: TypeAlias = Literal["inbox", "reevaluate", "sync", "retention"]


class StepPod(Section):
    """Resources of a step's pod, and the nodes it may run on."""

    cpu: Quantity = "500m"
    """Reserved cores; the pod uses more if they are idle."""
    memory: Quantity = "2Gi"
    """Reserved memory, which is also the limit."""
    gpu: Annotated[int, Field(ge=0)] = 0
    """Number of GPUs."""
    nodes: Annotated[int, Field(ge=1)] = 1
    """Nodes that share tune or evaluate_forgetting, each with all of this; more than one needs Kubeflow Trainer."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of a GPU in the nodes' resources."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that it may run on."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Tolerations of taints, as Kubernetes writes them."""


class KubeflowSettings(Section):
    """Kubeflow Pipelines, for `lcia stack up kubeflow`."""

    host: Annotated[str, Field(pattern=r"^https?://")]
    """Address of its API, as `https://kubeflow.example.com/pipeline`."""
    namespace: Label = "kubeflow"
    """Namespace of Kubeflow itself."""
    user_namespace: Label | None = None
    """Namespace of the runs, if Kubeflow has several users; null: that of Kubeflow."""


class ClusterSettings(Section):
    """Runs on Kubernetes: ZenML starts a Job for each step."""

    namespace: Label = "lcia-runs"
    """Namespace of the runs; the servers are in another one, so that no run can read their Secrets."""
    image: str = "lcia-train:0.1.0"
    """Image of the steps, best by digest: `registry/lcia-train@sha256:...`."""
    context: str | None = None
    """Context of the kubeconfig; null: this process runs inside the cluster."""
    orchestrator_account: Label = "orchestrator"
    """Service account of ZenML's orchestrator pod, which starts the Jobs."""
    step_account: Label = "step"
    """Service account of the steps, which has no rights."""
    trainer_account: Label = "trainer"
    """Service account of a step on several nodes, which starts a TrainJob and waits for it."""
    claim: Label = "objects"
    """PersistentVolumeClaim of objects and base models, mounted at the path of the state folder."""
    shared_memory: Quantity = "1Gi"
    """Size of /dev/shm."""
    grace_seconds: Annotated[int, Field(ge=10)] = 120
    """Seconds that a step has to write its checkpoint when its node goes away."""
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    """Times that a failed step starts again; a restart because its node went away does not count."""
    keep_jobs_hours: Annotated[float, Field(gt=0)] = 24
    """Hours that finished Jobs and their logs are kept."""
    kubeflow: KubeflowSettings | None = None
    """Kubeflow runs the pods; null: ZenML starts a Job for each."""
    default: StepPod = StepPod()
    """Pod of every step that `steps` does not name."""
    steps: Mapping[StepName, StepPod] = {
        "tune": StepPod(cpu="2", memory="6Gi"),
        "evaluate_forgetting": StepPod(cpu="2", memory="6Gi"),
        "check_drift": StepPod(cpu="1", memory="4Gi"),
    }
    """Pods of single steps."""

    @model_validator(mode="after")
    def _some_steps_are_shared(self) -> Self:
        odd = [name for name, pod in self.steps.items() if pod.nodes > 1 and name not in SHARED]
        if odd or self.default.nodes > 1:
            raise ValueError(
                f"nodes of {odd[0] if odd else 'default'} in cluster is more than 1; only {' and '.join(SHARED)} can "
                "be shared by several nodes"
            )
        return self

    def pod(self, step: StepName) -> StepPod:
        """The pod of a step."""
        return self.steps.get(step, self.default)


def _cron(text: str) -> str:
    from croniter import croniter

    if len(text.split()) != 5 or not croniter.is_valid(text):
        raise ValueError(f"{text!r}, expected five fields such as '*/10 * * * *'")
    return text


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r}, expected a time zone such as Europe/Berlin or Etc/UTC")
    ZoneInfo(name)
    return name


class Schedule(Section):
    """Work at set times."""

    work: Work
    """inbox: take the packages there and work on them; reevaluate: predict all of the champion's test rows again; sync:
    bring MLflow in step and verify the log; retention: delete objects that may not be kept."""
    cron: Annotated[str, AfterValidator(_cron)]
    """Minute, hour, day, month, weekday."""
    time_zone: Annotated[str, AfterValidator(_zone)] = "Etc/UTC"
    """Time zone of these."""
    deadline_seconds: Annotated[int, Field(ge=10)] = 600
    """Seconds by which it may start late; after that it is left out."""
    longest_hours: Annotated[float, Field(gt=0)] = 12
    """Hours after which it is stopped."""
