"""The engine in the process: requests with different adapters in turns give what each gives alone."""

import asyncio

import pytest
import torch

from components.evaluation.prediction import Evaluator
from components.model.adapters import AdapterError, AdapterSlot, store_adapter
from components.model.generation import generate_greedy
from components.model.prompts import Rendered, answer_tokens, render_prompt
from components.serving.embedded import EmbeddedEngine, SlotTaken
from components.serving.engine import EngineDown, Job, Sampling
from components.storage.objects import canonical

PROMPTS = ("The cat saw the dog.", "A dull, overlong mess.", "One two three.")


@pytest.fixture
def engine(tiny_bench, store, tmp_path):
    """An engine with adapters `a` and `b`; their digests and tensors."""
    adapters = {}
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        tiny_bench.slot.initialise(seed)
        tensors = {
            name: torch.randn(t.shape, generator=generator) * 0.3 for name, t in tiny_bench.slot.tensors().items()
        }
        digest = store_adapter(store, tiny_bench.slot.files(tensors, tiny_bench.base.digest))
        adapters[digest] = tensors
    own = EmbeddedEngine(lambda: tiny_bench)

    async def start():
        await own.start()
        for digest in adapters:
            await own.put(digest, store.get_folder(digest, tmp_path / digest))

    asyncio.run(start())
    return own, adapters


def jobs(bench, adapters, limit=8, **fields):
    """A job for each prompt with each adapter and with none."""
    end = (10**9,)
    prompts = [render_prompt(bench.base.reader, bench.base.settings, "Do it.", text) for text in PROMPTS]
    return [Job(prompt, adapter, limit, end, **fields) for prompt in prompts for adapter in [*adapters, None]]


async def tokens(engine, job):
    """All tokens of a job."""
    return tuple([step.id async for step in engine.generate(job)])


def test_answers_side_by_side_are_those_of_each_adapter_alone(engine, tiny_bench):
    own, adapters = engine
    asked = jobs(tiny_bench, adapters)

    async def all_of():
        return await asyncio.gather(*(tokens(own, job) for job in asked))

    together = asyncio.run(all_of())
    for job, result in zip(asked, together, strict=True):
        if job.adapter:
            tiny_bench.slot.load(adapters[job.adapter])
            (alone,) = generate_greedy(tiny_bench.base.model, [job.prompt], job.limit, job.ends, 1)
        else:
            with tiny_bench.slot.switched_off():
                (alone,) = generate_greedy(tiny_bench.base.model, [job.prompt], job.limit, job.ends, 1)
        assert result == alone.tokens
    assert len(set(together)) > len(PROMPTS), "the adapters differ"


def test_likelihoods_are_those_of_evaluation_and_leave_the_slot_to_others(engine, tiny_bench):
    own, adapters = engine
    answers = [answer_tokens(tiny_bench.base.reader, text) for text in ("positive", "negative", "neither of them")]
    asked = jobs(tiny_bench, adapters)

    async def mixed():
        generated = asyncio.gather(*(tokens(own, job) for job in asked))
        values = [await own.likelihoods(job, answers) for job in asked]
        return values, await generated

    values, together = asyncio.run(mixed())
    evaluator = Evaluator(tiny_bench.trunk, tiny_bench.slot, 16)
    for job, each in zip(asked, values, strict=True):
        rows = [Rendered(job.prompt, answer) for answer in answers]
        adapter = adapters[job.adapter] if job.adapter else None
        assert each == pytest.approx(evaluator.likelihoods(rows, adapter), abs=1e-4)
    own._in_slot = None
    assert together == [asyncio.run(tokens(own, job)) for job in asked]


def test_the_end_token_seeds_and_log_probabilities(engine, tiny_bench):
    own, adapters = engine
    job = jobs(tiny_bench, adapters, sampling=Sampling(1.0, 1.0, 5), logprobs=2)[0]

    async def steps():
        return [step async for step in own.generate(job)]

    one, two = asyncio.run(steps()), asyncio.run(steps())
    assert one == two
    assert all(step.logprob is not None and len(step.top) == 2 for step in one)
    ended = Job(job.prompt, job.adapter, job.limit, (one[3].id,), job.sampling)
    assert asyncio.run(tokens(own, ended)) == tuple(step.id for step in one[:3])


def test_an_answer_that_nobody_reads_any_more_stops(engine, tiny_bench):
    own, adapters = engine

    async def leave():
        stream = own.generate(jobs(tiny_bench, adapters, limit=200)[0])
        await anext(stream)
        assert own.report["running"] == 1
        await stream.aclose()
        return own.report["running"]

    assert asyncio.run(leave()) == 0


def test_adapters_come_and_go(engine, tiny_bench, tmp_path):
    own, adapters = engine
    first = next(iter(adapters))
    job = jobs(tiny_bench, [first])[0]

    async def drop():
        stream = own.generate(job)
        head = await anext(stream)
        await own.drop(first)  # a request that runs keeps what it began with
        return [head.id, *[step.id async for step in stream]]

    assert len(asyncio.run(drop())) == job.limit
    with pytest.raises(EngineDown, match="not loaded"):
        asyncio.run(tokens(own, job))
    assert own.report == {"adapters": 1, "running": 0}
    with pytest.raises(EngineDown, match="not loaded yet"):
        _ = EmbeddedEngine(lambda: tiny_bench).bench


def test_two_engines_never_share_a_model(engine, tiny_bench):
    own, _ = engine
    with pytest.raises(SlotTaken, match="start a process for each"):
        asyncio.run(EmbeddedEngine(lambda: tiny_bench).start())
    asyncio.run(own.close())
    asyncio.run(EmbeddedEngine(lambda: tiny_bench).start())


def test_an_adapter_of_another_shape_is_refused(engine, tiny_bench, tmp_path):
    own, adapters = engine
    files = tiny_bench.slot.files(next(iter(adapters.values())), tiny_bench.base.digest)
    folder = tmp_path / "other"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content.replace(b'"lora_alpha": 8', b'"lora_alpha": 9'))
    with pytest.raises(AdapterError, match=r"adapter\.alpha 9"):
        asyncio.run(own.put(canonical("x").hex(), folder))


def test_a_deeper_adapter_deepens_the_slot_while_answers_are_under_way(
    engine, tiny_bench, load_tiny, tiny_settings, store, tmp_path
):
    """A candidate on trial may have more layers than the champion beside it."""
    own, adapters = engine
    shallow = next(iter(adapters))
    first, second = jobs(tiny_bench, [shallow])[:2]
    expected = asyncio.run(tokens(own, first))
    slot = AdapterSlot(load_tiny(), tiny_settings.adapter.model_copy(update={"top_layers": "all"}))
    generator = torch.Generator().manual_seed(7)
    tensors = {name: torch.randn(p.shape, generator=generator) * 0.3 for name, p in slot.parameters.items()}
    deep = store_adapter(store, slot.files(tensors, tiny_bench.base.digest))
    slot.load(tensors)
    (alone,) = generate_greedy(slot.model, [first.prompt], first.limit, first.ends, 1)

    async def put_on_the_way():
        stream = own.generate(first)
        head = await anext(stream)
        await own.put(deep, store.get_folder(deep, tmp_path / deep))
        return (head.id, *[step.id async for step in stream])

    assert asyncio.run(put_on_the_way()) == expected
    assert (tiny_bench.slot.first_layer, tiny_bench.trunk.split) == (0, True)
    assert asyncio.run(tokens(own, Job(first.prompt, deep, first.limit, first.ends))) == alone.tokens
    assert asyncio.run(tokens(own, first)) == expected
    assert second.adapter is None
    values = asyncio.run(own.likelihoods(first, [(5, 9), (7,)]))
    assert values == pytest.approx(
        Evaluator(tiny_bench.trunk, tiny_bench.slot, 4).likelihoods(
            [Rendered(first.prompt, answer) for answer in ((5, 9), (7,))], adapters[shallow]
        ),
        abs=1e-4,
    )
