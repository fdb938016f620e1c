"""One vLLM server: its state as last seen, and the requests to it, each bounded in time and in bytes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, TypeVar

import httpx2

from components.errors import LciaError
from components.serving import vllm_wire as wire
from components.serving.engine import Job, NotAbleTo, Step

ANSWER_BYTES, EVENT_BYTES = 16 * 2**20, 2**20
"""Most bytes of an answer, and of one event of a stream."""
LOOK_SECONDS, LOAD_SECONDS, WARM_SECONDS = 5.0, 60.0, 120.0
HEAD_SECONDS = 20.0
"""Longest wait until a stream begins; it does before the first token is decoded, however long vLLM's queue is."""

Value = TypeVar("Value")


class ServerFails(LciaError):
    """A server that can't be reached, does not answer in time, or answers something else than vLLM does."""


class RequestFails(LciaError):
    """A request that a server failed at; others may still succeed."""


class ModelUnknown(LciaError):
    """A server that does not have the adapter that a request names, as after a restart."""


class AdapterRefused(LciaError):
    """A server that did not load an adapter; the message holds vLLM's reason."""


class VllmServer:
    """A server as it was last seen. `up`: it answered, and was given every adapter that it takes."""

    def __init__(self, address: str, client: httpx2.AsyncClient, answer_seconds: float) -> None:
        self._url = httpx2.URL(address).copy_with(query=None, fragment=None)
        self._client, self._answer_seconds = client, answer_seconds
        self.up = False
        self.problem = f"{self.address} has not answered yet"
        self.base, self.version, self.room = "", "", 0
        self.adapters: set[str] = set()
        self.refusals: dict[str, str] = {}
        """Reasons by adapter; see `AdapterRefused`."""
        self.under_way = 0
        self.waiting: int | None = None
        self.lock = asyncio.Lock()
        """Held while adapters are loaded: vLLM refuses a name that another request loads at the same time."""

    @property
    def address(self) -> str:
        """Its address without credentials."""
        return str(self._url.copy_with(userinfo=b"")).rstrip("/")

    @property
    def report(self) -> dict[str, object]:
        """Plain JSON on its state."""
        return {
            "address": self.address,
            "up": self.up,
            "problem": self.problem or next(iter(self.refusals.values()), ""),
            "version": self.version,
            "base": self.base,
            "adapters": sorted(self.adapters),
            "under_way": self.under_way,
            "waiting": self.waiting,
        }

    def fail(self, reason: str) -> None:
        """Take it out; what it holds is asked again before it comes back."""
        self.up, self.problem, self.waiting = False, reason, None
        self.adapters.clear()
        self.refusals.clear()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count a request as under way within the block."""
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    async def look(self) -> None:
        """Ask for its models, its health and its queue.

        Raises:
            ServerFails.
        """
        with _down_if_any_fails():
            await self._request("GET", wire.HEALTH, LOOK_SECONDS)
            models = wire.served(await self._request("GET", wire.MODELS, LOOK_SECONDS))
            self.waiting = wire.waiting(await self._request("GET", wire.METRICS, LOOK_SECONDS))
        self.base, self.room, self.adapters = models.base, models.room, set(models.adapters)

    async def warm(self) -> None:
        """Let the base model answer once: vLLM compiles at the first request for log-probabilities, which takes long.

        Raises:
            ServerFails.
        """
        with _down_if_any_fails():
            self.version = wire.version(await self._request("GET", wire.VERSION, LOOK_SECONDS))
            await self._logprobs(Job((0,), None, 1, (0,)), 0, [()], WARM_SECONDS)

    async def load(self, digest: str, path: str) -> None:
        """Load an adapter under its digest; nothing is done if the server has it.

        Raises:
            AdapterRefused, ServerFails.
        """
        if digest in self.adapters:
            return
        try:
            await self._request("POST", wire.LOAD, LOAD_SECONDS, {"lora_name": digest, "lora_path": path})
        except (ModelUnknown, NotAbleTo, RequestFails) as error:
            await self.look()  # another gateway may have loaded it a moment ago
            if digest not in self.adapters:
                self.refusals[digest] = (
                    f"vLLM does not load adapter {digest[:12]} from {path}: {error}. It must see that folder "
                    f"(gateway.vllm_folder) and run with the options of `lcia gateway --vllm-command`"
                )
                raise AdapterRefused(self.refusals[digest]) from error
        self.adapters.add(digest)
        self.refusals.pop(digest, None)

    async def unload(self, digest: str) -> None:
        """Let the server forget an adapter; one that it does not have is no error.

        Raises:
            ServerFails, RequestFails.
        """
        self.adapters.discard(digest)
        self.refusals.pop(digest, None)
        try:
            await self._request("POST", wire.UNLOAD, LOOK_SECONDS, {"lora_name": digest})
        except (ModelUnknown, NotAbleTo):
            return

    async def generate(self, job: Job) -> AsyncGenerator[tuple[Step, ...], None]:
        """Tokens of an answer, a few at a time, without the end token.

        Raises:
            ServerFails, RequestFails, ModelUnknown; NotAbleTo: vLLM refuses the request itself.
        """
        body = wire.completion(job, job.adapter or self.base)
        count = 0
        stream = self._stream("POST", wire.COMPLETIONS, self._answer_seconds, HEAD_SECONDS, body)
        async with stream as response, aclosing(_events(response)) as events:
            async for event in events:
                fragment = _readable(wire.fragment, event, job, count)
                count += len(fragment.steps)
                if fragment.steps:
                    yield fragment.steps
                if fragment.ended:
                    return
        raise RequestFails(f"{self.address} cut an answer off after {count} tokens")

    async def likelihoods(self, job: Job, answers: Sequence[wire.Tokens]) -> list[float]:
        """Log-likelihood of each of `answers` behind the prompt.

        Raises:
            ServerFails, RequestFails, ModelUnknown, NotAbleTo: see `generate`.
        """
        edges = wire.edges(answers)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    token: group.create_task(self._logprobs(job, token, starts, self._answer_seconds))
                    for token, starts in edges.items()
                }
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        values = {
            (start, token): value
            for token, starts in edges.items()
            for start, value in zip(starts, tasks[token].result(), strict=True)
        }
        return [sum(values[answer[:i], token] for i, token in enumerate(answer)) for answer in answers]

    async def _logprobs(self, job: Job, token: int, starts: Sequence[wire.Tokens], seconds: float) -> list[float]:
        body = wire.reading(job, token, starts, job.adapter or self.base)
        content = await self._request("POST", wire.COMPLETIONS, seconds, body)
        return _readable(wire.logprobs, content, token, len(starts))

    async def _request(self, method: str, path: str, seconds: float, body: dict[str, Any] | None = None) -> bytes:
        """Content of an answer, all of it within `seconds`."""
        try:
            async with asyncio.timeout(seconds), self._stream(method, path, seconds, seconds, body) as response:
                return await _content(response, ANSWER_BYTES)
        except TimeoutError as error:
            raise ServerFails(f"{self.address} does not answer {path} within {seconds:g} s") from error

    @asynccontextmanager
    async def _stream(
        self, method: str, path: str, seconds: float, head_seconds: float, body: dict[str, Any] | None
    ) -> AsyncIterator[httpx2.Response]:
        """An answer with status 200 whose body is still to come; leaving the block ends the request at vLLM too."""
        url = self._url.copy_with(path=self._url.path.rstrip("/") + path)
        request = self._client.build_request(method, url, json=body, timeout=httpx2.Timeout(seconds, connect=5.0))
        response = None
        try:
            async with asyncio.timeout(head_seconds):
                response = await self._client.send(request, stream=True)
            if response.status_code != 200:
                await self._refuse(response, path)
            yield response
        except (httpx2.HTTPError, TimeoutError, OSError) as error:
            raise ServerFails(f"{self.address} does not answer {path} ({type(error).__name__})") from error
        finally:
            if response is not None:
                await response.aclose()

    async def _refuse(self, response: httpx2.Response, path: str) -> None:
        """Raise what a status other than 200 means."""
        status = response.status_code
        reason = wire.refusal(await _content(response, EVENT_BYTES)) or f"status {status}"
        if status in {401, 403}:
            raise ServerFails(f"{self.address} refuses the key ({status}); set LCIA_VLLM_KEY to that of --api-key")
        if status == 404:
            raise ModelUnknown(f"{self.address}{path}: {reason}")
        if status in {400, 422}:
            raise NotAbleTo(f"{self.address} refuses the request: {reason}")
        raise RequestFails(f"{self.address}{path} fails: {reason}")


async def _content(response: httpx2.Response, limit: int) -> bytes:
    content = b""
    async for part in response.aiter_raw():
        content += part
        if len(content) > limit:
            raise ServerFails(f"an answer of vLLM has more than {limit} bytes")
    return content


async def _events(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """Data of server-sent events, until vLLM says that there are no more."""
    rest = b""
    async for part in response.aiter_raw():
        *lines, rest = (rest + part).split(b"\n")
        if max(map(len, [*lines, rest])) > EVENT_BYTES:
            raise ServerFails(f"an event of vLLM has more than {EVENT_BYTES} bytes")
        for line in lines:
            if line.startswith(b"data:") and line != b"data: [DONE]":
                yield line.removeprefix(b"data:")


def _readable(read: Callable[..., Value], *args: object) -> Value:
    try:
        return read(*args)
    except wire.AnswerUnreadable as error:
        raise RequestFails(str(error)) from error


@contextmanager
def _down_if_any_fails() -> Iterator[None]:
    """Take any failure within the block as the server's."""
    try:
        yield
    except (RequestFails, ModelUnknown, NotAbleTo, wire.AnswerUnreadable) as error:
        raise ServerFails(str(error)) from error
