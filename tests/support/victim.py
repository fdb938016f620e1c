"""What the fault tests run in a process of its own: one verb, and a signal at the n-th call of a function.

The hook wraps a function from outside, in the victim only; the product knows nothing of it. Victims are forked
from a server that has the heavy libraries loaded and has run nothing, so each one starts as a new process does.
"""

import functools
import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from small_loop import OPS, SITE, SmallLoop

from lcia.operations import decisions, tasks
from lcia.worker import loop as worker

TIMEOUT = 120.0


@dataclass(frozen=True)
class Kill:
    """SIGKILL, or another signal, at the n-th call of `module:name`, before or after the call itself."""

    target: str
    call: int = 1
    after: bool = False
    by: signal.Signals = signal.SIGKILL


def _start(loop: SmallLoop, verb: str, subject: str, kill: Kill) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["victim", "components.tuning.task", "evidently", "great_expectations", "mlflow"])
    process = context.Process(target=_run, args=(loop, verb, subject, kill))
    process.start()
    return process


@contextmanager
def stopped(loop: SmallLoop, verb: str, subject: str, target: str, call: int = 1) -> Iterator[Callable[[], int]]:
    """Run a verb in another process, which stands still (SIGSTOP) before the call within the block.

    What it gives lets the process go on and returns its exit status.
    """
    process = _start(loop, verb, subject, Kill(target, call, by=signal.SIGSTOP))
    stat = Path(f"/proc/{process.pid}/stat")
    deadline = time.monotonic() + TIMEOUT
    while stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "T":
        assert process.is_alive(), f"{verb} ended before {target}"
        assert time.monotonic() < deadline, f"{verb} did not come to {target}"
        time.sleep(0.02)

    def go_on() -> int:
        os.kill(int(process.pid or 0), signal.SIGCONT)
        process.join(TIMEOUT)
        assert process.exitcode is not None, f"{verb} still ran after {TIMEOUT} s"
        return process.exitcode

    try:
        yield go_on
    finally:
        process.kill()
        process.join()


def killed(loop: SmallLoop, verb: str, subject: str, kill: Kill) -> None:
    """Run a verb on a task package or version in another process, which must die by the kill."""
    process = _start(loop, verb, subject, kill)
    process.join(TIMEOUT)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"{verb} still ran after {TIMEOUT} s")
    if process.exitcode != -signal.SIGKILL:
        raise AssertionError(f"{verb} ended with {process.exitcode} before {kill}")


def _run(loop: SmallLoop, verb: str, subject: str, kill: Kill) -> None:
    place = loop.open()
    module, _, path = kill.target.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, attribute = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, attribute, _deadly(getattr(owner, attribute), kill))
    if verb == "run":
        item = tasks.submit(place, loop.package(subject), SITE)
        worker.work(place, SITE, print, item.id)
    elif verb == "work":
        worker.work(place, SITE, print)
    elif verb == "reject":
        decisions.reject(place, subject, OPS, "the rows are wrong")
    elif verb == "approve":
        decisions.approve(place, subject, OPS, "read the evidence")
    else:
        decisions.rollback(place, subject, OPS, "went wrong")


def _deadly(function: Callable[..., Any], kill: Kill) -> Callable[..., Any]:
    calls = 0

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == kill.call and not kill.after:
            os.kill(os.getpid(), kill.by)
        result = function(*args, **options)
        if calls == kill.call and kill.after:
            os.kill(os.getpid(), kill.by)
        return result

    return wrapped
