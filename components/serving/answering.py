"""One answer to a question that was routed, part by part: the same on every engine, under the contract of its task."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from components.model.prompts import Reader, answer_tokens, control_of
from components.serving.contract import Contract
from components.serving.engine import GREEDY, Engine, Job, NotAbleTo, Sampling, Step
from components.serving.loaded import Question
from components.serving.text_stream import TextStream


@dataclass(frozen=True)
class Wishes:
    """Deviations from the contract that a caller asks for; none by default."""

    limit: int | None = None
    """Most tokens of the answer; None: the contract's."""
    sampling: Sampling = GREEDY
    stops: tuple[str, ...] = ()
    alternatives: int | None = None
    """Alternatives to report for each token; None: no log-probabilities."""

    @property
    def greedy(self) -> bool:
        """True if two answers to the same question are the same."""
        return self.sampling.temperature == 0

    def keeps(self, contract: Contract) -> bool:
        """True if the answer is the one that the contract fixes."""
        return self.greedy and not self.stops and self.limit in {None, contract.decoding.max_new_tokens}


@dataclass(frozen=True)
class Part:
    """Part of an answer; the last one says why it ended."""

    text: str
    tokens: int = 0
    """Tokens behind it."""
    steps: tuple[Step, ...] = ()
    """The same tokens, if log-probabilities were asked for."""
    finish: Literal["stop", "length"] | None = None


async def answer(engine: Engine, reader: Reader, question: Question, wishes: Wishes) -> AsyncGenerator[Part, None]:
    """Parts of an answer as they come.

    Raises:
        NotAbleTo: the task chooses among answers, and the caller asks for what only generated ones have.
        EngineDown: see `Engine.generate`.
    """
    contract, control = question.contract, control_of(reader)
    if contract.question:
        yield Part(contract.question, finish="stop")
        return
    if contract.choices:
        yield await _choice(engine, reader, question, wishes)
        return
    limit = wishes.limit or contract.decoding.max_new_tokens
    job = Job(question.prompt, contract.adapter, limit, control.ends, wishes.sampling, wishes.alternatives)
    text, count = TextStream(control.tokenizer, wishes.stops), 0
    async with aclosing(engine.generate(job)) as steps:
        async for step in steps:
            count += 1
            part = text.push(step.id)
            yield Part(part, 1, () if wishes.alternatives is None else (step,))
            if text.stopped:
                break
    yield Part(text.end(), finish="length" if count == limit and not text.stopped else "stop")


async def _choice(engine: Engine, reader: Reader, question: Question, wishes: Wishes) -> Part:
    contract = question.contract
    if not wishes.greedy or wishes.stops or wishes.alternatives is not None:
        raise NotAbleTo(
            f"task {contract.task} chooses the likeliest of its answers, so temperature, stop and logprobs mean "
            "nothing: leave them out"
        )
    answers: Sequence[tuple[int, ...]] = [answer_tokens(reader, choice) for choice in contract.choices]
    job = Job(question.prompt, contract.adapter, 1, control_of(reader).ends)
    choice = contract.choose(await engine.likelihoods(job, answers), answers)
    return Part(choice.strip(), len(answers[contract.choices.index(choice)]), finish="stop")
