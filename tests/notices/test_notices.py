"""Notices: read off the log, told once to each channel, tried again while a channel is down."""

import base64
import json
import socket
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import trial_deeds
from aiosmtpd.controller import Controller
from promotion_state import BOB, CAROL
from sqlalchemy import select, update

from components.audit import log
from components.audit.log import SYSTEM
from components.notices import channels, notices
from components.notices.channels import SECRET, ChannelMissing, sign
from components.notices.notices import FIRST_RETRY, LONGEST_RETRY, NotDelivered
from components.promotion import approvals, champion, replicas
from components.settings import ApprovalSettings, MailSettings, NotifySettings, PolicySettings
from components.storage import tables
from components.tasks import queue

KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()


class Box:
    """A channel that keeps what it gets, while it is up."""

    def __init__(self, name="box"):
        self.name, self.up, self.got = name, True, []

    def send(self, notice):
        if not self.up:
            raise NotDelivered("down")
        self.got.append(notice)


def collect(state, names=("box",), link=""):
    with state.db.begin() as connection:
        return notices.collect(connection, "a", list(names), link)


@pytest.fixture
def told(state):
    """A state whose log is watched from here on."""
    assert collect(state) == 0
    return state


def deliver(state, *boxes):
    return notices.deliver(state.db, "a", {box.name: box for box in boxes})


def make_due(state):
    with state.db.begin() as connection:
        moment = connection.execute(select(tables.notices.c.at)).scalars().first()
        connection.execute(update(tables.notices).values(next_at=moment))


def test_what_happened_before_is_not_told(state):
    state.candidate("news", None)
    assert collect(state) == 0
    assert collect(state) == 0


def test_without_channels_nothing_is_kept(state):
    assert collect(state, names=()) == 0
    with state.db.read() as connection:
        assert connection.execute(select(tables.notices)).all() == []


def test_each_event_is_told_once_to_each_channel(told):
    candidate = told.candidate("news", None)
    boxes = Box("one"), Box("two")
    assert collect(told, ("one", "two"), "https://console/") == 2
    assert collect(told, ("one", "two")) == 0
    assert [sent.ok for sent in deliver(told, *boxes)] == [True, True]
    assert deliver(told, *boxes) == []
    (notice,) = boxes[0].got
    assert (notice.kind, notice.payload["subject"]) == ("pending", candidate.digest)
    assert notice.payload["link"] == "https://console/versions/1"
    assert "version 1 learnt news@1: gate pass" in notice.payload["text"]


def test_held_failed_overridden_and_promoted_are_told(told):
    told.candidate("news", None, verdict="fail")
    policy = PolicySettings()
    for actor in (BOB, CAROL):
        approvals.approve(
            told.db, told.store, assistant="a", version=1, actor=actor, reason="seen", policy=policy, override=True
        )
    with told.db.begin() as connection:
        item = queue.submit(
            connection, assistant="a", package="f" * 64, name="mail", version="1", owner="team", submitted_by=BOB
        )
        queue.move(connection, None, item.id, "assessing", "begins")
        queue.move(connection, None, item.id, "held", "unlike everything seen")
    box = Box()
    collect(told, link="https://console")
    deliver(told, box)
    assert next(n for n in box.got if n.kind == "held").payload["link"] == f"https://console/tasks/{item.id}"
    assert [notice.kind for notice in box.got] == ["pending", "gate overridden", "gate overridden", "held"]
    assert "unlike everything seen" in box.got[-1].payload["text"]


def test_a_canary_that_waits_and_a_trial_that_its_rule_stopped_are_told_and_no_other_end(told):
    trial_deeds.two(told)
    collect(told)
    box = Box()
    deliver(told, box)
    box.got.clear()
    trial_deeds.start(told)
    trial_deeds.stop(told, 1)
    trial_deeds.start(told, "canary", 0.1)
    trial_deeds.yes(told, 2)
    trial_deeds.record(told, trial_deeds.report(2, trial_deeds.arm(900), trial_deeds.arm(100, errors=60)))
    collect(told)
    deliver(told, box)
    assert [one.kind for one in box.got] == ["trial", "trial stopped"]
    waits, stopped = (one.payload["text"] for one in box.got)
    assert "erin asks for a canary of version 2 on 0.1 of the callers: how does it do" in waits
    assert "`lcia trial approve 2`" in waits
    assert stopped.startswith("the rule errors stopped it")


def test_a_notice_put_off_on_a_clock_ahead_is_not_put_off_for_days(told):
    told.candidate("news", None)
    collect(told)
    box = Box()
    with told.db.begin() as connection:
        later = told.db.now(connection) + timedelta(days=2)
        connection.execute(update(tables.notices).where(tables.notices.c.channel == "box").values(next_at=later))
    assert [sent.ok for sent in deliver(told, box)] == [True]


def test_a_channel_that_is_down_is_tried_again_later_and_others_are_not_kept_waiting(told):
    told.candidate("news", None)
    told.candidate("mail", None)
    down, up = Box("down"), Box("up")
    down.up = False
    collect(told, ("down", "up"))
    first = deliver(told, down, up)
    assert [(sent.channel, sent.ok) for sent in first] == [("down", False), ("up", True), ("up", True)]
    assert deliver(told, down, up)[0].ok is False  # the second notice of it, not tried before
    assert deliver(told, down, up) == []  # none is due
    with told.db.read() as connection:
        rows = connection.execute(select(tables.notices).where(tables.notices.c.channel == "down")).mappings().all()
        assert [(row["attempts"], row["error"]) for row in rows] == [(1, "down"), (1, "down")]
        assert all(row["next_at"] - row["at"] >= FIRST_RETRY for row in rows)
    down.up = True
    make_due(told)
    assert [sent.ok for sent in deliver(told, down, up)] == [True, True]
    assert [notice.payload["position"] for notice in down.got] == sorted(n.payload["position"] for n in down.got)


def test_a_channel_that_was_down_for_weeks_still_gets_its_notices(told):
    told.candidate("news", None)
    box = Box("box")
    box.up = False
    collect(told, ("box",))
    with told.db.begin() as connection:
        connection.execute(update(tables.notices).values(attempts=5000))
    make_due(told)
    assert [sent.ok for sent in deliver(told, box)] == [False]
    with told.db.read() as connection:
        row = connection.execute(select(tables.notices).where(tables.notices.c.channel == "box")).mappings().one()
        assert (row["attempts"], row["next_at"] <= told.db.now(connection) + LONGEST_RETRY) == (5001, True)
    box.up = True
    make_due(told)
    assert [sent.ok for sent in deliver(told, box)] == [True]


def test_an_expiring_approval_is_told_once_and_only_while_it_matters(told):
    told.candidate("news", None)
    policy = PolicySettings(approval=ApprovalSettings(quorum=2, expires_hours=5))
    approvals.approve(told.db, told.store, assistant="a", version=1, actor=BOB, reason="seen", policy=policy)

    def warn(hours):
        with told.db.begin() as connection:
            return notices.warn_of_expiry(connection, "a", policy.approval, hours, ["box"])

    assert (warn(4), warn(6), warn(6)) == (0, 1, 0)
    box = Box()
    deliver(told, box)
    assert "bob's approval of version 1 (news@1) counts until" in box.got[0].payload["text"]


def test_tampering_can_be_told_when_the_log_can_not_be_written(told):
    with told.db.begin() as connection:
        assert notices.tampering(connection, "a", "log entry 3", "entry 3 is bad", ["box"]) == 1
        assert notices.tampering(connection, "a", "log entry 3", "entry 3 is bad", ["box"]) == 0


def test_mail_arrives_as_it_was_meant(told):
    got = []

    class Keep:
        async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
            got.append(envelope)
            return "250 kept"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(Keep(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        settings = MailSettings(host="127.0.0.1", port=port, starttls=False, sender="lcia@x.org", to=("ops@x.org",))
        found = channels.channels("a", NotifySettings(mail=settings), {})
        told.candidate("news", None)
        collect(told, found)
        assert [sent.ok for sent in notices.deliver(told.db, "a", found)] == [True]
    finally:
        controller.stop()
    (envelope,) = got
    assert envelope.rcpt_tos == ["ops@x.org"]
    assert b"Subject: [a] pending: version 1" in envelope.content


def test_a_mail_server_that_is_away_is_said_without_the_password(told):
    settings = MailSettings(host="127.0.0.1", port=1, starttls=False, user="u", sender="a@x.org", to=("b@x.org",))
    found = channels.channels("a", NotifySettings(mail=settings), {"LCIA_SMTP_PASSWORD": "hush"})
    told.candidate("news", None)
    collect(told, found)
    (sent,) = notices.deliver(told.db, "a", found)
    assert not sent.ok
    assert "127.0.0.1:1" in sent.message
    assert "hush" not in sent.message


def test_webhooks_are_signed_and_retried(told):
    answers, seen = [500, 200], []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append((dict(self.headers), body))
            self.send_response(answers.pop(0))
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/hooks/secret-path"
        found = channels.channels("a", NotifySettings(webhooks=(url,)), {SECRET: KEY})
        told.candidate("news", None)
        collect(told, found)
        (first,) = notices.deliver(told.db, "a", found)
        assert not first.ok
        assert "answered 500" in first.message
        assert "secret-path" not in f"{first.message}{first.channel}"
        make_due(told)
        assert [sent.ok for sent in notices.deliver(told.db, "a", found)] == [True]
    finally:
        server.shutdown()
    for headers, body in seen:
        heads = {name.lower(): value for name, value in headers.items()}
        expected = sign(bytes(range(32)), heads["webhook-id"], heads["webhook-timestamp"], body)
        assert heads["webhook-signature"] == expected
    assert len({dict(headers)["webhook-id"] for headers, _ in seen}) == 1
    assert json.loads(seen[0][1])["type"] == "pending"


def test_the_signature_is_that_of_the_specification():
    """Test vector of the Standard Webhooks libraries."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    signed = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("settings", "environment", "words"),
    [
        (NotifySettings(webhooks=("https://x.org",)), {}, SECRET),
        (NotifySettings(webhooks=("https://x.org",)), {SECRET: "whsec_c2hvcnQ="}, "24 to 64 bytes"),
        (NotifySettings(webhooks=("file:///etc",)), {SECRET: KEY}, "http or https"),
        (
            NotifySettings(mail=MailSettings(host="h", user="u", sender="a@x", to=("b@x",))),
            {},
            "LCIA_SMTP_PASSWORD is not",
        ),
    ],
)
def test_channels_without_what_they_need_are_refused(settings, environment, words):
    with pytest.raises(ChannelMissing, match=words):
        channels.channels("a", settings, environment)


def test_the_pause_grows_to_its_limit():
    assert FIRST_RETRY * 2**9 > notices.LONGEST_RETRY > timedelta(hours=1)
    assert SYSTEM.assured


def test_words_in_a_notice_forge_no_line_and_no_header(told):
    reason = "done\n\nhttps://evil.example\x1b[31m\u202egood"
    with told.db.begin() as connection:
        log.append(connection, "policy.proposed", BOB, "policy\r\nBcc: all@example.org", {"reason": reason})
    box = Box()
    collect(told)
    deliver(told, box)
    (notice,) = box.got
    assert notice.payload["title"] == "policy: policy\\r\\nBcc: all@example.org"
    assert "done\\n\\nhttps://evil.example\\x1b[31m\\u202egood" in notice.payload["text"]
    assert notice.payload["subject"] == "policy\r\nBcc: all@example.org", "programs get it as it was said"
    with told.db.read() as connection:
        assert log.entries(connection)[-1].details["reason"] == reason
    mail = MailSettings(host="127.0.0.1", port=9, starttls=False, sender="lcia@x.org", to=("a@x.org",))
    with pytest.raises(NotDelivered, match=r"127\.0\.0\.1:9: ConnectionRefusedError"):
        channels.Mail("a", mail, None).send(notice)


def report(state, replica, version, ready=True, **values):
    fields = {"engine": "e", "problem": "", "traffic": {}, "latency": {}, "trial": None, **values}
    with state.db.begin() as connection:
        replicas.record(connection, "a", replica, version=version, ready=ready, actor=SYSTEM, **fields)


def warn(state, names=("box",)):
    with state.db.begin() as connection:
        return notices.warn_of_replicas(connection, "a", 120, list(names), "https://console")


def decide(state, name, parent=None):
    """A promotion, long ago for everything that compares it with now."""
    candidate = state.candidate(name, parent)
    decision = {"assistant": "a", "version": candidate.number, "policy": PolicySettings()}
    approvals.approve(state.db, state.store, actor=BOB, reason="fine", **decision)
    champion.promote(state.db, state.store, actor=CAROL, reason="go", **decision)
    with state.db.begin() as connection:
        earlier = state.db.now(connection) - timedelta(seconds=600)
        connection.execute(update(tables.champion).values(decided_at=earlier))
    return candidate


def began(state, seconds):
    with state.db.begin() as connection:
        earlier = state.db.now(connection) - timedelta(seconds=seconds)
        connection.execute(update(tables.replicas).values(started_at=earlier, agreed_at=None))


def test_a_gateway_that_does_not_follow_is_told_once_for_each_decision(told):
    first = decide(told, "news")
    report(told, "gw-1", first.digest)
    report(told, "gw-2", None, ready=False, problem="the statement does not hold")
    assert warn(told) == 0, "it has just begun"
    began(told, 121)
    report(told, "gw-1", first.digest)
    assert [warn(told, ("box", "other")) for _ in range(3)] == [2, 0, 0]
    box = Box()
    deliver(told, box)
    (notice,) = [one for one in box.got if one.kind == "not followed"]
    assert notice.payload["title"] == "the gateway gw-2 does not follow the decision for version 1"
    assert notice.payload["link"] == "https://console/in-use"
    assert "it has no version. the statement does not hold" in notice.payload["text"]
    second = decide(told, "mail", first.digest)
    began(told, 500)
    assert warn(told) == 2, "for another decision, and for both gateways"
    report(told, "gw-1", second.digest)
    report(told, "gw-2", second.digest)
    assert warn(told) == 0


def test_silent_gateways_and_undecided_assistants_are_not_told(told):
    report(told, "gw-1", None, ready=False)
    began(told, 500)
    assert warn(told) == 0
    decide(told, "news")
    with told.db.begin() as connection:
        silent = told.db.now(connection) - timedelta(seconds=31)
        connection.execute(update(tables.replicas).values(reported_at=silent))
    assert warn(told) == 0
