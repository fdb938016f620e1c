"""A step's work by several processes, of this machine or of several nodes: the step waits and takes their answer."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from typing import Concatenate

from components.environment import without_secrets
from components.errors import LciaError
from components.model.ranks import ALONE, Ranks
from components.settings import BaseModelSettings, ClusterSettings
from components.settings.cluster import StepName
from components.storage.objects import Scratch, parse_json
from components.tuning.stopping import put_off
from steps.order import LearnContext

Work = Callable[Concatenate[LearnContext, Ranks, ...], str]
"""Work of every process; the digest that it returns is the same in each."""
GRACE_SECONDS = 90
"""Time that the processes have for their checkpoint when the step is asked to stop."""


class ProcessesFailed(LciaError):
    """The processes of a step ended without an answer."""


def together(step: StepName, work: Work, context: LearnContext, store: str, order: str, *rest: str) -> str:
    """Answer of a step's work, done here or by as many processes as `base_model.processes` says.

    Raises:
        ProcessesFailed: in the words of the process that failed first.
    """
    cluster = context.settings.cluster
    if cluster and cluster.pod(step).nodes > 1:
        return _on_nodes(cluster, step, context, store, order, *rest)
    count = number_of(context.settings.base_model)
    if count == 1:
        answer = work(context, ALONE, *rest)
        from components.model.memory import give_back  # torch, which a process that only compiles does not have

        give_back()  # the later steps run in this process too
        return answer
    place = f"answer-{uuid.uuid4().hex}"
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    program = ["--shutdown-timeout", str(GRACE_SECONDS), "--module", "steps.rank"]
    arguments = ["--answer", place, "--watch", str(os.getpid()), step, store, order, *rest]
    # each process would otherwise take all cores for itself
    threads = str(max(1, (os.cpu_count() or 1) // count))
    home = {name: value for name, value in os.environ.items() if name == "LCIA_HOME"}
    environment = {"OMP_NUM_THREADS": threads, **home, **without_secrets(store=True)}
    with put_off() as stop:  # asked to stop, they write a checkpoint first
        launcher = subprocess.Popen(  # noqa: S603 - this Python, and names made here
            [sys.executable, "-m", *torchrun, *program, *arguments], env=environment
        )
        try:
            while launcher.poll() is None and not stop.due:
                time.sleep(0.2)
        finally:
            launcher.terminate()
            launcher.wait()
    return _answer(area(context, order), place, count, f"ended with {launcher.returncode}")


def _on_nodes(
    cluster: ClusterSettings, step: StepName, context: LearnContext, store: str, order: str, *rest: str
) -> str:
    """The answer of as many nodes as the cluster's settings say, with a process for each of their GPUs."""
    from infra.stacks.trainjob import run, train_job

    answer, pod = f"answer-{uuid.uuid4().hex}", cluster.pod(step)
    program = ["steps.rank", "--answer", answer, step, store, order, *rest]
    job = train_job(cluster, step, os.environ.get("LCIA_HOME", ""), order, program, answer)
    with put_off() as stop:
        answer = run(cluster, job, lambda: stop.due)
    name = job["metadata"]["name"]
    return _answer(area(context, order), answer, pod.nodes * max(1, pod.gpu), f"of TrainJob {name} ended")


def area(context: LearnContext, order: str) -> Scratch:
    """Work area in which the processes leave their answers."""
    return context.store.scratch(context.order.scratch or order)


def number_of(settings: BaseModelSettings) -> int:
    """Processes that share a step on this machine.

    Raises:
        ProcessesFailed: there are fewer GPUs than the settings ask for.
    """
    import torch

    gpus = torch.cuda.device_count() if settings.device != "cpu" else 0
    if settings.processes == "auto":
        return max(1, gpus)
    if 0 < gpus < settings.processes or (settings.device == "cuda" and gpus < settings.processes):
        raise ProcessesFailed(
            f"base_model.processes is {settings.processes}, but this machine has {gpus} GPUs; set it to auto, which "
            "takes those that are there"
        )
    return settings.processes


def _answer(scratch: Scratch, name: str, count: int, how: str) -> str:
    answers = [parse_json(content) for k in range(count) if (content := scratch.read(f"{name}-{k}"))]
    for each in answers:
        if "refused" in each:
            raise ProcessesFailed(each["refused"])
    if len(answers) < count:
        raise ProcessesFailed(
            f"the {count} processes {how}, {len(answers)} of them with an answer; what they printed says more. A lack "
            "of main memory kills without a word: fewer processes need less"
        )
    digests = {each["digest"] for each in answers}
    if len(digests) != 1:
        raise ProcessesFailed(f"the {count} processes made {len(digests)} different results; run on equal devices")
    return str(digests.pop())
