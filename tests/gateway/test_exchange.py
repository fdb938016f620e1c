"""Callers who hang up, at any moment: the work ends, its places come back, and the log stays quiet."""

import logging
import socket
import time
from urllib.parse import urlsplit

import pytest
from small_gateway import gateway_on

LONG = (
    b'{"model": "base", "messages": [{"role": "user", "content": "Go on and on."}], "max_tokens": 1000, "stream": %s}'
)
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
)


@pytest.fixture(scope="module")
def gateway(learnt, tmp_path_factory):
    """A gateway whose engine takes its time."""
    with gateway_on(learnt.loop.copy(tmp_path_factory.mktemp("gateway"))) as running:
        engine = running.gateway.engine
        quick = engine._next

        def slow(*arguments):
            time.sleep(0.01)
            return quick(*arguments)

        engine._next = slow
        yield running


@pytest.mark.parametrize("stream", [b"true", b"false"])
def test_hanging_up_ends_the_work(gateway, log, stream):
    body = LONG % stream
    address = urlsplit(gateway.url)
    for seconds in (0.0, 0.05, 0.15, 0.25):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(HEAD % len(body) + body)
            time.sleep(seconds)
        gateway.until(lambda: gateway.gateway.admission.total == 0 and gateway.gateway.engine.report["running"] == 0)
    assert gateway.follower.champion.requests == 0
    assert [record.getMessage() for record in log.records if record.levelno >= logging.WARNING] == []


def test_a_request_beyond_its_time_ends_and_counts_as_an_error(learnt, tmp_path):
    with gateway_on(learnt.loop.copy(tmp_path), "gateway.answer_seconds=0.3") as running:
        quick = running.gateway.engine._next

        def slow(*arguments):
            time.sleep(0.1)
            return quick(*arguments)

        running.gateway.engine._next = slow
        reply = running.chat("Go on and on.", model="base", max_tokens=1000)
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")
        streamed = running.chat("Go on and on.", model="base", max_tokens=1000, stream=True)
        assert "gateway.answer_seconds" in streamed.text, "in the stream, or instead of one"
        assert running.gateway.measures.groups["none"] == {"error": 2}
        running.until(lambda: running.gateway.engine.report["running"] == 0)
