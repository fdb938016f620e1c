"""Answers of a gateway's engine next to the predictions that the champion was approved by, row by row of its tests.

Both go by the same contract: the prompt's token ids, the adapter, greedy decoding or the likeliest choice. A row may
differ where the two best tokens (or choices) lie closer together than `evaluation.tie_gap`, since sums in another order
round differently; the gap that was stored tells. The last line of the output is one JSON object.

    python -m benchmarks.gateway.equality --engine vllm --vllm http://127.0.0.1:8000
    python -m benchmarks.gateway.equality --engine embedded --http    # through a whole gateway, the task not named
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from benchmarks.gateway.installation import RATE, body_of
from benchmarks.gateway.load import Client, Reply, machine_load, wait_for
from components.evaluation.prediction import choices_of
from components.evaluation.scored import scored_rows
from components.model.base import load_reader
from components.model.prompts import Reader, answer_tokens, control_of, render_prompt
from components.model.reader import ImageReader
from components.model.workbench import Workbench
from components.serving import bundle
from components.serving.contract import Contract, contract_of_task
from components.serving.embedded import EmbeddedEngine
from components.serving.engine import Engine, Job
from components.serving.vllm_engine import VllmEngine
from components.settings import Settings
from components.settings.loading import home, load_settings
from components.tasks.snapshot import load_snapshot
from lcia.gateway.server import in_background
from lcia.gateway.source import StateSource
from lcia.instance import Instance

HTTP_CLIENTS = 8
UNDER_WAY = 16
"""Rows that an engine is asked at the same time, so that rows of different adapters meet in its batches."""


@dataclass(frozen=True)
class Question:
    """A test row, its contract, and the answer that is stored with the gap of its two best tokens or choices."""

    task: str
    row: str
    prompt: tuple[int, ...]
    contract: Contract
    text: str
    gap: float
    body: dict[str, Any]
    """The same row as a chat request that does not name its task."""


@dataclass(frozen=True)
class Difference:
    """A row that the engine answers differently; `near_tie`: the stored gap allows that."""

    task: str
    row: str
    stored: str
    answer: str
    gap: float
    near_tie: bool


def questions(instance: Instance, reader: Reader, limit: int | None = None) -> list[Question]:
    """All test rows of the champion's tasks, at most `limit` of each task; rows with images are left out."""
    champion = instance.champion()
    if champion is None:
        raise SystemExit("there is no champion; learn and approve a task first, or run `lcia demo`")
    version = bundle.from_store(instance.store, champion.digest)
    stored = instance.store.get_json(instance.evidence(champion)["evaluation"])["predictions"]
    adapters: dict[str | None, str | None] = {None: None, **{group.id: group.adapter for group in version.pool.groups}}
    out = []
    for entry in version.pool.tasks():
        snapshot = load_snapshot(instance.store, entry.task)
        rows = zip(snapshot.rows("test"), scored_rows(instance.store, stored[entry.name]), strict=True)
        for example, row in list(rows)[:limit]:
            if example.images:
                continue
            contract = contract_of_task(version, entry.name, choices_of(snapshot.task, example))
            contract = replace(contract, group=row["group"], adapter=adapters[row["group"]])
            prompt = render_prompt(reader, version.settings.base_model, example.instruction, example.input)
            body = body_of({"instruction": example.instruction, "input": example.input or ""})
            out.append(Question(entry.name, example.id, prompt, contract, row["text"], float(row["gap"]), body))
    return out


async def answer(engine: Engine, reader: Reader, question: Question) -> str:
    """Text that the engine's tokens stand for, or the likeliest choice."""
    tokenizer: PreTrainedTokenizerBase = control_of(reader).tokenizer
    contract, decoding = question.contract, question.contract.decoding
    job = Job(question.prompt, contract.adapter, decoding.max_new_tokens, control_of(reader).ends)
    if not contract.choices:
        tokens = [step.id async for step in engine.generate(job)]
        return str(tokenizer.decode(tokens, skip_special_tokens=True))
    answers = [answer_tokens(reader, choice) for choice in contract.choices]
    return contract.choose(await engine.likelihoods(job, answers), answers)


async def compare(
    engine: Engine, reader: Reader, asked: Iterable[Question], tie_gap: float, say: Callable[[str], None] = print
) -> list[Difference]:
    """Rows that the engine answers differently from what is stored, in the order of the questions."""
    places = asyncio.Semaphore(UNDER_WAY)

    async def one(question: Question) -> Difference | None:
        async with places:
            text = await answer(engine, reader, question)
        if text == question.text:
            return None
        tie = question.gap <= tie_gap
        say(
            f"{question.task} {question.row[:12]}: stored {question.text!r}, now {text!r}, "
            f"gap {question.gap:.3g}{' (near tie)' if tie else ''}"
        )
        return Difference(question.task, question.row, question.text, text, question.gap, tie)

    results = await asyncio.gather(*(one(question) for question in asked))
    return [result for result in results if result is not None]


async def measure(
    instance: Instance, engine: Engine, adapters: Path, tie_gap: float, limit: int | None = None
) -> dict[str, object]:
    """Start the engine, put every adapter of the champion into it from a folder in `adapters`, ask every row."""
    reader = load_reader(instance.settings.base_model, Path(instance.settings.storage.models))
    if isinstance(reader, ImageReader) and not engine.sees_images:
        print("rows with images are left out: the engine takes text alone")
    asked = questions(instance, reader, limit)
    await engine.start()
    try:
        for digest in {question.contract.adapter for question in asked} - {None}:
            await engine.put(str(digest), instance.store.get_folder(str(digest), adapters / str(digest)))
        start = time.monotonic()
        differences = await compare(engine, reader, asked, tie_gap)
        seconds = time.monotonic() - start
    finally:
        await engine.close()
    return _summary(engine.name, asked, differences, seconds)


def over_http(instance: Instance, settings: Settings, tie_gap: float, limit: int | None = None) -> dict[str, object]:
    """Ask every row through a gateway, which finds task and group itself."""
    asked = questions(instance, load_reader(settings.base_model, Path(settings.storage.models)), limit)
    source, differences = StateSource(lambda: instance), []
    with tempfile.TemporaryDirectory() as cache:
        gateway = settings.gateway.model_copy(update={"cache": cache, "rate": RATE, "answer_seconds": 600.0})
        with in_background(settings.model_copy(update={"gateway": gateway}), source) as (address, running):
            if not wait_for(lambda: running.follower.ready, 300):
                raise SystemExit(running.follower.problem)
            start = time.monotonic()
            with ThreadPoolExecutor(HTTP_CLIENTS) as pool:
                replies = list(pool.map(lambda each: _ask(address, each), asked))
            seconds = time.monotonic() - start
    for question, reply in zip(asked, replies, strict=True):
        if not reply.ok or reply.text != question.text.strip():
            near = reply.ok and question.gap <= tie_gap
            differences.append(Difference(question.task, question.row, question.text, reply.text, question.gap, near))
    return _summary(f"{gateway.engine}, over HTTP", asked, differences, seconds)


def _ask(address: str, question: Question) -> Reply:
    client = Client(address)
    body = question.body if not question.contract.choices else {**question.body, "choices": question.contract.choices}
    reply = client.ask(0, body)
    client.close()
    return reply


def _summary(
    engine: str, asked: Sequence[Question], differences: Sequence[Difference], seconds: float
) -> dict[str, object]:
    return {
        "engine": engine,
        "rows": len(asked),
        "differing": len(differences),
        "share": round(len(differences) / len(asked), 4),
        "near_ties": sum(difference.near_tie for difference in differences),
        "seconds": round(seconds, 1),
        "load": machine_load(),
        "differences": [asdict(difference) for difference in differences],
    }


def vllm_engine(settings: Settings) -> Engine:
    """The engine `vllm` of the settings."""
    return VllmEngine(settings.gateway)


def embedded_engine(settings: Settings) -> Engine:
    """The engine `embedded`: the base model in this process."""
    return EmbeddedEngine(lambda: Workbench.load(settings))


ENGINES: Mapping[str, Callable[[Settings], Engine]] = {"vllm": vllm_engine, "embedded": embedded_engine}


def main() -> None:
    """Ask the engine every test row of the champion of LCIA_HOME."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway.equality", description=__doc__)
    parser.add_argument("--engine", choices=list(ENGINES), default="vllm")
    parser.add_argument("--vllm", nargs="*", default=[], help="addresses of vLLM servers")
    parser.add_argument("--adapters", type=Path, help="folder for adapters, if the servers see another /tmp")
    parser.add_argument("--http", action="store_true", help="through a gateway and its router")
    parser.add_argument("--rows", type=int, help="rows of each task, default all")
    arguments = parser.parse_args()
    settings = load_settings(None, (), {})
    instance = Instance.open(home(), settings)
    gateway = settings.gateway.model_copy(update={"engine": arguments.engine, "vllm": tuple(arguments.vllm)})
    settings = settings.model_copy(update={"gateway": gateway})
    if arguments.http:
        print(json.dumps(over_http(instance, settings, settings.evaluation.tie_gap, arguments.rows)))
        return
    engine = ENGINES[arguments.engine](settings)
    with tempfile.TemporaryDirectory() as scratch, suppress(KeyboardInterrupt):
        adapters = arguments.adapters or Path(scratch)
        result = asyncio.run(measure(instance, engine, adapters, settings.evaluation.tie_gap, arguments.rows))
        print(json.dumps(result))


if __name__ == "__main__":
    main()
