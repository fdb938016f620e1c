"""A state that somebody changed by hand: each verb says what it saw and what to do, and none ends in a traceback."""

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from small_loop import SmallLoop

from components.registry.outbox import enqueue
from lcia.service import metrics

if TYPE_CHECKING:
    from tests.cli.conftest import Lcia


def by_hand(loop: SmallLoop, *statements: str) -> None:
    with sqlite3.connect(loop.home / "lcia.db") as connection:
        for statement in statements:
            connection.execute(statement)


def folder(loop: SmallLoop) -> None:
    for file in loop.home.glob("lcia.db*"):
        file.unlink()
    (loop.home / "lcia.db").mkdir()


DAMAGES: dict[str, tuple[Callable[[SmallLoop], None], str]] = {
    "champion": (lambda loop: by_hand(loop, "UPDATE champion SET version = 'ffff'"), "has no such version"),
    "number": (lambda loop: by_hand(loop, "UPDATE champion SET version = 3"), "has no such version"),
    "schema": (lambda loop: by_hand(loop, "DROP TABLE alembic_version"), "alembic_version is gone or empty"),
    "outbox": (lambda loop: by_hand(loop, "DROP TABLE outbox"), "lacks outbox"),
    "tables": (lambda loop: by_hand(loop, "DROP TABLE leases", "DROP TABLE log"), "lacks leases, log"),
    "folder": (folder, "it is a folder"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_verbs_say_what_is_wrong_and_what_to_do(lcia: "Lcia", champion: SmallLoop, name: str) -> None:
    damage, words = DAMAGES[name]
    damage(champion)
    for argv in (["status"], ["rollback", "1", "--reason", "x"], ["sync"], ["doctor", "--quick"]):
        ended = lcia(champion, *argv)
        said = ended.out + ended.err
        seen = words in said or (name in ("champion", "number") and "of the log decided" in said)
        assert (ended.code, seen, "from a backup" in said) == (1, True, True), (argv, said)
        assert "unforeseen" not in said
    assert not (champion.home / "errors").exists()


@pytest.mark.parametrize(
    "column", ["heartbeat = 'yesterday'", "heartbeat = ''", "heartbeat = '2026-01-01'", "ttl = 'x'"]
)
def test_a_heartbeat_that_is_no_time_keeps_nobody_out(lcia: "Lcia", champion: SmallLoop, column: str) -> None:
    by_hand(champion, f"UPDATE leases SET {column}, owner = 'worker/elsewhere'")
    doctor = lcia(champion, "doctor", "--quick")
    assert "unforeseen" not in doctor.out
    assert "it no longer runs" in doctor.out
    assert "lcia_lease_silent_seconds" in metrics.page(champion.open())
    broken = lcia(champion, "break-lease", "lineage:assistant", "--reason", "x", "--json")
    assert broken.code == 0, broken.err
    assert lcia(champion, "rollback", "1", "--reason", "x").code == 0


def test_mlflow_that_lost_everything_is_made_again(lcia: "Lcia", champion: SmallLoop) -> None:
    for file in champion.home.glob("mlflow.db*"):
        file.unlink()
    status = lcia(champion, "status")
    assert "not served by MLflow" in status.out
    assert "MLflow's database is missing or serves nothing; `lcia sync` rebuilds it" in status.out
    (found,) = (one for one in lcia(champion, "doctor", "--json").json["findings"] if one["check"] == "mlflow")
    assert (found["verdict"], "has lost every version" in found["words"]) == ("problem", True)
    assert lcia(champion, "sync").code == 0
    status = lcia(champion, "status", "--json").json
    assert (status["champion"]["served"], status["registry"]["empty"]) == (status["champion"]["digest"], False)


def test_doctor_names_the_row_that_stands_in_the_way(lcia: "Lcia", champion: SmallLoop) -> None:
    """A decision that was not told is the reason why another version is served, and nobody moved the alias."""
    instance = champion.open()
    with instance.db.begin() as connection:
        enqueue(connection, instance.assistant, "candidate", {})
    by_hand(champion, "UPDATE outbox SET payload = '[]' WHERE id = (SELECT max(id) FROM outbox)")
    assert lcia(champion, "sync").code == 1
    doctor = lcia(champion, "doctor").out
    assert "candidate: outbox row" in doctor
    assert "version None" not in doctor
    assert "somebody else moved it" not in doctor
