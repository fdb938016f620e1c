"""The process of a pod: forked from a server that has the heavy libraries loaded, so that each starts in a second.

The double's kubeconfig stands for the cluster's own, the pod's name for the machine's. A pod that is to be lost stands
still where its step has done its work and ZenML knows nothing of it yet.
"""

import multiprocessing
import os
import runpy
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAUSED = "paused"
"""File of a pod that stands still."""
LOADED = (
    "zenml.entrypoints.step_entrypoint_configuration",
    "zenml.integrations.kubernetes.orchestrators.kubernetes_orchestrator_entrypoint",
    *("pipelines.assess_task", "pipelines.learn_task", "components.tuning.task", "components.evaluation.forgetting"),
    *("great_expectations", "evidently", "torch", "transformers", "peft", "sklearn"),
)
"""Only classes and functions: whoever reads settings or opens a store at import would do so for all pods at once."""


def warm_up() -> None:
    """Have the server load its libraries now; later nothing waits for them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    first = context.Process(target=os.getpid)
    first.start()
    first.join()


def start(command: Sequence[str], environment: Mapping[str, str], log: Path, *, forked: bool) -> BaseProcess:
    """Run `python -m MODULE ARGUMENT...` with this environment and no other variable."""
    python, option, module, *arguments = command
    assert (python, option) == ("python", "-m"), command
    context = multiprocessing.get_context("forkserver" if forked else "spawn")
    process = context.Process(target=_run, args=(module, arguments, dict(environment), log))
    process.start()
    return process


def _run(module: str, arguments: list[str], environment: dict[str, str], log: Path) -> None:
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, sys.stdout.fileno())
    os.dup2(out, sys.stderr.fileno())

    from kubernetes import config
    from zenml.client import Client
    from zenml.config.global_config import GlobalConfiguration
    from zenml.orchestrators.step_runner import StepRunner

    GlobalConfiguration._reset_instance()
    Client._reset_instance()
    config.load_incluster_config = lambda: config.load_kube_config(environment["KUBECONFIG"])
    socket.gethostname = lambda: environment["DOUBLE_POD_NAME"]
    if "DOUBLE_PAUSE" in environment:
        StepRunner._store_output_artifacts = _stand_still
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _stand_still(*_: object, **__: object) -> None:
    Path(os.environ["ZENML_CONFIG_PATH"], PAUSED).write_text(os.environ["DOUBLE_PAUSE"], encoding="utf-8")
    time.sleep(600)
