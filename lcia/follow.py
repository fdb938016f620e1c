"""While a task is learnt: its curves in MLflow, up to the last checkpoint."""

import contextlib
import threading
from collections.abc import Iterator

from components.errors import LciaError
from components.tasks.queue import QueueItem
from components.tuning.progress_curves import read_curves
from lcia.workplace import Workplace

EVERY = 10.0
"""Seconds between two looks at the checkpoints."""


@contextlib.contextmanager
def shown(place: Workplace, item: QueueItem, key: str, every: float = EVERY) -> Iterator[None]:
    """Within the block MLflow shows what the run under `key` has learnt so far; the candidate's run goes on from it.

    MLflow is only told: where it can't be reached the learning goes on, and the curves come with the candidate.
    A run that fails ends in MLflow with the error's words.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(place, item, key, every, stop), daemon=True)
    thread.start()
    try:
        yield
    except LciaError as failure:
        stop.set()
        thread.join()
        with contextlib.suppress(LciaError):
            place.registry.unfollow(key, str(failure))
        raise
    finally:
        stop.set()
        thread.join()


def _follow(place: Workplace, item: QueueItem, key: str, every: float, stop: threading.Event) -> None:
    told = 0
    while not stop.wait(every):
        with contextlib.suppress(LciaError, OSError):
            curves = read_curves(place.store.scratch(key))
            if curves and len(curves["loss"]) > told:
                name = f"{place.assistant}: {item.name}@{item.version}"
                place.registry.follow(key, name, {"task": f"{item.name}@{item.version}"}, curves)
                told = len(curves["loss"])
