"""A process killed while MLflow's or ZenML's database is made: the next one finds no half of it."""

import contextlib
import multiprocessing
import os
import sqlite3
from pathlib import Path

import pytest
from small_loop import SmallLoop

from components.registry.client import connect
from infra.runs import load

pytestmark = pytest.mark.slow

ENDED = 9


def test_mlflows_database_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "new" / "mlflow.db"
    _ends(_dies_in_mlflow, f"sqlite:///{file}")
    assert [left.name for left in file.parent.iterdir()] == ["mlflow.db.unfinished"], "it was in the midst of it"
    assert connect(f"sqlite:///{file}").search_experiments()
    assert [left.name for left in file.parent.iterdir()] == ["mlflow.db"]


def test_zenmls_database_is_made_anew(fresh: SmallLoop) -> None:
    _ends(_dies_in_zenml, fresh)
    database = fresh.home / "zenml" / "local_stores" / "default_zen_store" / "zenml.db"
    assert _flavors(database) == 0, "it was in the midst of it"
    fresh.enter()
    load()
    assert _flavors(database) > 10
    made = database.stat().st_ino
    load()
    assert database.stat().st_ino == made
    assert not list(database.parent.glob("*.unfinished"))


def _ends(victim, argument) -> None:
    process = multiprocessing.get_context("spawn").Process(target=victim, args=(argument,))
    process.start()
    process.join()
    assert process.exitcode == ENDED


def _dies_in_mlflow(uri: str) -> None:
    from mlflow.store.db import utils

    utils._upgrade_db = lambda engine: os._exit(ENDED)
    connect(uri)


def _dies_in_zenml(loop: SmallLoop) -> None:
    from zenml.zen_stores.sql_zen_store import SqlZenStore

    SqlZenStore._sync_flavors = lambda store: os._exit(ENDED)
    loop.enter()
    load()


def _flavors(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM flavor").fetchone()[0])
