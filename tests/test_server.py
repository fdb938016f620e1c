"""The service's process: its rounds."""

from datetime import timedelta

from sqlalchemy import update

from components.audit.log import SYSTEM
from components.storage import tables
from lcia.operations.table import OPERATIONS
from lcia.server import ROUNDS, tell
from lcia.worker.rounds import Rounds


class Letters:
    """A channel that keeps the titles of what it gets."""

    name = "letters"

    def __init__(self):
        self.titles = []

    def send(self, notice):
        self.titles.append(notice.payload["title"])


def test_a_round_tells_people_of_a_gateway_that_does_not_follow_once(champion):
    instance, letters = champion.open("gateway.differs_seconds=60"), Letters()
    rounds = Rounds(instance.db, instance.home, "service", 30, ROUNDS)
    report = OPERATIONS["report"]
    fields = report.check({"replica": "gw-1", "engine": "embedded", "ready": False, "problem": "no part fits"})
    report.run(instance, SYSTEM, fields)
    with instance.db.begin() as connection:
        earlier = instance.db.now(connection) - timedelta(seconds=61)
        connection.execute(update(tables.champion).values(decided_at=earlier))
    tell(instance, {"letters": letters}, rounds)
    assert letters.titles == [], "it began a moment ago"
    with instance.db.begin() as connection:
        connection.execute(update(tables.replicas).values(started_at=earlier))
    for _ in range(2):
        tell(instance, {"letters": letters}, rounds)
    assert letters.titles == ["the gateway gw-1 does not follow the decision for version 3"]
