"""Curves of a task in MLflow while it is learnt, up to the last checkpoint."""

import contextlib
import logging
import threading
from collections.abc import Iterator

from components.errors import LciaError
from components.storage.leases import Lease, check
from components.tasks.queue import QueueItem
from components.tuning.progress_curves import read_curves
from lcia.instance import Instance

LOG = logging.getLogger("lcia.worker.live_curves")
EVERY = 10.0
"""Seconds between two looks at the checkpoints."""


@contextlib.contextmanager
def show(instance: Instance, item: QueueItem, key: str, lease: Lease, every: float = EVERY) -> Iterator[None]:
    """Show in MLflow, during the block, the curves of the run under `key`; the candidate's run continues them.

    If MLflow can't be reached learning goes on, and the curves come with the candidate. A run that fails ends in MLflow
    with the error's message. A worker whose `lease` was taken over sends nothing more.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(instance, item, key, lease, every, stop), daemon=True)
    thread.start()
    try:
        yield
    except LciaError as failure:
        stop.set()
        thread.join()
        with contextlib.suppress(LciaError):
            _need_lease(instance, lease)
            instance.registry.unfollow(key, str(failure))
        raise
    finally:
        stop.set()
        thread.join()


def _follow(instance: Instance, item: QueueItem, key: str, lease: Lease, every: float, stop: threading.Event) -> None:
    points = 0  # that MLflow has
    while not stop.wait(every):
        try:
            curves = read_curves(instance.store.scratch(key))
            if curves and len(curves["loss"]) > points:
                _need_lease(instance, lease)
                name = f"{instance.assistant}: {item.name}@{item.version}"
                instance.registry.follow(key, name, {"task": f"{item.name}@{item.version}"}, curves)
                points = len(curves["loss"])
        except (LciaError, OSError):
            continue
        except Exception as error:  # noqa: BLE001 - learning goes on whatever it is, and later curves follow
            LOG.warning("the curves were not sent to MLflow: %s: %s", type(error).__name__, error)


def _need_lease(instance: Instance, lease: Lease) -> None:
    with instance.db.read() as connection:
        check(connection, lease)
