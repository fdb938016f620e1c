"""Overhead of the gateway against asking vLLM itself with the same token ids, and of the router alone."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gateway.load import CHAT, Client, machine_load, quantile
from benchmarks.routing.measure import HERE, learn
from components.grouping.router import Router
from components.model.base import load_reader
from components.model.prompts import control_of
from components.serving import bundle
from components.serving import vllm_wire as wire
from components.serving.conversation import Conversation
from components.serving.engine import Job
from components.serving.loaded import Loaded
from components.settings import GroupingSettings
from lcia.instance import Instance

ARMS = ("vllm", "vllm, streamed", "gateway", "gateway, task named")
"""Ways of asking; the first is that with which the others are compared. The gateway itself lets vLLM stream."""

WARMING = 2
"""Requests by each way that are not counted."""


@dataclass(frozen=True)
class Way:
    """One way of asking: address, path, and a body for each question."""

    address: str
    path: str
    bodies: Sequence[Mapping[str, Any]]
    token: str = ""


def ways(instance: Instance, rows: Sequence[Mapping[str, Any]], vllm: str, gateway: str, token: str) -> dict[str, Way]:
    """Ways of asking what an adapter answers word by word; choices take several requests and are left out."""
    champion = instance.champion()
    assert champion is not None
    version, settings = bundle.from_store(instance.store, champion.digest), instance.settings
    reader = load_reader(settings.base_model, Path(settings.storage.models))
    loaded = Loaded.of(champion.number, version, settings.base_model, reader, settings.grouping)
    ends = control_of(reader).ends
    whole, streamed, chats, named = [], [], [], []
    for row in rows:
        question = loaded.question(Conversation((("user", row["messages"][-1]["content"]),)))
        contract = question.contract
        if contract.choices or contract.adapter is None:
            continue
        job = Job(question.prompt, contract.adapter, contract.decoding.max_new_tokens, ends)
        body = wire.completion(job, contract.adapter)
        streamed.append(body)
        whole.append({name: value for name, value in body.items() if name != "stream_options"} | {"stream": False})
        chats.append(row)
        named.append({**row, "model": f"assistant:{contract.task}"})
    if not whole:
        raise RuntimeError("no row of the state is answered by an adapter word by word, expected some")
    asked = ((vllm, wire.COMPLETIONS, whole, ""), (vllm, wire.COMPLETIONS, streamed, ""))
    asked += ((gateway, CHAT, chats, token), (gateway, CHAT, named, token))
    return {arm: Way(*way) for arm, way in zip(ARMS, asked, strict=True)}


def latency(asked: Mapping[str, Way], requests: int) -> dict[str, Any]:
    """Milliseconds of one client's requests, every question by each way in turn."""
    clients = {arm: Client(way.address, way.token) for arm, way in asked.items()}
    times: dict[str, list[float]] = {arm: [] for arm in asked}
    arms, loads = list(asked), []
    for number in range(-WARMING, requests):
        for turn in range(len(arms)):
            arm = arms[(number + turn) % len(arms)]
            seconds = _timed(clients[arm], asked[arm], number)
            if number >= 0:
                times[arm].append(1000 * seconds)
        loads.append(machine_load())
    out: dict[str, Any] = {"requests_each": requests, "load": [min(loads), max(loads)]}
    for arm in arms:
        paired = [own - direct for own, direct in zip(times[arm], times[arms[0]], strict=True)]
        out[arm] = {"p50_ms": _p(times[arm], 0.5), "p99_ms": _p(times[arm], 0.99)}
        if arm != arms[0]:
            added = _p(times[arm], 0.99) - _p(times[arms[0]], 0.99)
            out[arm] |= {"added_p50_ms": _p(paired, 0.5), "added_to_p99_ms": round(added, 2)}
    return out


def saturation(asked: Mapping[str, Way], clients: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Requests per second of many clients, by each way in turn for so many seconds, several rounds."""
    rates: dict[str, list[float]] = {arm: [] for arm in asked}
    arms, loads = list(asked), []
    for number in range(rounds):
        for turn in range(len(arms)):
            arm = arms[(number + turn) % len(arms)]
            rates[arm].append(_rate(asked[arm], clients, seconds))
            loads.append(machine_load())
    direct = sum(rates[arms[0]])
    out: dict[str, Any] = {"clients": clients, "seconds_each": seconds * rounds, "load": [min(loads), max(loads)]}
    for arm in arms:
        ratios = [round(own / other, 3) for own, other in zip(rates[arm], rates[arms[0]], strict=True)]
        out[arm] = {"per_second": round(sum(rates[arm]) / rounds, 2)}
        if arm != arms[0]:
            out[arm] |= {"ratio": round(sum(rates[arm]) / direct, 3), "of_rounds": ratios}
    return out


def _rate(way: Way, clients: int, seconds: float) -> float:
    """Requests per second; what is under way at the end counts in part, by its share of time within."""
    counts = [0.0] * clients
    begin = time.monotonic()
    end = begin + seconds

    def work(number: int) -> None:
        client, turn = Client(way.address, way.token), number
        while (began := time.monotonic()) < end:
            _timed(client, way, turn)
            turn += clients
            ended = time.monotonic()
            counts[number] += 1.0 if ended <= end else (end - began) / (ended - began)
        client.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def _timed(client: Client, way: Way, number: int) -> float:
    began = time.monotonic()
    status, _, content = client.send(way.path, way.bodies[number % len(way.bodies)])
    if status != 200:
        raise RuntimeError(f"{way.address}{way.path} answers {status}: {content[:300]!r}")
    return time.monotonic() - began


def router(encoder: str) -> dict[str, Any]:
    """Milliseconds of the router alone for wordings that it has never seen; it knows the eight example tasks."""
    requests = yaml.safe_load((HERE / "requests.yaml").read_text(encoding="utf-8"))
    settings = GroupingSettings.model_validate({"encoder": encoder})
    pool, _ = learn(list(requests["tasks"]), settings)
    route = Router.of(pool, settings).route_instruction
    texts = [text for each in requests["tasks"].values() for text in each] + requests["unrelated"]
    known = [text for entry in pool.tasks() for text in entry.instructions]
    out: dict[str, Any] = {"requests": len(texts), "load": machine_load()}
    for name, asked in (("unseen", texts), ("as_learnt", known)):
        times, busy = _times(route, asked)
        out[name] = {"p50_ms": _p(times, 0.5), "p99_ms": _p(times, 0.99), "cpu_p50_ms": _p(busy, 0.5)}
    return out


def _times(route: Callable[[str], object], texts: Sequence[str]) -> tuple[list[float], list[float]]:
    """Milliseconds by the clock and of the processor; the waiting for a core is in the first alone."""
    for text in texts[:5]:
        route(f"{text}!")
    times, busy = [], []
    for text in texts:
        began, at_work = time.perf_counter(), time.process_time()
        route(text)
        times.append(1000 * (time.perf_counter() - began))
        busy.append(1000 * (time.process_time() - at_work))
    return times, busy


def _p(values: Sequence[float], share: float) -> float:
    return round(quantile(values, share), 2)
