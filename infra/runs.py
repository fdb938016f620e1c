"""Pipeline runs on ZenML's active stack, and ZenML's records of them."""

import functools
import importlib.metadata
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import LciaError
from components.settings import Settings
from components.settings.cluster import StepName
from infra.stacks import kubeflow, pods

SOURCE_ROOT = Path(__file__).parents[1]
LOOK_SECONDS = 10.0
"""Between two looks at a run on a cluster."""
LEFT_BEHIND = "what ran it ended before it did; lcia goes on with another run"


class StepFailed(LciaError):
    """A step of a pipeline raised; the message is the step's own."""

    def __init__(self, run: str, step: str, cause: str, message: str) -> None:
        self.run, self.step, self.cause = run, step, cause
        super().__init__(message)


class ZenMLSettingsError(LciaError):
    """A key under `zenml:` that ZenML does not know."""


@dataclass(frozen=True)
class PipelineRun:
    """A finished run: ZenML's name for it, and each step's first output."""

    name: str
    outputs: dict[str, str]


STEPS: dict[str, tuple[StepName, ...]] = {
    "assess_task": ("ingest_task", "validate_data", "check_drift", "group_instructions"),
    "tune_task": ("tune",),
    "learn_task": ("tune", "evaluate_forgetting", "gate", "register_candidate"),
    "change_task": ("evaluate_forgetting", "gate", "register_change"),
}
"""Steps of each pipeline."""


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse keys that ZenML would ignore silently.

    Raises:
        ZenMLSettingsError: an unknown key, or one that this project decides itself.
    """
    from zenml.config.pipeline_run_configuration import PipelineRunConfiguration

    keys = set(PipelineRunConfiguration.model_fields) - {"enable_cache", "parameters", "run_name", "execution_mode"}
    for key in options:
        if key not in keys:
            raise ZenMLSettingsError(
                f"zenml.{key} is no option of a ZenML run that may be set here; known: {', '.join(sorted(keys))}"
            )


def load() -> None:
    """Load ZenML with its tables, before a thread loads MLflow: SQLAlchemy sets up the tables of both in one go, and
    fails where those of one are half there.

    The caller holds the lease. A database file whose making was cut short is made anew: ZenML would never finish it.
    """
    from zenml.client import Client
    from zenml.environment import Environment

    # ZenML asks pip, in a process of a second's work, four times a task.
    Environment.get_python_packages = staticmethod(_packages)  # type: ignore[method-assign]
    scheme, _, path = os.environ["ZENML_STORE_URL"].partition(":///")
    marker = Path(path + ".unfinished")
    if scheme == "sqlite":
        if marker.exists():
            Path(path).unlink(missing_ok=True)
        if not Path(path).exists():
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
    Client().zen_store.get_store_info()
    if scheme == "sqlite":
        marker.unlink(missing_ok=True)


@functools.cache
def _packages() -> list[str]:
    """Distributions installed, as `pip freeze` writes them."""
    return sorted({f"{each.name}=={each.version}" for each in importlib.metadata.distributions()})


def run_pipeline(
    pipeline: Callable[..., Any], run_name: str, settings: Settings, home: Path, order: str
) -> PipelineRun:
    """Run a pipeline on the active stack and wait for it; with settings of a cluster every step is a pod of its own.

    `home` is the state folder, `order` the digest of the steps' order. The caller holds the lease, so a run of
    this name that has not ended was left behind by a process that died. On this machine the run died with it, and is
    ended in ZenML's books; on a cluster it may still be at work, so it is waited for, and if it ran the same order its
    outputs are taken.

    Steps that do not follow a failed one are never started (fail fast), and nothing is cached by ZenML.

    Raises:
        StepFailed: with the step's own error.
        ZenMLSettingsError: see `check_options`.
    """
    from zenml.client import Client
    from zenml.enums import ExecutionMode
    from zenml.exceptions import RunInterruptedException
    from zenml.utils import source_utils

    options: Mapping[str, Any] = settings.zenml
    check_options(options)
    load()
    _decline_survey(Client())
    for run in _open_runs(Client(), run_name):
        result = _end(run, remote=settings.cluster is not None)
        if result.status.is_successful and result.config.parameters.get("order") == order:
            return _outcome(result)
    source_utils.set_custom_source_root(str(SOURCE_ROOT))
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    if settings.cluster is not None:
        steps = STEPS[pipeline.name]  # type: ignore[attr-defined]
        compile_options = pods.run_options if settings.cluster.kubeflow is None else kubeflow.run_options
        options = _union(compile_options(settings.cluster, str(home), steps), options)
    # ZenML fills in {date} and {time}: it refuses a second run of one name
    runnable = pipeline.with_options(  # type: ignore[attr-defined]
        **options, run_name=run_name + "-{date}-{time}", enable_cache=False, execution_mode=ExecutionMode.FAIL_FAST
    )
    try:
        response = runnable(store=settings.storage.objects, order=order)
    except LciaError as error:
        raise _failure(Client(), run_name, error) from error
    except RunInterruptedException as stopped:  # what ZenML makes of SIGTERM
        raise KeyboardInterrupt from stopped
    return _outcome(response)


def _outcome(response: Any) -> PipelineRun:  # noqa: ANN401 - zenml's PipelineRunResponse
    return PipelineRun(response.name, {name: _first(step) for name, step in response.steps.items()})


def _open_runs(client: Any, run_name: str) -> list[Any]:  # noqa: ANN401 - zenml's Client
    """Runs of this name that ZenML believes to be running, oldest first."""
    runs = client.list_pipeline_runs(name=f"startswith:{run_name}-", sort_by="asc:created", hydrate=True).items
    return [run for run in runs if not run.status.is_finished]


def _end(run: Any, *, remote: bool) -> Any:  # noqa: ANN401 - zenml's PipelineRunResponse
    """Bring a run to its end: wait for it on a cluster, write it off if its process is gone."""
    from zenml.client import Client
    from zenml.enums import ExecutionStatus
    from zenml.models import PipelineRunUpdate, StepRunUpdate
    from zenml.utils.run_utils import refresh_run_status

    while remote and not run.status.is_finished:
        try:
            run = refresh_run_status(run, include_step_updates=True)
        except Exception:  # noqa: BLE001 - the cluster's client has many; none knows the run any more
            break
        if not run.status.is_finished:
            time.sleep(LOOK_SECONDS)
    if not run.status.is_finished:
        store = Client().zen_store
        for step in run.steps.values():
            if not step.status.is_finished:
                store.update_run_step(step.id, StepRunUpdate(status=ExecutionStatus.FAILED))
        store.update_run(run.id, PipelineRunUpdate(status=ExecutionStatus.FAILED, status_reason=LEFT_BEHIND))
        run = Client().get_pipeline_run(run.id)
    return run


def _union(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, mappings merged."""
    union = dict(below)
    for key, value in above.items():
        inner = union.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        union[key] = _union(inner, value) if both else value  # type: ignore[arg-type]
    return union


def _decline_survey(client: Any) -> None:  # noqa: ANN401 - zenml's Client
    """The dashboard otherwise asks for a name and an e-mail address before it shows anything."""
    user = client.active_user
    if user.email_opted_in is None:
        answer = {"finished_onboarding_survey": True}
        client.update_user(user.id, updated_email_opt_in=False, updated_metadata=answer)


def _failure(client: Any, run_name: str, error: LciaError) -> StepFailed:  # noqa: ANN401 - zenml's Client
    newest = client.list_pipeline_runs(name=f"startswith:{run_name}", sort_by="desc:created", size=1).items
    name = newest[0].name if newest else run_name
    failures = [s for s, step in newest[0].steps.items() if step.status == "failed"] if newest else []
    return StepFailed(name, failures[0] if failures else "", type(error).__name__, str(error))


def describe_run(run: str, version: str, models: str | None) -> None:
    """Note in ZenML's dashboard the version that a run led to, with a link to MLflow's models if it has a page."""
    from zenml import log_metadata
    from zenml.metadata.metadata_types import MetadataType, Uri

    facts: dict[str, MetadataType] = {"version": version, **({"models": Uri(models)} if models else {})}
    log_metadata(metadata=facts, run_id_name_or_prefix=run)


def finished_outputs(run_name: str) -> dict[str, str]:
    """First outputs of the steps that finished in the newest run whose name begins with `run_name`."""
    from zenml.client import Client

    newest = Client().list_pipeline_runs(name=f"startswith:{run_name}", sort_by="desc:created", size=1).items
    if not newest:
        return {}
    return {name: _first(step) for name, step in newest[0].steps.items() if step.status == "completed"}


def _first(step: Any) -> str:  # noqa: ANN401 - zenml's StepRunResponse
    """The digest among a step's outputs: the one that is text."""
    for artifacts in step.outputs.values():
        value = artifacts[0].load()
        if type(value) is str:
            return value
    return ""
