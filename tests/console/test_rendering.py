"""Pages spell out signs that turn a line around or hide in it, in words of whoever."""

import pytest

from components.pages import fragment
from components.visible import visible
from lcia.console.rendering import render

REASON = "fine\u202egnihton\u202c rm\u200b -rf\x1b[2J\x9b"


def test_a_reason_cannot_turn_the_log_around(serve, pending):
    server = serve(pending)
    refused = server.ask("approver", "reject", version="1", reason=REASON)
    assert refused.status_code == 200
    heads = {"authorization": f"Bearer {server.tokens['approver']}", "accept": "text/html"}
    for path in ("/log", "/versions/1", "/", "/tasks/1"):
        text = server.client.get(path, headers=heads).text
        assert text == visible(text, lines=True), path
    assert "fine\\u202egnihton" in server.client.get("/log", headers=heads).text


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_translated_sentence_hides_nothing_either(language):
    values = {"assistant": REASON, "theme": "auto", "language": language, "status": 400, "old_form": False}
    text = render(language, "refusal.html", {**values, "message": f"<b>{REASON}"})
    assert text == visible(text, lines=True)
    assert "&lt;b&gt;fine\\u202e" in text


def test_a_report_hides_nothing():
    assert fragment("<p>{{ word }}</p>", word="a<\u202e\nb") == "<p>a&lt;\\u202e\nb</p>"
