"""One of the processes that share a step, started by torchrun (steps/processes.py, or a TrainJob on Kubernetes)."""

import argparse
import importlib
import os
import signal
import threading
import time
from collections.abc import Sequence

from components.errors import LciaError
from components.model.ranks import Ranks
from components.settings.cluster import SHARED
from components.storage.objects import canonical
from steps.order import open_learning
from steps.processes import Work, area

WATCH_SECONDS = 1.0


def main(argv: Sequence[str] | None = None) -> None:
    """Join the others, do the share of this process, leave the answer in the work area."""
    parser = argparse.ArgumentParser(prog="python -m steps.rank", description=__doc__)
    parser.add_argument("--answer", default="answer", help="name of the file in the work area")
    parser.add_argument("--watch", type=int, help="process without which this one ends too")
    parser.add_argument("step", choices=SHARED)
    parser.add_argument("store")
    parser.add_argument("order")
    parser.add_argument("rest", nargs="*")
    arguments = parser.parse_args(argv)
    if arguments.watch:
        threading.Thread(target=_end_with, args=(arguments.watch,), daemon=True).start()
    work: Work = importlib.import_module(f"steps.{arguments.step}").work
    context = open_learning(arguments.store, arguments.order)
    number, refusal = int(os.environ.get("RANK", "0")), None
    try:
        ranks = Ranks.join(context.settings.base_model.device)
        answer = {"digest": work(context, ranks, *arguments.rest)}
    except LciaError as error:
        answer, refusal = {"refused": str(error)}, error
    area(context, arguments.order).tell(f"{arguments.answer}-{number}", canonical(answer))
    if refusal:
        raise SystemExit(f"process {number}: {refusal}")
    Ranks.leave()


def _end_with(parent: int) -> None:
    """Stop, with a checkpoint, once the step that started all of this is gone."""
    while True:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(WATCH_SECONDS)


if __name__ == "__main__":
    main()
