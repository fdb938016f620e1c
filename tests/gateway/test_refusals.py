"""Failures that nobody foresaw: answered, and logged by their place without a text of the request."""

import logging

import httpx2
from small_gateway import gateway_on

from components.serving.loaded import Loaded


def test_a_failure_is_answered_and_its_message_stays_out_of_the_log(learnt, tmp_path, monkeypatch, log):
    body = {"model": "assistant", "messages": [{"role": "user", "content": "secret words"}]}
    with gateway_on(learnt.loop.copy(tmp_path)) as running, httpx2.Client(base_url=running.url) as client:

        def fail(_, conversation, **__):
            raise RuntimeError(f"unforeseen: {conversation}")

        with monkeypatch.context() as patch:
            patch.setattr(Loaded, "question", fail)
            reply = client.post("/v1/chat/completions", json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal")
        assert client.post("/v1/chat/completions", json=body).status_code == 200, "on the same connection"
        lost = client.get("/v1/models/assistant").json()["error"]
        assert "GET /v1/models" in lost["message"]
    errors = list({record.getMessage() for record in log.records if record.levelno >= logging.ERROR})
    assert len(errors) == 1
    assert "RuntimeError at test_refusals.py:" in errors[0]
    assert "secret words" not in log.text
