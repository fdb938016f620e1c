"""A server that answers anything else than vLLM does costs a refusal, and neither memory nor patience."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from components.serving import vllm_server
from components.serving.engine import Job, NotAbleTo
from components.serving.vllm_server import AdapterRefused, ModelUnknown, RequestFails, ServerFails, VllmServer

JOB = Job((1, 2), None, 4, (0,))
Write = Callable[[asyncio.StreamWriter, bytes], Awaitable[None]]
"""Writes the answer to a request, which begins with the given bytes."""


def plain(status: str, content: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(content)}", "connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def event(*ids: int, reason: str | None = None) -> bytes:
    choice = {"index": 0, "token_ids": ids, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@asynccontextmanager
async def server_that(answers: bytes | Write, seconds: float = 5.0) -> AsyncIterator[VllmServer]:
    """A server whose other end sends `answers` to every request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            if isinstance(answers, bytes):
                writer.write(answers)
                await writer.drain()
            else:
                await answers(writer, request)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport()) as client:
        yield VllmServer(f"http://127.0.0.1:{port}", client, seconds)
    listener.close()


async def tokens(server: VllmServer) -> list[int]:
    return [step.id async for steps in server.generate(JOB) for step in steps]


def outcome(answers: bytes | Write, do: Callable[[VllmServer], Awaitable[Any]] = tokens, seconds: float = 5.0) -> Any:
    async def scenario() -> Any:
        async with server_that(answers, seconds) as server:
            return await do(server)

    return asyncio.run(scenario())


def test_a_stream_is_read_however_it_is_cut():
    whole = STREAM + event(5) + event(6, 7) + event(0, reason="stop") + b"data: [DONE]\n\n"

    async def drip(writer: asyncio.StreamWriter, _: bytes) -> None:
        for place in range(0, len(whole), 7):
            writer.write(whole[place : place + 7])
            await writer.drain()
            await asyncio.sleep(0)

    assert outcome(whole) == outcome(drip) == [5, 6, 7]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (STREAM + event(5), RequestFails),  # the connection ends
        (STREAM + event(5) + b"data: [DONE]\n\n", RequestFails),
        (STREAM + event(5) + b'data: {"error": {"message": "engine is dead"}}\n\n', RequestFails),
        (STREAM + event(1, 2, 3, 4, 5), RequestFails),
        (STREAM + b"data: <html>\n\n", RequestFails),
        (b"SSH-2.0-OpenSSH\r\n", ServerFails),
        (plain("302 Found", b"", "location: http://127.0.0.1:1/"), RequestFails),
        (plain("500 Internal Server Error", b"oh"), RequestFails),
        (plain("401 Unauthorized", b"{}"), ServerFails),
        (plain("404 Not Found", b'{"error": {"message": "no such model"}}'), ModelUnknown),
        (plain("400 Bad Request", b'{"error": {"message": "too many logprobs"}}'), NotAbleTo),
    ],
)
def test_each_failure_has_its_meaning(answer, error):
    with pytest.raises(error):
        outcome(answer)


async def look(server: VllmServer) -> None:
    await server.look()


def test_endless_answers_are_cut():
    async def endless(writer: asyncio.StreamWriter, _: bytes) -> None:
        writer.write(STREAM + b"data: ")
        while True:
            writer.write(b"x" * 2**16)
            await writer.drain()

    with pytest.raises(ServerFails, match=r"event of vLLM has more than 1048576 bytes"):
        outcome(endless)
    with pytest.raises(ServerFails, match=r"answer of vLLM has more than 16777216 bytes"):
        outcome(endless, look)


def test_servers_that_never_finish_are_given_up(monkeypatch):
    monkeypatch.setattr(vllm_server, "LOOK_SECONDS", 0.4)
    monkeypatch.setattr(vllm_server, "HEAD_SECONDS", 0.4)

    async def drip(writer: asyncio.StreamWriter, _: bytes) -> None:
        """One byte at a time: no single wait is long."""
        writer.write(STREAM)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def silent(*_: object) -> None:
        await asyncio.sleep(30)

    start = time.monotonic()
    for answers, do in ((drip, look), (silent, look), (silent, tokens)):
        with pytest.raises(ServerFails, match="does not answer"):
            outcome(answers, do)
    assert time.monotonic() - start < 10


def test_a_stream_without_a_word_is_given_up_after_the_time_of_an_answer():
    async def silent(writer: asyncio.StreamWriter, _: bytes) -> None:
        writer.write(STREAM)
        await writer.drain()
        await asyncio.sleep(30)

    with pytest.raises(ServerFails, match="ReadTimeout"):
        outcome(silent, seconds=0.4)


def test_any_refusal_of_a_look_takes_the_server_out():
    for answer in (plain("404 Not Found", b"{}"), plain("503 Service Unavailable", b""), plain("200 OK", b"<html>")):
        with pytest.raises(ServerFails):
            outcome(answer, look)


def test_a_server_without_runtime_loading_is_refused_with_a_remedy():
    models = plain("200 OK", b'{"data": [{"id": "base", "max_model_len": 9}]}')

    async def by_path(writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(models if request.startswith(b"GET") else plain("404 Not Found", b""))
        await writer.drain()

    async def load(server: VllmServer) -> None:
        await server.look()
        server.problem = ""
        with pytest.raises(AdapterRefused, match="lcia gateway --vllm-command"):
            await server.load("ab" * 32, "/adapters/ab")
        assert "status 404" in str(server.report["problem"])

    outcome(by_path, load)
