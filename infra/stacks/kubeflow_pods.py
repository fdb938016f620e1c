"""ZenML's Kubeflow orchestrator, taught to place pods; importing it needs kfp (see kubeflow-requirements.txt).

ZenML's own hands images, commands, CPU, memory and GPUs to Kubeflow, and about placement nothing but an
`accelerator`. Here each step's task also gets its GPU by the name that nodes give it, its node labels, tolerations and
volumes, and starts again if it is lost.
"""

from collections.abc import Callable
from typing import Any

from kfp import kubernetes
from pydantic import Field
from zenml.enums import StackComponentType
from zenml.integrations.kubeflow.flavors.kubeflow_orchestrator_flavor import (
    KubeflowOrchestratorConfig,
    KubeflowOrchestratorFlavor,
    KubeflowOrchestratorSettings,
)
from zenml.integrations.kubeflow.orchestrators import KubeflowOrchestrator
from zenml.stack import StackValidator

FLAVOR = "lcia-kubeflow"
USER = 10001
"""User and group of the images."""


class PodSettings(KubeflowOrchestratorSettings):
    """ZenML's settings of a step, with its pod as `pods.pod` compiles it."""

    pod: dict[str, Any] = Field(default_factory=dict)
    retries: int = 0


class OrchestratorConfig(KubeflowOrchestratorConfig, PodSettings):
    """ZenML's configuration with the same."""

    @property
    def handles_step_retries(self) -> bool:
        """Kubeflow starts failed steps again, so ZenML need not."""
        return True


class Orchestrator(KubeflowOrchestrator):  # type: ignore[misc, unused-ignore]
    """Compiles a pipeline to Kubeflow's specification and has it run there."""

    @property
    def settings_class(self) -> type[PodSettings]:
        """Of a step."""
        return PodSettings

    @property
    def validator(self) -> StackValidator:
        """ZenML refuses an artifact store that is a folder; here it lies on the claim that all pods mount."""
        return StackValidator({StackComponentType.CONTAINER_REGISTRY, StackComponentType.IMAGE_BUILDER})

    def submit_pipeline(self, snapshot: Any, *rest: Any, **options: Any) -> Any:  # noqa: ANN401 - ZenML's signature
        """Keep each step's settings at hand for the tasks that ZenML makes."""
        settings = {name: self.get_settings(step) for name, step in snapshot.step_configurations.items()}
        self._settings = {name: value for name, value in settings.items() if isinstance(value, PodSettings)}
        return super().submit_pipeline(snapshot, *rest, **options)

    def _create_dynamic_component(
        self, image: str, command: list[str], arguments: list[str], component_name: str
    ) -> Any:  # noqa: ANN401 - kfp's PipelineTask
        """Called by ZenML for every step."""
        make = super()._create_dynamic_component(image, command, arguments, component_name)
        return Component(make, self._settings[component_name])


class Component:
    """Makes a step's task and places it. ZenML names components where kfp, since 2.17, takes only their tasks."""

    def __init__(self, make: Callable[[], Any], settings: PodSettings) -> None:
        self.make, self.told, self.task = make, settings, None

    def __call__(self) -> Any:  # noqa: ANN401 - kfp's PipelineTask
        """The task, whose `after` takes components."""
        task = self.task = place(self.make(), self.told.pod, self.told.retries)
        after = task.after
        task.after = lambda *components: after(*(one.task for one in components))
        return task


def place(task: Any, pod: dict[str, Any], retries: int) -> Any:  # noqa: ANN401 - kfp's PipelineTask
    """Apply the pod settings to a task."""
    requests, limits = pod["resources"]["requests"], dict(pod["resources"]["limits"])
    task.set_cpu_request(requests["cpu"]).set_memory_request(requests["memory"]).set_memory_limit(limits.pop("memory"))
    for name, count in limits.items():
        task.set_accelerator_type(name).set_accelerator_limit(count)
    for name, value in pod["node_selectors"].items():
        kubernetes.add_node_selector(task, name, value)
    for one in pod["tolerations"]:
        kubernetes.add_toleration(
            task, one.get("key"), one.get("operator"), one.get("value"), one.get("effect"), one.get("tolerationSeconds")
        )
    where = {mount["name"]: mount["mountPath"] for mount in pod["volume_mounts"]}
    for volume in pod["volumes"]:
        name = volume["name"]
        if "emptyDir" in volume:
            directory = volume["emptyDir"]
            kubernetes.empty_dir_mount(task, name, where[name], directory.get("medium"), directory.get("sizeLimit"))
        else:
            kubernetes.mount_pvc(task, volume["persistentVolumeClaim"]["claimName"], where[name])
    for one in pod["env"]:
        task.set_env_variable(one["name"], one["value"])
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    return task.set_retry(retries) if retries else task


class Flavor(KubeflowOrchestratorFlavor):
    """The orchestrator's entry in ZenML."""

    @property
    def name(self) -> str:
        """Of the flavor."""
        return FLAVOR

    @property
    def config_class(self) -> type[OrchestratorConfig]:
        """Of the stack component."""
        return OrchestratorConfig

    @property
    def implementation_class(self) -> type[Orchestrator]:
        """Class that runs pipelines."""
        return Orchestrator
