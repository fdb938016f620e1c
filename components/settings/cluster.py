"""Settings of runs on Kubernetes and of what runs on a schedule; no version depends on them."""

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
]
ScheduleName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")]
SHARED: tuple[StepName, ...] = ("tune", "evaluate_forgetting")
"""Steps that several processes can do together."""
Work: TypeAlias = Literal["inbox", "reevaluate", "sync", "retention"]


class StepPod(Section):
    """What a step's pod asks for, and where it may run."""

    cpu: Quantity = "500m"
    """Cores that are reserved; more are used where they are idle."""
    memory: Quantity = "2Gi"
    """Memory that is reserved, and the limit."""
    gpu: Annotated[int, Field(ge=0)] = 0
    """Number of GPUs."""
    nodes: Annotated[int, Field(ge=1)] = 1
    """Nodes that share tune or evaluate_forgetting, each with all of this; more than one asks for Kubeflow Trainer."""
    gpu_resource: str = "nvidia.com/gpu"
    """What the nodes call a GPU."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of nodes that it may run on."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Taints that it bears, as Kubernetes writes them."""


class KubeflowSettings(Section):
    """Kubeflow Pipelines, for `lcia stack up kubeflow`."""

    host: Annotated[str, Field(pattern=r"^https?://")]
    """Address of its API, as `https://kubeflow.example.com/pipeline`."""
    namespace: Label = "kubeflow"
    """Namespace that it runs in itself."""
    user_namespace: Label | None = None
    """Namespace of the runs where it has several users; null: that of Kubeflow."""


class ClusterSettings(Section):
    """Runs on Kubernetes: ZenML makes a Job of each step."""

    namespace: Label = "lcia-runs"
    """Namespace of the runs; the servers, whose Secrets no run may see, are in another."""
    image: str = "lcia-train:0.1.0"
    """Image of the steps, best by digest: `registry/lcia-train@sha256:...`."""
    context: str | None = None
    """Context of the kubeconfig; null: this process runs inside the cluster."""
    orchestrator_account: Label = "orchestrator"
    """Service account of ZenML's orchestrator pod, which makes the Jobs."""
    step_account: Label = "step"
    """Service account of the steps, which may do nothing."""
    trainer_account: Label = "trainer"
    """Service account of a step on several nodes, which makes a TrainJob and waits for it."""
    claim: Label = "objects"
    """PersistentVolumeClaim of objects and base models, mounted where the state folder is."""
    shared_memory: Quantity = "1Gi"
    """Size of /dev/shm."""
    grace_seconds: Annotated[int, Field(ge=10)] = 120
    """Seconds that a step has to write its checkpoint when its node goes away."""
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    """How often a failed step is started again; one whose node went away is so without being counted."""
    keep_jobs_hours: Annotated[float, Field(gt=0)] = 24
    """Hours that finished Jobs, with their logs, are kept."""
    kubeflow: KubeflowSettings | None = None
    """Kubeflow makes the pods; null: ZenML makes a Job of each."""
    default: StepPod = StepPod()
    """Of every step that `steps` does not name."""
    steps: Mapping[StepName, StepPod] = {
        "tune": StepPod(cpu="2", memory="6Gi"),
        "evaluate_forgetting": StepPod(cpu="2", memory="6Gi"),
        "check_drift": StepPod(cpu="1", memory="4Gi"),
    }
    """Of single steps."""

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
        """What a step asks for."""
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
    """Something that is done at set times."""

    work: Work
    """inbox: take what lies there and work on it; reevaluate: predict all of the champion's test rows again; sync:
    bring MLflow in step and verify the log; retention: delete what may not be kept."""
    cron: Annotated[str, AfterValidator(_cron)]
    """Minute, hour, day, month, weekday."""
    time_zone: Annotated[str, AfterValidator(_zone)] = "Etc/UTC"
    """In which they are read."""
    deadline_seconds: Annotated[int, Field(ge=10)] = 600
    """How late it may start; later it is left out."""
    longest_hours: Annotated[float, Field(gt=0)] = 12
    """Hours after which it is stopped."""
