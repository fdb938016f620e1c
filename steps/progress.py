"""Progress of long steps, for a person who watches: one line rewritten on a terminal, sparse lines elsewhere."""

import sys
import time
from collections.abc import Callable

from components.visible import visible

EVERY = {True: 0.2, False: 10.0}
"""Seconds between two updates, on a terminal and elsewhere."""
REPORT_EVERY = 2.0
"""Seconds between two reports to those who watch from elsewhere."""


class ProgressCounter:
    """Counter that shows `what n of total`; call it with increments. `report`, if given, is called now and then."""

    def __init__(self, report: Callable[[str, int, int], None] | None = None) -> None:
        self._what, self._done, self._shown, self._began = "", 0, 0.0, 0.0
        self._report, self._told = report, 0.0
        self._terminal = sys.__stderr__ is not None and sys.__stderr__.isatty()

    def say(self, line: str) -> None:
        """One line about something that takes long and cannot be counted."""
        if sys.__stderr__ is not None:
            print(f"  {visible(line)}", file=sys.__stderr__, flush=True)

    def __call__(self, what: str, count: int, total: int) -> None:
        """`count` more of `total` are done."""
        now = time.monotonic()
        if what != self._what or self._done >= total:
            self._what, self._done, self._shown, self._began = what, 0, now, now
        self._done += count
        end = self._done >= total
        long = now - self._began > 1.0
        if self._report is not None and now - self._told >= REPORT_EVERY:
            self._told = now
            self._report(what, self._done, total)
        if now - self._shown < EVERY[self._terminal] and not (end and long):
            return
        self._shown = now
        line = f"  {visible(what)}: {self._done} of {total} ({now - self._began:.0f} s)"
        stream = sys.__stderr__
        if stream is None:
            return
        if self._terminal:
            stream.write(f"\r{line}\x1b[K" + ("\n" if end else ""))
        else:
            stream.write(line + "\n")
        stream.flush()
