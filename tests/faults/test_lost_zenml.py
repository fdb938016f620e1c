"""ZenML's database deleted: its pages are empty, everything else goes on."""

import shutil

from small_loop import OPS, SmallLoop, learn, promote, write_package
from zenml.client import Client

from lcia.inference import ask
from lcia.operations import audit, decisions, status, versions


def test_only_the_dashboard_forgets(champion: SmallLoop, tmp_path) -> None:
    place = champion.open()
    before = status.status(place)
    shutil.rmtree(champion.home / "zenml")
    place = champion.open()
    assert Client().list_pipeline_runs().items == []
    assert status.status(place) == before
    assert audit.verify(place).ok
    assert ask.ask(place, "Turn the sentence into passive voice.", "She read it.", None, base=False)["version"] == 3
    assert versions.show(place, "2")["gate"]["rows"]
    learn(place, write_package(tmp_path, "booking_slot"))
    promote(place)
    assert status.status(place)["champion"]["version"] == 4
    decisions.rollback(place, "3", OPS, "and back")
    assert len(Client().list_pipeline_runs().items) == 2
