"""The service's process: lines of its log, one a record whatever its words are; its rounds."""

import logging
import subprocess
import sys
from datetime import timedelta

from sqlalchemy import update

from components.audit.log import SYSTEM
from components.storage import tables
from lcia.operations.table import OPERATIONS
from lcia.server import ROUNDS, tell
from lcia.worker.rounds import Rounds


def test_no_word_forges_a_line_of_the_log():
    program = (
        "import logging; from lcia.server import log_plainly; log_plainly();"
        "logging.getLogger('lcia.service').warning('from %s', 'bob\\n2026-01-01 ERROR forged\\x1b[2J');"
        "logging.getLogger('uvicorn.error').error('asked for %s', '/x\\u202e');"
        "logging.getLogger('elsewhere').warning('a\\rb')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) == 3, done.stderr
    assert lines[0].endswith(r"WARNING lcia.service: from bob\n2026-01-01 ERROR forged\x1b[2J")
    assert lines[1].endswith(r"ERROR uvicorn.error: asked for /x\u202e")
    assert lines[2].endswith(r"WARNING elsewhere: a\rb")


def test_a_traceback_stays_below_its_record():
    from lcia.server import _Lines

    try:
        int("a\n2026-01-01 forged\x1b")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    first, *rest = _Lines("%(message)s").format(record).splitlines()
    assert first == "failed"
    assert all(line.startswith("  ") for line in rest)


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
