"""A step's work by several processes of this machine: torchrun starts them, the step waits and takes their answer."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from typing import Concatenate

from components.errors import LciaError
from components.model.ranks import ALONE, Ranks
from components.settings import BaseModelSettings
from components.storage.objects import Scratch, parse_json
from components.tuning.stopping import put_off
from steps.order import Context

Work = Callable[Concatenate[Context, Ranks, ...], str]
"""What every process does; the digest that it returns is the same in each."""
GRACE_SECONDS = 90
"""How long the processes have for their checkpoint when the step is asked to stop."""


class ProcessesFailed(LciaError):
    """The processes of a step ended without an answer."""


def together(work: Work, context: Context, store: str, order: str, *rest: str) -> str:
    """The answer of `work`, done here or by as many processes as `base_model.processes` says.

    Raises:
        ProcessesFailed: in the words of the process that failed first.
    """
    count = number_of(context.settings.base_model)
    if count == 1:
        return work(context, ALONE, *rest)
    answer = f"answer-{uuid.uuid4().hex}"
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    program = ["--shutdown-timeout", str(GRACE_SECONDS), "--module", "steps.rank"]
    told = ["--answer", answer, "--watch", str(os.getpid()), work.__module__, store, order, *rest]
    threads = str(max(1, (os.cpu_count() or 1) // count))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    with put_off() as stop:  # asked to stop, they write a checkpoint first
        started = subprocess.Popen(  # noqa: S603 - this Python, and names that we made
            [sys.executable, "-m", *torchrun, *program, *told], env=environment
        )
        try:
            while started.poll() is None:
                time.sleep(0.2)
                if stop.asked:
                    started.terminate()
                    started.wait()
        finally:
            started.terminate()
            started.wait()
    return _answer(area(context, order), answer, count, started.returncode)


def area(context: Context, order: str) -> Scratch:
    """Where the processes leave their answers."""
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


def _answer(scratch: Scratch, name: str, count: int, code: int) -> str:
    said = [parse_json(content) for k in range(count) if (content := scratch.read(f"{name}-{k}"))]
    for each in said:
        if "refused" in each:
            raise ProcessesFailed(each["refused"])
    digests = {each["digest"] for each in said}
    if code != 0 or len(said) < count:
        raise ProcessesFailed(
            f"the {count} processes of the step ended with {code}, {len(said)} of them with an answer; what they "
            "printed above says more. A lack of main memory kills without a word: base_model.processes=1 needs less"
        )
    if len(digests) != 1:
        raise ProcessesFailed(f"the {count} processes made {len(digests)} different results; run on equal devices")
    return str(digests.pop())
