"""What the service does again and again: nothing ends it silently, and whoever looks sees that it fails."""

import threading
import time

import pytest

from components.audit.log import SYSTEM, append
from components.errors import LciaError
from components.notices import notices
from components.notices.channels import ChannelMissing, channels
from components.settings import MailSettings, NotifySettings
from components.storage import rounds as table
from lcia.doctor import state
from lcia.doctor.findings import Installation
from lcia.server import ROUNDS, make_app, tell
from lcia.worker.rounds import Rounds


class Broken(LciaError):
    """A refusal of this test."""


@pytest.fixture
def server(serve, fresh):
    return serve(fresh)


def rounds_of(server, every: float = 0.01) -> Rounds:
    return Rounds(server.instance.db, server.instance.home, "service", every, ROUNDS)


def fail(error: Exception):
    """Work that fails."""

    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize("error", [ValueError("a\nb"), Broken("away"), MemoryError(), RecursionError(), KeyError("x")])
def test_no_failure_ends_the_rounds(server, error):
    rounds, stop, done = rounds_of(server), threading.Event(), []

    def work() -> None:
        rounds.run("mlflow", fail(error))
        rounds.run("notices", lambda: done.append(1))
        raise error

    thread = rounds.start(work, stop)
    deadline = time.monotonic() + 30
    while len(done) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert thread.is_alive()
    stop.set()
    thread.join()
    counts = {name: (ok > 0, failed > 0) for name, ok, failed, _ in rounds.counts()}
    assert (counts["mlflow"], counts["notices"]) == ((False, True), (True, False))


def test_a_failing_round_is_counted_shown_and_tried_later_each_time(server, monkeypatch):
    rounds = rounds_of(server, every=30)
    app = make_app(server.instance, {"LCIA_SESSION_SECRET": "s" * 40}, rounds)
    client = type(server.client)(app)
    clock = [1000.0]
    monkeypatch.setattr("lcia.worker.rounds.time.monotonic", lambda: clock[0])
    tried = []

    def mlflow() -> None:
        tried.append(clock[0] - 1000)
        raise Broken("MLflow at http://inside:5000 is away")

    for _ in range(40):
        rounds.run("mlflow", mlflow)
        clock[0] += 30
    assert tried == [0, 30, 90, 210, 450, 930], "the pause doubles"
    health = client.get("/health").json()
    assert health == {"status": "degraded", "reasons": ["round mlflow failed 6 times in a row"]}
    assert 'lcia_rounds_total{round="mlflow",outcome="failed"} 6' in client.get("/metrics").text
    with server.instance.db.read() as connection:
        (one,) = table.failing(connection)
    assert (one.name, one.failures, one.error) == ("mlflow", 6, "MLflow at http://inside:5000 is away")
    found = state.check_rounds(Installation(server.instance.home, None, server.instance.settings))
    assert [("MLflow at http://inside:5000 is away" in each.words, each.verdict) for each in found] == [
        (True, "warning")
    ]
    server.sign_in("engineer")
    assert "MLflow at http://inside:5000 is away" in server.client.get("/live").text
    clock[0] += 600
    rounds.run("mlflow", lambda: None)
    assert client.get("/health").json() == {"status": "ok", "reasons": []}
    with server.instance.db.read() as connection:
        assert table.failing(connection) == []


def test_a_thread_that_ended_is_said(server):
    rounds, stop = rounds_of(server), threading.Event()
    stop.set()
    rounds.start(lambda: None, stop).join()
    assert rounds.troubles() == ["the thread of the rounds ended; start the service again"]


class Way:
    """A channel that can't write some notices, for a reason that nobody foresaw."""

    name = "way"

    def __init__(self) -> None:
        self.sent = []

    def send(self, notice: notices.Notice) -> None:
        if "first" in str(notice.payload):
            raise ValueError("Header values may not contain linefeed or carriage return characters")
        self.sent.append(notice.payload["subject"])


def test_a_notice_that_can_not_be_sent_keeps_no_other_from_being_sent(server):
    instance, way, rounds = server.instance, Way(), rounds_of(server)
    ways = {way.name: way}
    tell(instance, ways, rounds)  # what was before the first channel is not told
    with instance.db.begin() as connection:
        for subject in ("first", "second", "third"):
            append(connection, "task.held", SYSTEM, subject, {"item": 1, "reason": "r\nSubject: forged"})
        append(connection, "candidate.registered", SYSTEM, "fourth", {"number": {"odd": 1}})
    tell(instance, ways, rounds)
    assert way.sent == ["second", "third", "fourth"]
    assert rounds.troubles() == ["round delivery failed 1 time in a row"]
    with instance.db.read() as connection:
        (left,) = notices.waiting(connection, instance.assistant)
    assert left.payload["subject"] == "first"


@pytest.mark.parametrize(
    ("assistant", "mail"),
    [
        ("assistant\nBcc: x@y.z", {}),
        ("assistant", {"sender": "a@b.c\r\nBcc: x@y.z"}),
        ("assistant", {"to": ("a@b.c\nx",)}),
        ("assistant", {"to": ("a@b.c\u202e",)}),
    ],
)
def test_settings_that_would_forge_a_header_are_refused_at_the_start(assistant, mail):
    told = MailSettings(**{"host": "h", "sender": "a@b.c", "to": ("d@e.f",), **mail})
    with pytest.raises(ChannelMissing, match="can't stand in a mail's header"):
        channels(assistant, NotifySettings(mail=told), {})
