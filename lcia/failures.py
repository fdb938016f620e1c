"""Messages about failures that no code foresaw: seen, expected and what to do; the traceback goes to a file."""

import errno
import logging
import os
import platform
import secrets
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sqlalchemy.exc import DBAPIError

from components import libraries
from components.audit import log
from components.errors import LciaError
from components.storage.database import DiskFull
from components.storage.database import explain as explain_database

if TYPE_CHECKING:
    from components.storage.database import Database

FOLDER = "errors"
"""Folder in the state folder, with a file for each unforeseen failure."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
MOST = 10
"""Entries of the log that a message names one by one."""


LOG = logging.getLogger("lcia.service")


class Unforeseen(LciaError):
    """A server failed at something; its log says at what, under a reference."""


class Command(Protocol):
    """State that a command opened, and the number of entries in its log then."""

    db: "Database | None"
    entries: int


def explain(error: BaseException) -> str:
    """Message about an error: what was seen, what was expected, and what to do."""
    if isinstance(error, ModuleNotFoundError) and error.name in libraries.WITH_TORCH:
        return (
            f"{error.name} is not installed here, and this verb computes with the model; run it where the steps run, "
            "in the image `lcia-train`"
        )
    if isinstance(error, ImportError):
        name = error.name or "a library"
        return f"{name} can't be loaded ({_first_line(error)}); `make setup` installs the libraries it needs"
    if isinstance(error, MemoryError):
        return "out of memory; end other programs, or set smaller batches (tuning.batch_size, evaluation.batch_size)"
    if isinstance(error, RecursionError):
        return "something is nested too deeply to be read; flatten the values of the file that was named last"
    return _of_system(error) if isinstance(error, OSError) else _unforeseen(error)


def _unforeseen(error: BaseException) -> str:
    if isinstance(error, DBAPIError):  # of MLflow's or ZenML's database; ours explains its own errors
        return explain_database(error, "of MLflow or ZenML")
    return f"unforeseen {type(error).__name__}: {_first_line(error)}; run the same command again, report it if it stays"


def is_full(error: BaseException) -> bool:
    """True if a disk had no room."""
    return isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in _FULL)


def _is_clear(error: BaseException) -> bool:
    """True if the message is complete, so that a traceback would help nobody."""
    forbidden = isinstance(error, OSError) and error.errno in _FORBIDDEN and error.filename is not None
    torch = isinstance(error, ModuleNotFoundError) and error.name in libraries.WITH_TORCH
    return isinstance(error, LciaError) or is_full(error) or forbidden or torch


def _of_system(error: OSError) -> str:
    what = str(error.filename) if error.filename is not None else "a file"
    if error.errno in _FULL:
        return f"disk full: {what} can't be written; free space and run the same command again, it goes on from there"
    if error.errno in _FORBIDDEN:
        return (
            f"{what} can't be opened or changed by user {os.getuid()} ({error.strerror}); run it as the owner of that "
            "file, or give the user its rights"
        )
    reason = error.strerror or _first_line(error) or type(error).__name__
    return f"{what}: {reason}; look at the file, the disk and the network it lies on, then run the same command again"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")


def new_entries(command: Command) -> str | None:
    """Sentence on the log's entries since a command began; None if it opened no state."""
    if command.db is None:
        return None
    try:
        with command.db.read() as connection:
            entries = log.entries(connection, start=command.entries)
    except Exception as unreadable:  # noqa: BLE001 - any error is said beside the failure itself
        return f"what was recorded can't be read now ({_first_line(unreadable)}); `lcia audit show` lists it later"
    if not entries:
        return "nothing was recorded in the log since this command began"
    names = ", ".join(f"{entry.action} {entry.subject[:40]!r}" for entry in entries[:MOST])
    more = f" and {len(entries) - MOST} more" if len(entries) > MOST else ""
    return f"recorded in the log since this command began: {names}{more}"


def write(error: BaseException, home: Path | None, about: Sequence[str]) -> Path | None:
    """Write the traceback to a file in the state folder, else in the temporary one; None if neither has room."""
    lines = [
        f"{datetime.now(UTC).isoformat()}  Python {platform.python_version()}, {platform.platform()}",
        *about,
        *traceback.format_exception(error),
    ]
    text = "\n".join(lines) + "\n"
    for folder in filter(None, (home, Path(tempfile.gettempdir()))):
        try:
            if not folder.is_dir():
                continue
            inner = folder / FOLDER if folder == home else folder
            inner.mkdir(exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f"lcia-{datetime.now(UTC):%Y%m%dT%H%M%S}-", suffix=".log", dir=inner)
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return Path(name)
    return None


def note(error: Exception, home: Path, *about: str) -> str:
    """Message for clients of a server: a reference, under which its log and a file have the details."""
    reference = secrets.token_hex(4)
    file = write(error, home, [f"reference {reference}", *about])
    LOG.error("%s: %s (%s)", reference, explain(error), f"details in {file}" if file else "no room for details")
    what = "the server's disk is full" if is_full(error) else "the server failed at this"
    return f"{what}; its administrators find the reason in its log under {reference}"


def report(error: Exception, home: Path | None, command: Command) -> str:
    """Whole message about a failure; its traceback goes to a file, if it helps."""
    lines = [str(error) if isinstance(error, LciaError) else explain(error)]
    if not _is_clear(error):
        file = write(error, home, [f"command: {sys.argv!r}"])
        lines.append(f"the details are in {file}" if file else "there was no room for a file with the details")
    entries = None if isinstance(error, ImportError) else new_entries(command)
    return "\n".join([*lines, entries] if entries else lines)
