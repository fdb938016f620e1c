"""Verbs about wordings: what they print, their exit codes, and proposals of a real server and of the base model."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from small_loop import TASKS, SmallLoop

from lcia.inference import proposer

if TYPE_CHECKING:
    from tests.cli.conftest import Lcia

MOVIE, PRODUCT, _ = TASKS
NEW = "Thumbs up or thumbs down for this film?"


class Writer(BaseHTTPRequestHandler):
    """A model's server; what it answers and what it got are of its class."""

    answer: tuple[int, Any] = (200, {})
    got: dict[str, Any]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).got = {**json.loads(body), "path": self.path, "key": self.headers.get("authorization")}
        status, value = self.answer
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Writer)
    Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1"
    http.shutdown()


def written(text: str) -> tuple[int, Any]:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}


def test_a_wording_is_added_worked_on_and_approved(lcia: "Lcia", champion: SmallLoop) -> None:
    listed = lcia(champion, "wordings").out
    assert f"{MOVIE}@1 (" in listed
    assert "instructions of its rows" in listed
    added = lcia(champion, "wordings", "add", MOVIE, NEW, "--as", "site")
    assert (added.code, added.out) == (
        0,
        f"{MOVIE}@1+wordings.1 is item 4, submitted: `lcia work` makes a candidate.\n",
    )
    assert lcia(champion, "work", "--once", "--as", "erin").code == 3
    shown = lcia(champion, "show", 4).out
    assert f"version 4 ({champion.open().version('4').digest[:12]}) changes the wordings of {MOVIE}@1" in shown
    assert f"new wording: {NEW}" in shown
    assert lcia(champion, "approve", 4, "--reason", "read", "--as", "ops").code == 0
    assert "own." in lcia(champion, "route", NEW).out
    assert NEW in lcia(champion, "wordings", "--task", MOVIE).out
    assert lcia(champion, "wordings", "remove", MOVIE, NEW, "--as", "site").code == 0
    assert "4" in lcia(champion, "status").out
    assert lcia(champion, "tasks").code == 0
    assert lcia(champion, "matrix").code == 0


def test_mistakes_are_refused_in_words(lcia: "Lcia", champion: SmallLoop) -> None:
    assert "no task 'poetry'; it knows movie_sentiment" in lcia(champion, "wordings", "add", "poetry", "x").err
    assert "not among its wordings" in lcia(champion, "wordings", "remove", MOVIE, "x").err
    assert "no proposed wording 3 waits" in lcia(champion, "wordings", "accept", 3).err
    assert lcia(champion, "wordings", "decline", "x").code == 1


def test_without_a_champion_there_is_nothing_to_change(lcia: "Lcia", fresh: SmallLoop) -> None:
    assert lcia(fresh, "wordings").out == "No task is learnt yet.\n"
    assert "none yet" in lcia(fresh, "wordings", "add", MOVIE, "x").err


def test_a_configured_model_proposes_and_people_decide(
    lcia: "Lcia", champion: SmallLoop, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(proposer.KEY, "secret-key")
    other = champion.open().pool(champion.open().champion().digest)
    taken = next(entry for entry in other.tasks() if entry.name == PRODUCT).instructions[0]
    Writer.answer = written(
        f'1. "{NEW}"\n- {NEW.upper()}\n\n* Is this film review a good one?\n3) {taken}\n{"x" * 400}'
    )
    options = ("--set", f"proposals.address={server}", "--set", "proposals.model=big")
    said = lcia(champion, "wordings", "propose", MOVIE, "--count", 5, *options)
    assert said.code == 0, said.err
    assert "2 new wordings of movie_sentiment wait for people" in said.out
    assert "1 more were nearer to another task and left out." in said.out
    assert Writer.got["path"] == "/v1/chat/completions"
    assert (Writer.got["model"], Writer.got["key"]) == ("big", "Bearer secret-key")
    assert "Write 5 other ways" in Writer.got["messages"][0]["content"]
    listed = lcia(champion, "wordings", "--task", MOVIE, "--json").json["proposals"]
    assert [one["text"] for one in listed] == [NEW, "Is this film review a good one?"]
    assert lcia(champion, "wordings", "decline", listed[1]["id"]).out == "1 declined.\n"
    assert "is item 4, submitted" in lcia(champion, "wordings", "accept", listed[0]["id"]).out


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, {"error": {"message": "no\x1b[31m key"}}), "answers with status 401"),
        ((200, b"<html>"), "gave no answer that can be read (JSONDecodeError)"),
        ((200, {"choices": []}), "gave no answer that can be read (IndexError)"),
        ((200, {"choices": [{"message": {"content": None}}]}), "answers with status 200"),
    ],
)
def test_a_model_that_does_not_answer_is_refused(
    lcia: "Lcia", champion: SmallLoop, server: str, answer: tuple[int, Any], words: str
) -> None:
    Writer.answer = answer
    said = lcia(champion, "wordings", "propose", MOVIE, "--set", f"proposals.address={server}")
    assert said.code == 1
    assert words in said.err
    assert "\x1b" not in said.err


def test_the_base_model_proposes_without_an_address_and_alike_each_time(
    lcia: "Lcia", champion: SmallLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    whole = proposer._lines

    def lines(text: str) -> Iterator[str]:
        asked.append(text)
        return whole(text)

    monkeypatch.setattr(proposer, "_lines", lines)
    for _ in range(2):
        assert lcia(champion, "wordings", "propose", MOVIE, "--count", 2).code == 0
    assert len(asked) == 12  # of a random model: nothing is usable, so each try is made
    assert asked[:6] == asked[6:]
