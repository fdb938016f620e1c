"""A database that is gone or empty beside what it decided: every verb refuses, and MLflow's alias stays."""

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_loop import Learnt, SmallLoop

from components.audit.log import SYSTEM
from components.promotion.reconcile import reconcile
from components.registry.registry import Registry
from components.storage.database import Database

if TYPE_CHECKING:
    from tests.cli.conftest import Lcia


def _champion(loop: SmallLoop) -> list[tuple[str, int]]:
    with sqlite3.connect(loop.home / "mlflow.db") as connection:
        return connection.execute("SELECT alias, version FROM registered_model_aliases").fetchall()


@pytest.mark.parametrize("what", ["deleted", "emptied", "new"])
def test_nobody_goes_on_from_an_empty_database(lcia: "Lcia", champion: SmallLoop, tmp_path: Path, what: str) -> None:
    database = champion.home / "lcia.db"
    for file in champion.home.glob("lcia.db*"):
        file.unlink()
    if what == "emptied":
        database.write_bytes(b"")
    if what == "new":
        Database(f"sqlite:///{database}").migrate()
    before = _champion(champion)
    for argv in (
        ["sync"],
        ["status"],
        ["submit", champion.package("passive_voice")],
        ["rollback", "1", "--reason", "x"],
    ):
        refused = lcia(champion, *argv)
        assert refused.code == 1, argv
        assert "the database is lost or emptied. Restore it from a backup" in refused.err
        assert "a signed head of its log" in refused.err
        assert "a champion of assistant in" in refused.err
    assert _champion(champion) == before == [("champion", 3)]
    assert database.exists() is (what != "deleted"), "a new database was made"
    told = lcia(champion, "doctor", "--quick")
    assert (told.code, "lost or emptied" in told.out) == (1, True)


@pytest.mark.parametrize("kept", ["heads", "objects", "mlflow.db"])
def test_one_trace_is_enough(lcia: "Lcia", champion: SmallLoop, tmp_path: Path, kept: str) -> None:
    home = tmp_path / "rest"
    home.mkdir()
    (champion.home / kept).rename(home / kept)
    refused = lcia(SmallLoop(home, champion.config, champion.packages), "sync")
    assert (refused.code, "lost or emptied" in refused.err) == (1, True)


def test_an_empty_log_never_takes_the_alias_away(learnt: Learnt, champion: SmallLoop, tmp_path: Path) -> None:
    """Also where MLflow is a server of which no file tells anything."""
    instance = champion.open()
    empty = Database(f"sqlite:///{tmp_path}/empty.db")
    empty.migrate()
    told = instance.settings.registry
    registry = Registry(told.tracking_uri, told.artifacts, told.experiment, instance.assistant)
    found = {one.difference.kind: one.repaired for one in reconcile(empty, instance.store, registry, SYSTEM)}
    assert found["alias"] is False
    assert registry.champion() == learnt.digests[-1]


def test_a_state_that_has_only_looked_is_not_lost(lcia: "Lcia", fresh: SmallLoop) -> None:
    assert lcia(fresh, "status").code == 0
    assert lcia(fresh, "plan", fresh.package("passive_voice")).code in (0, 1)
    assert lcia(fresh, "status").code == 0
