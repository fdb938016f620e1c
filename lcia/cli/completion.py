"""Completions for the shell: numbers and names from the state, read without changing anything.

Completion runs at every press of the key, so it imports little and opens the database for reading only. It offers
nothing if the database is not an existing SQLite file or if verbs go to a server, and never prints why.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from infra.environment import found_state

if TYPE_CHECKING:
    from components.settings import Settings

Offer = tuple[str, str]
"""A completion, and a remark that some shells show beside it."""


def versions(incomplete: str) -> list[Offer]:
    """Numbers of versions, each with the task it learnt."""
    rows = _rows("SELECT number, task_name || ', ' || state FROM candidates WHERE assistant = ? ORDER BY number")
    return _fitting(rows, incomplete)


def pending(incomplete: str) -> list[Offer]:
    """Numbers of versions that wait for people."""
    query = "SELECT number, task_name FROM candidates WHERE assistant = ? AND state = 'pending' ORDER BY number"
    return _fitting(_rows(query), incomplete)


def items(incomplete: str) -> list[Offer]:
    """Numbers of tasks in the queue."""
    rows = _rows("SELECT id, name || '@' || version || ', ' || state FROM queue WHERE assistant = ? ORDER BY id")
    return _fitting(rows, incomplete)


def tasks(incomplete: str) -> list[Offer]:
    """Tasks as `name@version`."""
    rows = _rows("SELECT name || '@' || version, state FROM queue WHERE assistant = ? ORDER BY id")
    return _fitting(rows, incomplete)


def trials(incomplete: str) -> list[Offer]:
    """Numbers of trials that have not ended."""
    query = "SELECT id, kind || ', ' || state FROM trials WHERE assistant = ? AND state <> 'ended' ORDER BY id"
    return _fitting(_rows(query), incomplete)


def groups(incomplete: str) -> list[Offer]:
    """Ids of the champion's groups, and `new`."""
    offers = [*_groups(), ("new", "a group of its own")]
    return _fitting(offers, incomplete)


def _fitting(rows: list[Offer], incomplete: str) -> list[Offer]:
    return [(word, remark) for word, remark in rows if word.startswith(incomplete)]


def _groups() -> list[Offer]:
    from components.grouping.pool import Pool
    from components.storage.objects import ObjectStore

    offers: list[Offer] = []
    with contextlib.suppress(Exception):
        settings = _settings()
        digest = _rows("SELECT version, '' FROM champion WHERE name = ?")[0][0]
        pool = Pool.from_manifest(ObjectStore(settings.storage.objects).get_json(digest))
        offers = [(group.id, ", ".join(task.name for task in group.tasks)) for group in pool.groups]
    return offers


def _rows(query: str) -> list[Offer]:
    """Rows of two columns about the configured assistant; none if anything is not as expected."""
    if os.environ.get("LCIA_SERVER"):
        return []
    with contextlib.suppress(Exception):
        settings = _settings()
        with _open(settings.storage.database) as connection:
            return [(str(word), str(remark)) for word, remark in connection.execute(query, (settings.assistant,))]
    return []


@contextlib.contextmanager
def _open(url: str) -> Iterator[sqlite3.Connection]:
    """A SQLite file, opened for reading; sqlite3 raises if there is none."""
    file = Path(url.removeprefix("sqlite:///")).absolute()
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=0.5)) as connection:
        yield connection


def _settings() -> "Settings":
    from components.settings import load_settings

    file, home = found_state(None)
    return load_settings(file, home_folder=home)
