"""Request on its way through the gateway: model and version, question, answers, counts."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from opentelemetry.trace import Tracer

from components.errors import LciaError
from components.quality.personal import mask_personal_data
from components.serving.answering import Part, Wishes, answer
from components.serving.conversation import Conversation
from components.serving.engine import Engine, EngineDown, NotAbleTo
from components.serving.loaded import Loaded, Question
from components.settings import Settings
from components.tasks import isolation
from lcia.gateway.answer_ids import Origin, Seal
from lcia.gateway.callers import Admission, Asker
from lcia.gateway.follower import Follower, NotServing
from lcia.gateway.measures import Meter
from lcia.gateway.replies import Answered, Kind, Reply
from lcia.gateway.shapes import ChatRequest, CompletionRequest, Feedback, RequestRefused
from lcia.gateway.trial_traffic import Arm, Observation, TrialTraffic
from lcia.gateway.unrouted import Unrouted

Body = ChatRequest | CompletionRequest
Value = TypeVar("Value")
ALIAS = "assistant"
"""Name under which every assistant answers besides its own."""
BASE_MODEL = "base"


class NoSuchModel(LciaError):
    """No model of this name is served here."""


class MayNotTry(LciaError):
    """The caller may ask the champion only."""


class AnswerTooSlow(EngineDown):
    """An answer took longer than the settings allow."""


@dataclass(frozen=True)
class ReplyPart:
    """Part of one of the answers to a request, and the frame of the reply."""

    reply: Reply
    number: int
    part: Part


@dataclass(frozen=True)
class Target:
    """Version and way in which a request is answered."""

    loaded: Loaded
    task: str | None = None
    alone: bool = False
    trial: TrialTraffic | None = None
    """Trial that counts this request."""
    arm: Arm = "champion"


class Gateway:
    """Everything between the HTTP routes and the engine."""

    def __init__(self, settings: Settings, follower: Follower, seal: Seal, tracer: Tracer) -> None:
        self.settings, self.follower, self.tracer = settings, follower, tracer
        self.measures, self.admission, self.unrouted = Meter(), Admission(settings.gateway), Unrouted()
        self._seal = seal

    @property
    def engine(self) -> Engine:
        """The engine, ready.

        Raises:
            NotServing: it is not.
        """
        engine = self.follower.engine
        if engine is None or not self.follower.ready:
            raise NotServing(f"the gateway can't answer yet: {self.follower.problem or 'it is still loading'}")
        return engine

    def names(self) -> list[str]:
        """Models that `GET /v1/models` lists."""
        champion = self.follower.champion
        own = self.settings.assistant
        tasks = champion.tasks if champion else ()
        version = [f"{own}@{champion.number}"] if champion and champion.number is not None else []
        return [own, *(f"{own}:{task}" for task in tasks), *version, BASE_MODEL]

    async def target(self, body: Body, asker: Asker) -> Target:
        """Version that answers a request.

        Raises:
            NotServing; NoSuchModel: there is no such model.
            MayNotTry: it is not the champion, and the caller may ask nothing else.
        """
        _ = self.engine
        champion, trial = self.follower.champion, self.follower.trial
        assert champion is not None  # noqa: S101 - `ready` says so
        name, own = body.model, self.settings.assistant
        name = own + name.removeprefix(ALIAS) if name.split(":")[0].split("@")[0] == ALIAS else name
        if name == BASE_MODEL:
            return Target(champion, alone=True)
        if name.startswith(f"{own}@"):
            number = name.removeprefix(f"{own}@")
            if not asker.tries and str(champion.number) != number:
                raise MayNotTry(f"this token may ask {own}, not {name}: trying versions needs the permission `try`")
            return Target(await self.follower.version(number))
        task = name.removeprefix(f"{own}:") if name.startswith(f"{own}:") else None
        if task is None and name != own:
            raise NoSuchModel(f"no model {body.model[:80]!r} is served here; there are {', '.join(self.names()[:20])}")
        if trial is not None and self.follower.has_supervision:
            if self._picks(trial, f"{asker.id}/{body.user or ''}"):
                return Target(trial.candidate, task, trial=trial, arm="candidate")
            return Target(champion, task, trial=trial)
        return Target(champion, task)

    def _picks(self, trial: TrialTraffic, caller: str) -> bool:
        """True if the candidate answers a caller: as something in front of the gateways decided, or by the share."""
        arm = self.settings.gateway.arm
        return trial.picks(caller) if arm == "both" else trial.kind == "canary" and arm == "candidate"

    async def conversation(self, body: Body) -> Conversation:
        """Turns and images of a request; images are read in a process without rights.

        Raises:
            RequestRefused, NotAbleTo, ImageRefused.
        """
        files, conversation = body.files, body.conversation()
        if not files:
            return conversation
        if not self.engine.sees_images:
            raise NotAbleTo(f"the request shows images, and engine {self.engine.name} reads text only; leave them out")
        pairs = [(f"image {number}", file) for number, file in enumerate(files, start=1)]
        pictures = await asyncio.to_thread(isolation.pictures, pairs, self.settings.packages)
        return replace(conversation, images=tuple(pictures))

    def wishes(self, body: Body) -> Wishes:
        """Deviations from the contract that a request asks for.

        Raises:
            RequestRefused: more tokens than `gateway.new_tokens`.
        """
        most = self.settings.gateway.new_tokens
        if body.limit is not None and body.limit > most:
            message = f"max_tokens is {body.limit}, expected at most {most} (gateway.new_tokens)"
            raise RequestRefused(message, "max_tokens")
        return Wishes(body.limit, body.sampling, tuple(body.stops), body.alternatives)

    async def ask(self, body: Body, kind: Kind, asker: Asker) -> AsyncGenerator[ReplyPart, None]:
        """Pieces of the answers to a request as they come.

        Raises:
            LciaError: it is refused, or can't be answered; nothing was given out unless the engine died on the way.
        """
        deadline = time.monotonic() + self.settings.gateway.answer_seconds
        with self.admission.place(asker, body.n or 1):
            conversation, wishes = await self.conversation(body), self.wishes(body)
            target, some = await self.target(body, asker), False
            while not some:
                try:
                    async with aclosing(self._answers(body, kind, target, conversation, wishes, deadline)) as pieces:
                        async for piece in pieces:
                            some = True
                            yield piece
                except AnswerTooSlow:
                    raise  # no time is left for the champion
                except EngineDown:
                    if some or target.arm == "champion" or self.follower.champion is None:
                        raise
                    # where the canary can't answer the champion does: no caller suffers from a trial
                    target = replace(target, loaded=self.follower.champion, arm="champion")

    async def _answers(
        self, body: Body, kind: Kind, target: Target, conversation: Conversation, wishes: Wishes, deadline: float
    ) -> AsyncGenerator[ReplyPart, None]:
        version, trial = target.loaded, target.trial
        answers = [Answered() for _ in range(body.n or 1)]
        began, first, group, outcome = time.monotonic(), None, None, "gone"
        with self.follower.hold(version):
            try:
                question = await self._question(target, conversation, body)
                group = question.contract.group
                origin = Origin(version.number, group, trial.id if trial else None, target.arm == "candidate")
                identity = self._seal.new(origin)
                reply = Reply(kind, identity, body.model, version, question, wishes, self.follower.tokenizer)
                async with aclosing(self._parts(question, wishes, len(answers))) as parts:
                    async for number, part in in_time(parts, deadline):
                        if first is None and part.tokens:
                            first = time.monotonic() - began
                        answers[number].add(part)
                        yield ReplyPart(reply, number, part)
                outcome = "ok"
            except EngineDown:
                outcome = "error"
                raise
            except LciaError:
                outcome = "refused"
                raise
            finally:
                self._count(target, outcome, group, time.monotonic() - began)
        if self.settings.gateway.keep == "masked" and not question.named:
            self.unrouted.add(conversation, question.route)
        usage, seconds = reply.usage(answers), time.monotonic() - began
        output = usage["completion_tokens"]
        self.measures.count_answer(group, reply.facts["route"], seconds, first, usage["prompt_tokens"], output)
        if trial and len(answers) == 1 and wishes.greedy and trial.mirrors(reply.id):
            own = Observation(False, seconds, group is None, answers[0].text)
            mask = mask_personal_data if self.settings.gateway.keep == "masked" else None
            trial.mirror(reply.id, own, lambda: self._ask_candidate(trial, target, conversation, body, wishes), mask)

    async def _question(self, target: Target, conversation: Conversation, body: Body) -> Question:
        return await asyncio.to_thread(
            target.loaded.question,
            conversation,
            task=target.task,
            alone=target.alone,
            choices=body.choices or (),
            fallback=body.fallback,
        )

    async def _parts(self, question: Question, wishes: Wishes, count: int) -> AsyncGenerator[tuple[int, Part], None]:
        """Parts of `count` answers; several are decoded side by side, with seeds of their own."""
        reader, seed = self.follower.reader, wishes.sampling.seed
        queue: asyncio.Queue[tuple[int, Part | Exception]] = asyncio.Queue()

        async def one(number: int) -> None:
            own = replace(wishes, sampling=replace(wishes.sampling, seed=None if seed is None else seed + number))
            try:
                async with aclosing(answer(self.engine, reader, question, own)) as parts:
                    async for part in parts:
                        await queue.put((number, part))
            except Exception as error:  # noqa: BLE001 - raised where the parts are read
                await queue.put((number, error))

        tasks = [asyncio.create_task(one(number)) for number in range(count)]
        try:
            going = count
            while going:
                number, part = await queue.get()
                if isinstance(part, Exception):
                    raise part
                going -= part.finish is not None
                yield number, part
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_candidate(
        self, trial: TrialTraffic, target: Target, conversation: Conversation, body: Body, wishes: Wishes
    ) -> Observation:
        """The candidate's answer to a request that the champion has answered."""
        began, whole = time.monotonic(), Answered()
        group: str | None = None
        other = Target(trial.candidate, target.task)
        try:
            with self.follower.hold(trial.candidate):
                async with asyncio.timeout(self.settings.gateway.answer_seconds):
                    question = await self._question(other, conversation, body)
                    group = question.contract.group
                    async with aclosing(self._parts(question, wishes, 1)) as parts:
                        async for _, part in parts:
                            whole.add(part)
        except (LciaError, TimeoutError):
            return Observation(True, time.monotonic() - began, group is None)
        return Observation(False, time.monotonic() - began, group is None, whole.text)

    def _count(self, target: Target, outcome: str, group: str | None, seconds: float) -> None:
        if outcome != "ok":
            self.measures.count_failure(group, outcome)
        if target.trial and target.trial.kind == "canary" and outcome in {"ok", "error"}:
            target.trial.count(target.arm, Observation(outcome == "error", seconds, group is None))

    def rate(self, feedback: Feedback) -> None:
        """Count somebody's verdict on an answer.

        Raises:
            AnswerUnknown: no answer has this id.
        """
        origin, trial = self._seal.read(feedback.id), self.follower.trial
        self.measures.ratings.labels("good" if feedback.good else "bad").inc()
        if trial is not None and origin.trial == trial.id:
            trial.rate("candidate" if origin.candidate else "champion", feedback.id, good=feedback.good)

    def report(self, replica: str) -> dict[str, Any]:
        """Report for the service."""
        follower = self.follower
        champion = follower.champion
        return {
            "replica": replica,
            "engine": self.settings.gateway.engine,
            "version": champion.digest if champion else None,
            "ready": follower.ready,
            "problem": follower.problem[:500],
            "trial": follower.trial.report() if follower.trial else None,
            **self.measures.report(),
            **self.unrouted.report(),
        }


async def in_time(parts: AsyncIterator[Value], deadline: float) -> AsyncIterator[Value]:
    """The same parts, while they come before `deadline`, a time of the monotonic clock.

    The limit is on each wait, as the parts of a stream are read by several tasks. Each is waited for by the task that
    reads, so that hanging up ends the work in the same step.

    Raises:
        AnswerTooSlow: they do not.
    """
    while True:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                part = await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise AnswerTooSlow("the answer took longer than gateway.answer_seconds; ask for fewer tokens") from None
        yield part


def replica_name(environment: Mapping[str, str], host: str) -> str:
    """Name of this process in reports: a restarted gateway is another one, for its counts begin anew."""
    name = environment.get("HOSTNAME") or host or "gateway"
    plain = "".join(character if character.isalnum() or character in "-." else "-" for character in name)
    return f"{plain[:60]}-{secrets.token_hex(4)}"
