"""What the kill tests run in a process of its own: one verb, and a kill at the n-th call of a function.

The hook wraps a function from outside, in the victim only; the product knows nothing of it. Victims are forked
from a server that has the heavy libraries loaded and has run nothing, so each one starts as a new process does.
"""

import functools
import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from small_loop import OPS, SITE, SmallLoop

from lcia import verbs, worker

TIMEOUT = 120.0


@dataclass(frozen=True)
class Kill:
    """SIGKILL at the n-th call of `module:name`, before or after the call itself."""

    target: str
    call: int = 1
    after: bool = False


def killed(loop: SmallLoop, verb: str, subject: str, kill: Kill) -> None:
    """Run a verb on a task package or version in another process, which must die by the kill."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["victim", "components.tuning.task", "evidently", "great_expectations", "mlflow"])
    process = context.Process(target=_run, args=(loop, verb, subject, kill))
    process.start()
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
        item = verbs.submit(place, loop.package(subject), SITE)
        worker.work(place, SITE, print, item.id)
    elif verb == "approve":
        verbs.approve(place, subject, OPS, "read the evidence")
    else:
        verbs.rollback(place, subject, OPS, "went wrong")


def _deadly(function: Callable[..., Any], kill: Kill) -> Callable[..., Any]:
    calls = 0

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == kill.call and not kill.after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **options)
        if calls == kill.call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped
