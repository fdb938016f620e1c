"""What was decided while MLflow is away is said not to be served, by words, JSON and exit code, until it is."""

from typing import TYPE_CHECKING

import pytest
from small_loop import OPS, Learnt, SmallLoop

from components.tasks import queue
from lcia.console.forms import sentence
from lcia.operations import tasks
from lcia.operations.table import OPERATIONS

if TYPE_CHECKING:
    from tests.cli.conftest import Lcia

AWAY = "http://127.0.0.1:1"


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """MLflow does not answer; undone by `delenv`."""
    monkeypatch.setenv("LCIA__REGISTRY__TRACKING_URI", AWAY)
    return monkeypatch


def back(away: pytest.MonkeyPatch) -> None:
    away.delenv("LCIA__REGISTRY__TRACKING_URI")


def test_a_rollback_that_mlflow_does_not_know(
    lcia: "Lcia", champion: SmallLoop, learnt: Learnt, away: pytest.MonkeyPatch
) -> None:
    done = lcia(champion, "rollback", 2, "--reason", "complaints", "--as", "ops")
    assert done.code == 1
    first, second, *untold, last = done.out.splitlines()
    assert first == "Version 2 is the champion again (epoch 4)."
    assert second == "It is decided, but not served: MLflow does not serve the champion yet."
    assert untold[0].startswith("  not told: rollback of version 2: MLflow at registry.tracking_uri")
    assert last == "Nothing is lost: `lcia sync` delivers it, or says what stands in the way."

    status = lcia(champion, "status", "--json").json
    assert (status["champion"]["version"], status["champion"]["served"]) == (2, learnt.digests[-1])
    assert "not served by MLflow yet" in lcia(champion, "status").out
    again = lcia(champion, "rollback", 1, "--reason", "no, that one", "--as", "ops", "--json")
    assert (again.code, again.json["number"], again.json["epoch"]) == (1, 1, 5)
    assert (again.json["served"], len(again.json["registry_untold"])) == (False, 1)
    entries = lcia(champion, "status", "--json").json["audit"]["entries"]
    for _ in range(2):  # repeated by somebody who waits: nothing is decided or recorded anew
        again = lcia(champion, "rollback", 1, "--reason", "no, that one", "--as", "ops")
        assert (again.code, again.out.splitlines()[0]) == (1, "Version 1 is the champion already (epoch 5).")
    status = lcia(champion, "status", "--json").json
    assert (status["audit"]["entries"], status["registry"]["pending"]) == (entries, 2)

    back(away)
    assert lcia(champion, "sync").code == 0
    status = lcia(champion, "status", "--json").json
    assert status["champion"]["served"] == learnt.digests[0]
    done = lcia(champion, "approve", 3, "--reason", "and forward", "--as", "ops", "--json")
    assert (done.code, done.json["served"], done.json["registry_untold"]) == (0, True, [])


def test_an_approval_that_mlflow_does_not_know(lcia: "Lcia", pending: SmallLoop, away: pytest.MonkeyPatch) -> None:
    done = lcia(pending, "approve", 1, "--reason", "read", "--as", "ops", "--json")
    assert (done.code, done.json["state"], done.json["epoch"]) == (1, "promoted", 1)
    assert (done.json["served"], done.json["exit_code"]) == (False, 1)
    assert len(done.json["registry_untold"]) == 2
    again = lcia(pending, "approve", 1, "--reason", "read", "--as", "ops")
    assert (again.code, "champion already" in again.out, "not served" in again.out) == (1, True, True)

    instance = pending.open()
    with instance.db.read() as connection:
        item = queue.item(connection, 1)
    (outcome,) = tasks.outcomes(instance, [item])
    assert (outcome["state"], outcome["served"], outcome["exit_code"]) == ("promoted", False, 1)
    back(away)
    assert lcia(pending, "approve", 1, "--reason", "read", "--as", "ops", "--json").code == 0
    (outcome,) = tasks.outcomes(instance, [item])
    assert (outcome["served"], outcome["registry_untold"], outcome["exit_code"]) == (True, [], 0)


def test_more_people_are_needed_before_anything_is_served(
    lcia: "Lcia", pending: SmallLoop, away: pytest.MonkeyPatch
) -> None:
    away.setenv("LCIA__POLICY__APPROVAL__QUORUM", "2")
    done = lcia(pending, "approve", 1, "--reason", "read", "--as", "ops", "--json")
    assert (done.code, done.json["epoch"], done.json["exit_code"]) == (3, None, 3)


def test_a_rejection_that_mlflow_does_not_know(lcia: "Lcia", pending: SmallLoop, away: pytest.MonkeyPatch) -> None:
    done = lcia(pending, "reject", 1, "--reason", "no", "--as", "ops")
    assert done.code == 1
    assert done.out.startswith("Version 1 is rejected.\nIt is decided, but MLflow was not told all of it yet.\n")
    back(away)
    assert lcia(pending, "sync").code == 0
    assert lcia(pending, "status", "--json").json["registry"] == {
        "pending": 0,
        "parked": [],
        "moved": None,
        "empty": False,
        "links": [],
    }


def test_a_sweep_and_a_withdrawal_that_mlflow_does_not_know(
    lcia: "Lcia", champion: SmallLoop, away: pytest.MonkeyPatch
) -> None:
    done = lcia(champion, "withdraw", "passive_voice", "--reason", "no licence", "--as", "ops", "--json")
    assert (done.code, bool(done.json["registry_untold"])) == (1, True)
    back(away)
    done = lcia(champion, "withdraw", "passive_voice", "--reason", "no licence", "--as", "ops", "--json")
    assert (done.code, done.json["registry_untold"], done.json["still_there"]) == (0, [], [])


def test_the_service_and_the_console_say_it_too(champion: SmallLoop, away: pytest.MonkeyPatch) -> None:
    operation = OPERATIONS["rollback"]
    answer = operation.run(champion.open(), OPS, operation.check({"version": "2", "reason": "complaints"}))
    assert (answer["number"], answer["served"], answer["exit_code"]) == (2, False, 1)
    assert sentence(lambda text: text, "rollback", answer) == (
        "Version 2 is the champion again. MLflow does not serve the champion yet. "
        "Changes that have not reached MLflow yet: 1; the overview says why."
    )
    back(away)
    answer = operation.run(champion.open(), OPS, operation.check({"version": "1", "reason": "no, that one"}))
    assert (answer["served"], answer["exit_code"]) == (True, 0)
    assert sentence(lambda text: text, "rollback", answer) == "Version 1 is the champion again."
