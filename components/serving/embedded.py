"""Engine `embedded`: the base model in this process; one thread decodes, in turns of a token between all requests."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor

from components.errors import LciaError
from components.evaluation.prediction import Evaluator
from components.model.adapters import CONFIG, WEIGHTS, AdapterSlot, first_layer, read_weights
from components.model.prompts import Rendered
from components.model.stepwise import Decoded, decode
from components.model.vision import Sight
from components.model.workbench import Workbench
from components.serving.engine import EngineDown, Job, Step

Value = TypeVar("Value")
OWNERS: "WeakKeyDictionary[AdapterSlot, EmbeddedEngine]" = WeakKeyDictionary()
"""Engine that works on a slot, by slot: `Workbench.load` gives all callers of a process the same one."""
CHOICES_AT_ONCE = 16
"""Answers that are read together when their likelihoods are compared."""


class SlotTaken(LciaError):
    """Two engines on one adapter slot would answer with each other's adapters."""


class EmbeddedEngine:
    """The base model with one adapter slot; each step finds its own request's adapter in it."""

    name = "embedded"

    def __init__(self, load: Callable[[], Workbench]) -> None:
        """Load nothing yet; `load` gives the base model."""
        self._load = load
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._adapters: dict[str, Mapping[str, Tensor]] = {}
        self._bench: Workbench | None = None
        self._in_slot: str | None = None
        self._running = self._seeing = 0

    @property
    def sees_images(self) -> bool:
        """True if the base model does."""
        return self._bench is not None and self._bench.base.sight is not None

    @property
    def ready(self) -> bool:
        """True once the base model is loaded."""
        return self._bench is not None

    @property
    def report(self) -> dict[str, object]:
        """Adapters that are loaded, and answers under way."""
        return {"adapters": len(self._adapters), "running": self._running}

    @property
    def bench(self) -> Workbench:
        """The loaded base model.

        Raises:
            EngineDown: it is not loaded yet.
        """
        if self._bench is None:
            raise EngineDown("the base model is not loaded yet; wait a little and ask again")
        return self._bench

    async def start(self) -> None:
        """Load the base model.

        Raises:
            SlotTaken: another engine of this process works on the same loaded model.
        """
        bench = await self._do(self._load)
        owner = OWNERS.setdefault(bench.slot, self)
        if owner is not self:
            raise SlotTaken("another gateway of this process works on the same loaded model; start a process for each")
        self._bench = bench

    async def close(self) -> None:
        """End the thread after its present step."""
        if self._bench is not None and OWNERS.get(self._bench.slot) is self:
            del OWNERS[self._bench.slot]
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def put(self, digest: str, folder: Path) -> None:
        """Read an adapter into memory.

        Raises:
            AdapterError: it does not fit the base model.
        """
        if digest not in self._adapters:
            self._adapters[digest] = await self._do(lambda: self._read(digest, folder))

    async def drop(self, digest: str) -> None:
        """Forget an adapter."""
        self._adapters.pop(digest, None)

    async def generate(self, job: Job) -> AsyncGenerator[Step, None]:
        """Tokens of an answer as they are decoded."""
        base = self.bench.base
        adapter = self._adapter(job.adapter)
        visual = bool(base.sight and Sight.opening_length(job.prompt))
        decoding = decode(
            base.model,
            job.prompt,
            job.limit,
            job.ends,
            temperature=job.sampling.temperature,
            top_p=job.sampling.top_p,
            seed=job.sampling.seed,
            alternatives=job.logprobs or 0,
            sight=base.sight,
        )
        self._running += 1
        self._seeing += visual
        try:
            while (step := await self._do(lambda: self._next(job.adapter, adapter, decoding))) is not None:
                yield Step(step.token, None if job.logprobs is None else step.logprob, step.top)
        finally:
            self._running -= 1
            self._seeing -= visual
            if visual and not self._seeing and base.sight:
                base.sight.forget()
                base.sight.reader.forget()

    async def likelihoods(self, job: Job, answers: Sequence[tuple[int, ...]]) -> list[float]:
        """Log-likelihood of each answer as continuation of the prompt."""
        bench, adapter = self.bench, self._adapter(job.adapter)
        rows = [Rendered(job.prompt, answer) for answer in answers]

        def read() -> list[float]:
            self._in_slot = None
            return Evaluator(bench.trunk, bench.slot, CHOICES_AT_ONCE).likelihoods(rows, adapter)

        self._running += 1
        try:
            return await self._do(read)
        finally:
            self._running -= 1

    def _next(
        self, digest: str | None, adapter: Mapping[str, Tensor] | None, decoding: Iterator[Decoded]
    ) -> Decoded | None:
        """The next token under the request's own adapter; None at the end."""
        slot = self.bench.slot
        if adapter is not None and self._in_slot != digest:
            slot.load(adapter)
            self._in_slot = digest
        with slot.switched_off() if adapter is None else nullcontext():
            return next(decoding, None)

    def _adapter(self, digest: str | None) -> Mapping[str, Tensor] | None:
        """Tensors for a request, which keeps them even if they are dropped while it runs."""
        if digest is not None and digest not in self._adapters:
            raise EngineDown(f"adapter {digest[:12]} is not loaded; wait a little and ask again")
        return None if digest is None else self._adapters[digest]

    def _read(self, digest: str, folder: Path) -> Mapping[str, Tensor]:
        bench, config = self.bench, json.loads((folder / CONFIG).read_bytes())
        bench.cover(first_layer(config))
        self._in_slot = None
        bench.slot.need_shape(config, digest)
        return bench.slot.complete(read_weights((folder / WEIGHTS).read_bytes()))

    async def _do(self, work: Callable[[], Value]) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
