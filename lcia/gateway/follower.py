"""Follower of decisions: fetches, checks, loads and warms the version that was decided, then switches to it at once.

A version is served if its parts are those of its digest and a statement about it, signed by the pinned key or one that
key handed over to, is of no earlier decision than the last. Anything else leaves the version before in place, and the
reason goes into the report. What was checked last is kept, so that a start needs neither service nor database.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from components.errors import LciaError
from components.model.prompts import Reader, control_of, render_turns, turns_of
from components.serving.bundle import Bundle, BundleRefused
from components.serving.copies import Copies
from components.serving.engine import Engine, EngineDown, Job
from components.serving.loaded import Loaded
from components.settings import BaseModelSettings, Settings
from components.visible import visible
from lcia.gateway import proofs
from lcia.gateway.source import DecisionSource
from lcia.gateway.trial_traffic import TrialTraffic

LOG = logging.getLogger("lcia.gateway")
EXTRAS = 4
"""Versions besides the champion and a trial's candidate that stay loaded for people who try them."""
UNSUPERVISED = 30.0
"""Seconds without the service after which a trial pauses: nobody could stop it."""


class NotServing(EngineDown):
    """The gateway has no version to answer with yet."""


class VersionRefused(LciaError):
    """A version that this gateway can't serve."""


Prepare = Callable[[Bundle | None], tuple[Engine, Callable[[], tuple[Reader, BaseModelSettings, str]]]]
"""Makes the engine for a version's base model; and, once it has started, tells its reader, settings and digest."""


class Follower:
    """Versions that this gateway serves, and why."""

    def __init__(self, settings: Settings, source: DecisionSource, prepare: Prepare) -> None:
        self._settings, self._source, self._prepare = settings, source, prepare
        self._copies = Copies(Path(settings.gateway.cache), source.part)
        self._live: list[Loaded] = []
        self._extras: OrderedDict[str, Loaded] = OrderedDict()
        self._loading = asyncio.Lock()
        self._epoch, self._base_digest = 0, ""
        self._reader: Reader | None = None
        self._base = settings.base_model
        self._reached: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusal = ""
        self.engine: Engine | None = None
        self.champion: Loaded | None = None
        """Version that answers as the assistant; the base model alone while nothing was decided."""
        self.trial: TrialTraffic | None = None
        self.decided: dict[str, Any] | None = None
        """Decision that the service told last."""
        self.tokens: dict[str, Mapping[str, Any]] = {}
        """Tokens of callers by id."""
        self.problem = ""
        """Reason for which the version that was decided is not served, or the service is not reached; else empty."""

    @property
    def ready(self) -> bool:
        """True if requests are answered now."""
        return self.champion is not None and self.engine is not None and self.engine.ready

    @property
    def has_supervision(self) -> bool:
        """True if the service could stop a trial."""
        return self._reached is not None and time.monotonic() - self._reached < UNSUPERVISED

    async def run(self, report: Callable[[], dict[str, Any]]) -> None:
        """Look again and again; `report` makes what the service is told."""
        while True:
            await self.look()
            if self._reached is not None:
                await self._report(report())
            await asyncio.sleep(self._settings.gateway.poll_seconds)

    async def _report(self, content: dict[str, Any]) -> None:
        """Tell the service; a refusal is worth a line in the log, once."""
        refusal = ""
        try:
            await asyncio.to_thread(self._source.perform, "report", content)
        except LciaError as error:
            refusal = str(error)
        if refusal and refusal != self._refusal and not self.problem:
            LOG.warning("the report to the service failed: %s", visible(refusal))
        self._refusal = refusal

    async def look(self) -> None:
        """Ask what was decided and follow it; failures are kept in `problem`, never raised."""
        try:
            answer = await asyncio.to_thread(self._source.perform, "serving", {})
            self._reached = time.monotonic()
        except LciaError as error:
            self._note(f"the service is not reached: {error}")
            answer = self._copies.last() if self.champion is None else None
            if answer is None:
                return
        except Exception as error:  # noqa: BLE001 - the next look may succeed
            self._note(self._unforeseen("looking for decisions", error))
            return
        await self._follow(answer)

    async def _follow(self, answer: Mapping[str, Any]) -> None:
        problem = ""
        try:
            self.tokens = {str(token["id"]): token for token in answer["tokens"]}
            self.decided = answer["champion"]
            await self._serve(answer)
            await self._try_out(answer.get("trial"))
        except LciaError as error:
            problem = str(error)
            await self._fall_back()
        except Exception as error:  # noqa: BLE001 - the next look may succeed
            problem = self._unforeseen("following a decision", error)
        if self._reached is not None:
            self._note(problem)

    async def _fall_back(self) -> None:
        """Serve what was served before the last restart, if nothing is served yet."""
        last = self._copies.last() if self.champion is None else None
        if last is not None:
            with suppress(LciaError):
                await self._serve(last)

    async def _serve(self, answer: Mapping[str, Any]) -> None:
        """Serve the champion of an answer of `serving`, if it holds."""
        decision, before = answer["champion"], self.champion
        if decision and before and (before.digest, self._epoch) == (decision["digest"], decision["epoch"]):
            return  # as at nearly every look: nothing is read and no signature is checked again
        last = max(self._epoch, self._kept_epoch())
        if proofs.need_decision(decision, last) is None:
            if self.champion is None:
                await self._start(None)
                self.champion = Loaded.of(None, None, self._base, self.reader, self._settings.grouping)
                self._live.append(self.champion)
            return
        epoch = proofs.epoch_of(self._settings, decision, answer["assistant"], last)
        if before is None or before.digest != decision["digest"]:
            self.champion = await self._load(decision["number"], decision["digest"])
            LOG.info("version %s is served from now on (epoch %s)", decision["number"], epoch)
            if before is not None:
                self._leave(before)
        self._epoch = epoch
        record = {name: answer[name] for name in ("assistant", "champion", "tokens")}
        await asyncio.to_thread(self._copies.keep, record)

    def _kept_epoch(self) -> int:
        last = self._copies.last()
        champion = last.get("champion") if last else None
        epoch = champion.get("epoch") if isinstance(champion, dict) else None
        return epoch if isinstance(epoch, int) else 0

    async def _try_out(self, trial: Mapping[str, Any] | None) -> None:
        """Begin, go on with or end a trial."""
        if self.trial is not None and (trial is None or trial["id"] != self.trial.id):
            self._end_trial()
        if trial is None:
            return
        try:
            proofs.need_trial(self._settings, trial, self._epoch)
        except LciaError:
            self._end_trial()
            raise
        if self.trial is not None:
            return
        candidate = await self._load(trial["number"], trial["digest"])
        self.trial = TrialTraffic(trial["id"], trial["kind"], trial["share"], candidate, trial["slow_seconds"])

    def _end_trial(self) -> None:
        trial, self.trial = self.trial, None
        if trial is not None:
            trial.end()
            self._leave(trial.candidate)

    async def version(self, reference: str) -> Loaded:
        """Any version by number or digest, for people who try it out; no statement is asked for.

        Raises:
            LciaError: it does not exist, or can't be served here.
        """
        if self.champion is not None and reference in {str(self.champion.number), self.champion.digest}:
            return self.champion
        if reference in self._extras:
            self._extras.move_to_end(reference)
            return self._extras[reference]
        answer = (await asyncio.to_thread(self._source.perform, "serving", {"version": reference}))["version"]
        other = await self._load(answer["number"], answer["digest"])
        if reference in self._extras:  # somebody asked for it at the same time
            self._leave(other)
            return self._extras[reference]
        self._extras[reference] = other
        if len(self._extras) > EXTRAS:
            self._leave(self._extras.popitem(last=False)[1])
        return self._extras[reference]

    @contextmanager
    def hold(self, version: Loaded) -> Iterator[None]:
        """Keep a version's adapters while a request runs."""
        version.requests += 1
        try:
            yield
        finally:
            version.requests -= 1

    async def close(self) -> None:
        """End the trial and the engine."""
        if self.trial:
            self.trial.end()
        if self.engine:
            await self.engine.close()

    async def _start(self, bundle: Bundle | None) -> Engine:
        if self.engine is None:
            engine, facts = self._prepare(bundle)
            await engine.start()
            self._reader, self._base, self._base_digest = await asyncio.to_thread(facts)
            self.engine = engine
        return self.engine

    async def _load(self, number: int, digest: str) -> Loaded:
        """A version with all its adapters in the engine, warm."""
        async with self._loading:
            bundle = await asyncio.to_thread(self._copies.bundle, digest)
            if bundle.pool.assistant != self._settings.assistant:
                raise BundleRefused(f"version {digest[:12]} is of assistant {bundle.pool.assistant!r}")
            engine = await self._start(bundle)
            if bundle.pool.groups and bundle.pool.base_model != self._base_digest:
                raise VersionRefused(
                    f"version {number} was tuned on base model {bundle.pool.base_model[:12]}, this gateway runs "
                    f"{self._base_digest[:12]}: start gateways with the new base_model, then end this one"
                )
            reader, grouping = self.reader, self._settings.grouping
            version = await asyncio.to_thread(Loaded.of, number, bundle, self._base, reader, grouping)
            present = {adapter for each in self._live for adapter in each.adapters}
            self._live.append(version)
            try:
                for adapter in sorted(version.adapters):
                    await engine.put(adapter, await asyncio.to_thread(self._copies.adapter, adapter))
                    if adapter not in present:
                        await self._warm(engine, adapter)
            except BaseException:
                self._leave(version)
                raise
            return version

    async def _warm(self, engine: Engine, adapter: str) -> None:
        """Let an adapter read something, so that the first request does not wait for it."""
        prompt = render_turns(self.reader, self._base, turns_of(self._base, "Hello", None))
        async for _ in engine.generate(Job(prompt, adapter, 1, control_of(self.reader).ends)):
            pass

    def _leave(self, version: Loaded) -> None:
        """Let go of a version: once its last request has ended its adapters are dropped, unless another needs them."""
        task = asyncio.create_task(self._drain(version))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, version: Loaded) -> None:
        while version.requests:
            await asyncio.sleep(0.1)
        async with self._loading:  # no version that needs one of these adapters may come in between
            self._live.remove(version)
            others = {adapter for each in self._live for adapter in each.adapters}
            for adapter in version.adapters - others:
                if self.engine:
                    await self.engine.drop(adapter)
            digests = {
                each.digest for each in (*self._live, version) if each.digest
            }  # the last one too, for a rollback
            await asyncio.to_thread(self._copies.forget_all_but, digests)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Tokenizer of the base model.

        Raises:
            EngineDown: it is not loaded yet.
        """
        return control_of(self.reader).tokenizer

    @property
    def reader(self) -> Reader:
        """Reader of the base model.

        Raises:
            EngineDown: it is not loaded yet.
        """
        if self._reader is None:
            raise EngineDown("the engine has not started yet; wait a little")
        return self._reader

    def _unforeseen(self, what: str, error: Exception) -> str:
        """Problem with a failure that nobody foresaw; the log gets its details once."""
        if isinstance(error, OSError):
            return (
                f"{what} failed: {error.filename or 'a file'}: {error.strerror}; the gateway needs room and rights in "
                "gateway.cache, and tries again by itself"
            )
        problem = f"{what} failed by {type(error).__name__}; the gateway's own output says more"
        if problem != self.problem:
            LOG.error("%s failed", what, exc_info=error)
        return problem

    def _note(self, problem: str) -> None:
        if problem != self.problem and problem:
            LOG.warning("%s", visible(problem))
        self.problem = problem
