"""Engine `vllm`: one or more vLLM servers with the same base model, watched and given adapters.

A server gets traffic once it has answered a request and was given every adapter that was put; an adapter's requests
go to servers that have it, the least busy first. vLLM knows adapters by the digests of their folders, so an
adapter is never changed under its name, nor are cached prefixes of one used for another. From the first adapter on,
the base model answers under a neutral one; `components.serving.neutral` says why.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx2

from components.errors import LciaError
from components.model.adapters import AdapterError, digest_of_files
from components.model.reader import FIRST
from components.serving.engine import EngineDown, Job, NotAbleTo, Step
from components.serving.neutral import neutral_files, write_neutral
from components.serving.vllm_server import AdapterRefused, ModelUnknown, RequestFails, ServerFails, VllmServer
from components.settings.gateway import GatewaySettings

KEY = "LCIA_VLLM_KEY"
"""Variable with the key that the vLLM servers ask for (`--api-key`)."""
START_SECONDS, PAUSE_SECONDS = 300.0, 1.0
"""Longest wait for the first server, and the pause between two looks at a server."""
IDLE_SECONDS = 2.0
"""Time that an idle connection is kept: less than vLLM keeps it (5 s), or requests meet connections that just ended."""
REFUSAL_ROUNDS = 30
"""Looks at a server after which it is asked once more to load what it refused: its folder may lag behind."""


class AddressesUnusable(LciaError):
    """Settings that name no vLLM server that can be asked."""


@dataclass
class _Tries:
    """Servers that failed at a request, with their reasons, and those that were looked at again on its way."""

    failures: dict[VllmServer, str] = field(default_factory=dict)
    looks: set[VllmServer] = field(default_factory=set)


class VllmEngine:
    """See `components.serving.engine.Engine`."""

    name = "vllm"
    sees_images = False

    def __init__(self, settings: GatewaySettings, start_seconds: float = START_SECONDS) -> None:
        """Name the servers; nothing is asked before `start`.

        Raises:
            AddressesUnusable: `gateway.vllm` is empty, or holds something else than addresses.
        """
        if not settings.vllm:
            raise AddressesUnusable("gateway.engine is vllm and gateway.vllm names no server; add http://HOST:PORT")
        for number, address in enumerate(settings.vllm, 1):
            _need_address(number, address)
        self._folder, self._start_seconds = settings.vllm_folder, start_seconds
        self._adapters: dict[str, Path] = {}
        """Folders by digest, the neutral adapter's among them."""
        self._neutral: str | None = None
        self._neutral_files: dict[str, bytes] = {}
        self._watches: list[asyncio.Task[None]] = []
        self._changes = asyncio.Event()
        key = os.environ.get(KEY, "")
        self._client = httpx2.AsyncClient(
            # A transport of its own reads certificates from the environment, and no proxies: prompts go to vLLM alone.
            transport=httpx2.AsyncHTTPTransport(
                limits=httpx2.Limits(max_connections=None, keepalive_expiry=IDLE_SECONDS)
            ),
            headers={"accept-encoding": "identity", **({"authorization": f"Bearer {key}"} if key else {})},
            follow_redirects=False,
        )
        self._servers = [VllmServer(each, self._client, settings.answer_seconds) for each in settings.vllm]

    async def start(self) -> None:
        """Watch the servers; returns once one of them answers.

        Raises:
            EngineDown: none does within the time given; the message has each server's reason.
        """
        self._watches = [asyncio.create_task(self._watch(server)) for server in self._servers]
        try:
            async with asyncio.timeout(self._start_seconds):
                while not any(server.up for server in self._servers):
                    await self._changes.wait()
                    self._changes.clear()
        except TimeoutError as error:
            await self.close()
            raise EngineDown(f"no vLLM server answered within {self._start_seconds:g} s: {self._problems()}") from error

    async def close(self) -> None:
        """End the watch and the connections; adapters stay loaded, for other gateways may use them."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await self._client.aclose()

    async def put(self, digest: str, folder: Path) -> None:
        """Load an adapter on every server that is up; the watch loads it on the others before they get its requests.

        Raises:
            EngineDown: no server is up, or none took it.
            AdapterError: every server that answered refused it.
        """
        if self._neutral is None:
            await self._put_neutral(folder)
        await self._put(digest, folder)

    async def _put_neutral(self, folder: Path) -> None:
        """Put the neutral adapter beside the first one; both come to vLLM by the same way."""
        self._neutral_files = await asyncio.to_thread(neutral_files, folder)
        digest = digest_of_files(self._neutral_files)
        try:
            write_neutral(self._neutral_files, folder.parent / digest)
        except OSError as error:
            raise EngineDown(
                f"{folder.parent} can't be written to ({error.strerror}); vLLM needs a folder there"
            ) from error
        await self._put(digest, folder.parent / digest)
        self._neutral = digest

    async def _put(self, digest: str, folder: Path) -> None:
        servers = [server for server in self._servers if server.up]
        results = await asyncio.gather(*(self._load(server, digest, folder) for server in servers))
        if None in results:
            self._adapters[digest] = folder
            return
        refusal = next((result for result in results if isinstance(result, AdapterRefused)), None)
        if refusal is not None:
            raise AdapterError(str(refusal)) from refusal
        raise EngineDown(f"no vLLM server took adapter {digest[:12]}: {self._problems()}")

    async def drop(self, digest: str) -> None:
        """Let every server forget an adapter; one that is away keeps a name that nobody asks for."""
        self._adapters.pop(digest, None)
        await asyncio.gather(*(self._unload(server, digest) for server in self._servers if server.up))

    @property
    def ready(self) -> bool:
        """True if some server is up, and each adapter that was put is on one that is."""
        held = [server.adapters for server in self._servers if server.up]
        return bool(held) and self._adapters.keys() <= set().union(*held)

    @property
    def report(self) -> dict[str, object]:
        """State of each server, without credentials."""
        adapters = sorted(self._adapters.keys() - {self._neutral})
        return {"servers": [server.report for server in self._servers], "adapters": adapters}

    async def generate(self, job: Job) -> AsyncGenerator[Step, None]:
        """See `Engine.generate`; after its first token an answer is never continued by another server.

        Raises:
            EngineDown; NotAbleTo: images, more tokens than the servers have room for, or options that they refuse.
        """
        job, tries = self._under_neutral(job), _Tries()
        while True:
            server = self._choose(job, job.limit, tries)
            begun = False
            try:
                with server.busy():
                    async with aclosing(server.generate(job)) as fragments:
                        async for steps in fragments:
                            for step in steps:
                                begun = True
                                yield step
            except (ServerFails, RequestFails, ModelUnknown) as error:
                if begun:
                    if isinstance(error, ServerFails):
                        server.fail(str(error))
                    raise EngineDown(f"an answer broke off: {error}; send the request again") from error
                await self._learn(server, job, error, tries)
            else:
                return

    async def likelihoods(self, job: Job, answers: Sequence[tuple[int, ...]]) -> list[float]:
        """See `Engine.likelihoods`.

        Raises:
            EngineDown, NotAbleTo: see `generate`.
        """
        job, tries = self._under_neutral(job), _Tries()
        while True:
            server = self._choose(job, max(map(len, answers)), tries)
            try:
                with server.busy():
                    return await server.likelihoods(job, answers)
            except (ServerFails, RequestFails, ModelUnknown) as error:
                await self._learn(server, job, error, tries)

    def _under_neutral(self, job: Job) -> Job:
        return replace(job, adapter=job.adapter or self._neutral)

    def _path(self, digest: str, folder: Path) -> str:
        """Folder of an adapter as the servers see it."""
        return f"{self._folder.rstrip('/')}/{digest}" if self._folder else str(folder.absolute())

    def _choose(self, job: Job, tokens: int, tries: _Tries) -> VllmServer:
        """The least busy server that has the job's adapter and room for its prompt and `tokens` more."""
        if any(token >= FIRST for token in job.prompt):
            raise NotAbleTo("a request shows images, and the engine vllm takes text alone; use gateway.engine embedded")
        up = [server for server in self._servers if server.up and server not in tries.failures]
        able = [server for server in up if job.adapter is None or job.adapter in server.adapters]
        if not able:
            reason = "; ".join(tries.failures.values()) or self._problems()
            raise EngineDown(f"no vLLM server can answer at present: {reason}; send the request again")
        size = len(job.prompt) + tokens
        wide = [server for server in able if size <= server.room]
        if not wide:
            raise NotAbleTo(
                f"prompt and answer may take {size} tokens, and the vLLM servers' --max-model-len is "
                f"{max(server.room for server in able)}; ask for fewer tokens, or start vLLM with more"
            )
        return min(wide, key=lambda server: server.under_way)

    async def _learn(self, server: VllmServer, job: Job, error: LciaError, tries: _Tries) -> None:
        """Draw the conclusion from a failure: the server is out, lacks the adapter, or fails at this request alone.

        Once per request the server is looked at at once: it may have lost a connection alone, or take the adapter
        again. If somebody else looks at a server that is out, the request does not wait for it.
        """
        if isinstance(error, ServerFails):
            server.fail(str(error))
        elif isinstance(error, ModelUnknown):
            server.adapters.discard(job.adapter or "")
        waits = isinstance(error, ServerFails) and server.lock.locked()
        if waits or isinstance(error, RequestFails) or server in tries.looks:
            tries.failures[server] = str(error)
            return
        tries.looks.add(server)
        await self._round(server)

    async def _watch(self, server: VllmServer) -> None:
        for number in itertools.count():
            if number % REFUSAL_ROUNDS == 0:
                server.refusals.clear()
            await self._round(server)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _round(self, server: VllmServer) -> None:
        """Look at a server, give it the adapters that it lacks, and take it in, or out."""
        async with server.lock:
            try:
                await server.look()
                if self._neutral:
                    with suppress(OSError):  # the server then refuses it, and says so
                        write_neutral(self._neutral_files, self._adapters[self._neutral])
                for digest, folder in list(self._adapters.items()):
                    if digest not in server.refusals:
                        with suppress(AdapterRefused):  # it is in the server's report
                            await server.load(digest, self._path(digest, folder))
                if not server.up:
                    await server.warm()
                server.up, server.problem = True, ""
            except ServerFails as error:
                server.fail(str(error))
        self._changes.set()

    async def _load(self, server: VllmServer, digest: str, folder: Path) -> LciaError | None:
        async with server.lock:
            try:
                await server.load(digest, self._path(digest, folder))
            except AdapterRefused as error:
                return error
            except ServerFails as error:
                server.fail(str(error))
                return error
        return None

    async def _unload(self, server: VllmServer, digest: str) -> None:
        async with server.lock:
            try:
                await server.unload(digest)
            except ServerFails as error:
                server.fail(str(error))
            except RequestFails as error:
                server.problem = str(error)

    def _problems(self) -> str:
        lines = [server.problem for server in self._servers if server.problem]
        return "; ".join(lines) or "none of those that are up has the adapter"


def _need_address(number: int, text: str) -> None:
    """Refuse what can't be asked; the message leaves out the text, which may hold a password."""
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise AddressesUnusable(
            f"entry {number} of gateway.vllm is no address; expected http(s)://HOST:PORT"
        ) from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise AddressesUnusable(f"entry {number} of gateway.vllm has no scheme or host; expected http(s)://HOST:PORT")
