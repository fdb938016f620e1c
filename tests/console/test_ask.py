"""Trying versions out: a real process that answers, what it survives, and what the page says of it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_service import served_loop

from components.audit import log
from components.settings import ServeSettings
from lcia.console.views.ask import LONGEST, Piece, differing
from lcia.inference import ask as answering
from lcia.inference.process import (
    PLACES,
    Answerer,
    AnswererBusy,
    AnswererEnded,
    AnswerRefused,
    NoModelHere,
    answers_here,
)

INSTRUCTION = "Rewrite the sentence in the passive voice."
TEXT = "The doctor thanked the zebrafinch."


@pytest.fixture(scope="module")
def instance(learnt):
    return learnt.loop.open()


@pytest.fixture(scope="module")
def answerer(instance):
    found = Answerer(instance.settings)
    yield found
    found.end()


def pid_of(answerer):
    return answerer._child.pid


def gone(pid, seconds=60):
    """Whether a process ends in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_two_versions_and_the_base_model_answer_as_the_command_line_does(instance, answerer, learnt):
    answers = answerer.ask([learnt.digests[0], learnt.digests[2], None], INSTRUCTION, TEXT)
    for got, reference in zip(answers, ("1", "3", None), strict=True):
        expected = answering.ask(instance, INSTRUCTION, TEXT, reference, base=reference is None)
        assert got["text"] == expected["answer"]
        assert (got["group"], got["nearest_task"]) == (expected["group"], expected["nearest_task"])
    assert answers[1]["nearest_task"] == "passive_voice"
    assert answers[2]["group"] is None


def test_one_process_answers_them_all_and_is_told_no_secret(answerer, learnt, monkeypatch):
    monkeypatch.setenv("LCIA_SESSION_SECRET", "s" * 40)
    monkeypatch.setenv("LCIA__STORAGE__DATABASE", "postgresql://lcia:pass@db/lcia")
    answerer.end()
    answerer.ask([learnt.digests[0]], INSTRUCTION, TEXT)
    pid = pid_of(answerer)
    answerer.ask([None], INSTRUCTION, None)
    assert pid_of(answerer) == pid
    assert b"LCIA_" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:] == [b"-m", b"lcia.inference.process", b""]
    assert "database" not in answerer._settings["storage"]


def test_what_a_version_cannot_answer_is_said_and_the_process_lives_on(answerer, learnt):
    answerer.ask([None], INSTRUCTION, None)
    pid = pid_of(answerer)
    with pytest.raises(AnswerRefused, match="tokens"):
        answerer.ask([learnt.digests[0]], "word " * 800, None)
    with pytest.raises(AnswerRefused, match="0" * 12):
        answerer.ask(["0" * 64], INSTRUCTION, None)
    assert pid_of(answerer) == pid


def test_more_than_a_few_questions_at_a_time_are_refused(answerer):
    answerer.ask([None], INSTRUCTION, None)
    os.kill(pid_of(answerer), signal.SIGSTOP)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(answerer.ask([None], INSTRUCTION, None))) for _ in range(PLACES)
    ]
    try:
        for thread in threads:
            thread.start()
        while answerer._places._value:
            time.sleep(0.01)
        with pytest.raises(AnswererBusy, match="wait a little"):
            answerer.ask([None], INSTRUCTION, None)
    finally:
        os.kill(pid_of(answerer), signal.SIGCONT)
    for thread in threads:
        thread.join()
    assert len(answers) == PLACES


def test_a_process_that_is_killed_is_reported_and_replaced(answerer):
    answerer.ask([None], INSTRUCTION, None)
    pid = pid_of(answerer)
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(AnswererEnded, match="was killed; the machine may be short of memory"):
        answerer.ask([None], INSTRUCTION, None)
    assert answerer.ask([None], INSTRUCTION, None)
    assert pid_of(answerer) != pid


def test_a_process_that_died_between_two_questions_is_replaced_unsaid(answerer):
    answerer.ask([None], INSTRUCTION, None)
    os.kill(pid_of(answerer), signal.SIGKILL)
    answerer._child.wait(60)  # all its threads, not the first alone
    assert answerer.ask([None], INSTRUCTION, None)


def test_a_question_that_takes_too_long_ends_the_process(instance):
    hasty = Answerer(instance.settings, patience=0.3)  # importing torch takes longer
    with pytest.raises(AnswererEnded, match=r"no answer within 0 seconds"):
        hasty.ask([None], INSTRUCTION, None)
    assert gone(pid_of(hasty))


def test_a_process_that_nobody_asks_ends(instance):
    restless = Answerer(instance.settings, idle=0.2)
    restless.ask([None], INSTRUCTION, None)
    deadline = time.monotonic() + 60
    while restless._child is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert restless._child is None


SERVICE = """
import time
from components.settings import Settings
from lcia.inference.process import Answerer

answerer = Answerer(Settings())
print(answerer._ready().pid, flush=True)
time.sleep(600)
"""


def test_the_process_ends_with_the_service_even_where_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", SERVICE], stdout=subprocess.PIPE, text=True) as service:
        child = int(service.stdout.readline())
        service.kill()
    assert gone(child)


def test_where_no_torch_is_nothing_is_promised(monkeypatch):
    assert answers_here(ServeSettings())
    assert not answers_here(ServeSettings(answers=False))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not answers_here(ServeSettings())
    with pytest.raises(NoModelHere, match="torch is not installed"):
        answers_here(ServeSettings(answers=True))


@pytest.mark.parametrize(
    ("left", "right", "marked"),
    [
        ("the man saw it", "the man heard it", (["saw"], ["heard"])),
        ("same", "same", ([], [])),
        ("", "something", ([], ["something"])),
        ("猫を見た", "猫が見た", (["を"], ["が"])),
        ("a  b", "a b", (["  "], [" "])),
    ],
)
def test_what_only_one_answer_says_is_marked(left, right, marked):
    found = differing(left, right)
    assert tuple([piece.text for piece in side if piece.differs] for side in found) == marked
    assert tuple("".join(piece.text for piece in side) for side in found) == (left, right)
    assert all(isinstance(piece, Piece) for side in found for piece in side)


# The page


@pytest.fixture(scope="module")
def server(learnt, tmp_path_factory):
    return served_loop(learnt.loop.copy(tmp_path_factory.mktemp("tried")))


def ask(server, csrf, script=True, **fields):
    headers = {"hx-request": "true"} if script else {}
    fields = {"csrf": csrf, "before": "3", "after": "base", "instruction": INSTRUCTION, "input": TEXT, **fields}
    return server.client.post("/try", data=fields, headers=headers)


def test_anybody_with_a_role_sees_two_answers_and_nothing_is_kept(server, learnt):
    csrf = server.sign_in("auditor")
    with server.instance.db.read() as connection:
        before = log.count(connection)
    part = ask(server, csrf)
    assert part.status_code == 200
    assert "<html" not in part.text
    assert ">Version 3</a>" in part.text
    assert "The base model alone" in part.text
    assert "passive_voice" in part.text
    page = ask(server, csrf, script=False, before="1", after="1")
    assert "<html" in page.text
    assert "Both answers are the same." in page.text
    assert TEXT in page.text  # what was typed stays
    with server.instance.db.read() as connection:
        assert log.count(connection) == before
    kept = [file for file in server.loop.home.rglob("*") if file.is_file() and b"zebrafinch" in file.read_bytes()]
    assert kept == []


def test_the_form_offers_the_champion_and_every_version(server):
    server.sign_in("submitter")
    page = server.client.get("/try").text
    assert '<option value="3" selected>Version 3, champion' in page
    assert page.count('<option value="1"') == 2
    assert page.count('<option value="base" selected') == 1
    assert '<option value="1" selected' in server.client.get("/try?before=1").text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"instruction": "  "}, "there is no instruction"),
        ({"instruction": "x" * (LONGEST["instruction"] + 1)}, "the instruction has 4001 characters, expected at most"),
        ({"input": "x" * (LONGEST["input"] + 1)}, "the input has 8001 characters"),
        ({"before": "99"}, "99"),
        ({"before": "<b>1"}, "&lt;b&gt;1"),
    ],
)
def test_what_does_not_fit_is_refused_in_place_and_stays_typed(server, fields, words):
    csrf = server.sign_in("submitter")
    part = ask(server, csrf, **fields)
    assert 400 <= part.status_code < 500
    assert words in part.text
    page = ask(server, csrf, script=False, **{"instruction": "<script>alert(1)</script>", **fields})
    assert page.status_code == 400
    assert words in page.text
    assert "<script>alert" not in page.text


def test_a_form_from_elsewhere_is_refused(server):
    server.sign_in("submitter")
    assert ask(server, "x" * 43).status_code == 400


def test_nobody_without_a_role_may_ask(server):
    server.person("stranger")
    csrf = server.sign_in("stranger")
    refused = ask(server, csrf)
    assert refused.status_code == 403
    assert "stranger has no role" in refused.text


def test_the_champion_answers_only_with_its_statement(learnt, tmp_path):
    server = served_loop(learnt.loop.copy(tmp_path), "audit.public_key=/nowhere.pem")
    csrf = server.sign_in("engineer")
    refused = ask(server, csrf)
    assert refused.status_code == 400
    assert "/nowhere.pem" in refused.text


def test_a_service_without_a_model_says_so(learnt, tmp_path):
    server = served_loop(learnt.loop.copy(tmp_path), "serve.answers=false")
    csrf = server.sign_in("engineer")
    page = server.client.get("/try").text
    assert "holds no model" in page
    assert "serve.answers" in page
    assert "<textarea" not in page
    assert "holds no model" in ask(server, csrf).text
