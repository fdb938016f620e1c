"""Stop requests while tuning (SIGTERM: a node is drained, a pod preempted): first the checkpoint, then the stop."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


@dataclass
class Stop:
    """Request to stop, and the handler that was there before."""

    due: bool = False
    before: Handler | int | None = None

    def obey(self) -> None:
        """Do what SIGTERM would have done otherwise: call the handler that was there, or end."""
        signal.signal(signal.SIGTERM, self.before or signal.SIG_DFL)
        if callable(self.before):
            self.before(signal.SIGTERM, None)
        else:
            os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def put_off() -> Iterator[Stop]:
    """Within the block SIGTERM is only noted; the work looks at `due` between two steps and obeys.

    Signals reach the main thread alone; in another one nothing is changed.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(*_: object) -> None:
        stop.due = True

    stop.before = signal.signal(signal.SIGTERM, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, stop.before or signal.SIG_DFL)
    if stop.due:  # after the last step, with everything written
        stop.obey()
