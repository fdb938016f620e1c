"""Replies in the form of OpenAI's API, whole and in events of a stream, with what made them in a field `lcia`."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from components.serving.answering import Part, Wishes
from components.serving.engine import Step
from components.serving.loaded import Loaded, Question

Kind = Literal["chat", "completion"]
DONE = "data: [DONE]\n\n"


@dataclass
class Answered:
    """One of the `n` answers to a request, as far as it came."""

    text: str = ""
    tokens: int = 0
    steps: list[Step] = field(default_factory=list)
    finish: str | None = None

    def add(self, part: Part) -> None:
        """Take a part."""
        self.text += part.text
        self.tokens += part.tokens
        self.steps += part.steps
        self.finish = part.finish or self.finish


@dataclass(frozen=True)
class Reply:
    """Frame of a reply: everything but the texts."""

    kind: Kind
    id: str
    model: str
    loaded: Loaded
    question: Question
    wishes: Wishes
    tokenizer: PreTrainedTokenizerBase
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def facts(self) -> dict[str, Any]:
        """Version, group and route behind the answer."""
        route, contract = self.question.route, self.question.contract
        how = "named" if self.question.named else "exact" if route.exact else "near" if route.group else "none"
        how = "ask" if route.unsure_between else how
        return {
            "version": self.loaded.number,
            "digest": self.loaded.digest,
            "group": contract.group,
            "task": contract.task,
            "route": how,
            "similarity": round(route.similarity, 6),
            "unsure_between": list(route.unsure_between) if route.unsure_between else None,
            "as_evaluated": self.question.is_row and not contract.question and self.wishes.keeps(contract),
            "answer": self.id,
        }

    @property
    def headers(self) -> dict[str, str]:
        """The same for readers of headers."""
        facts = self.facts
        return {
            "lcia-version": str(facts["version"] if facts["version"] is not None else "base"),
            "lcia-group": facts["group"] or "none",
            "lcia-route": facts["route"],
            "lcia-similarity": f"{facts['similarity']:.3f}",
            "lcia-answer": self.id,
        }

    def whole(self, answers: Sequence[Answered]) -> dict[str, Any]:
        """The reply at once."""
        choices = [self._choice(number, each) for number, each in enumerate(answers)]
        return {**self._frame(stream=False), "choices": choices, "usage": self.usage(answers), "lcia": self.facts}

    def event(self, number: int, part: Part) -> str:
        """A part of an answer in a stream."""
        delta: dict[str, Any] = {"content": part.text} if part.text or not part.finish else {}
        logprobs = self._logprobs(part.steps) if part.steps else None
        choice: dict[str, Any] = {"index": number, "logprobs": logprobs, "finish_reason": part.finish}
        choice |= {"delta": delta} if self.kind == "chat" else {"text": part.text}
        return event({**self._frame(stream=True), "choices": [choice]})

    def opening(self, count: int) -> str:
        """First event of a stream: the role of each answer, and what makes them."""
        if self.kind == "completion":
            return event({**self._frame(stream=True), "choices": [], "lcia": self.facts})
        delta = {"role": "assistant", "content": ""}
        choices = [{"index": n, "delta": delta, "logprobs": None, "finish_reason": None} for n in range(count)]
        return event({**self._frame(stream=True), "choices": choices, "lcia": self.facts})

    def closing(self, answers: Sequence[Answered], *, usage: bool) -> str:
        """Last events of a stream."""
        last = event({**self._frame(stream=True), "choices": [], "usage": self.usage(answers)}) if usage else ""
        return last + DONE

    def usage(self, answers: Sequence[Answered]) -> dict[str, int]:
        """Tokens that were read and written."""
        prompt, output = len(self.question.prompt), sum(each.tokens for each in answers)
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}

    def _frame(self, *, stream: bool) -> dict[str, Any]:
        kinds = {"chat": "chat.completion.chunk" if stream else "chat.completion", "completion": "text_completion"}
        digest = self.loaded.digest
        fingerprint = f"lcia-{digest[:12]}" if digest else "lcia-base"
        return {
            "id": self.id,
            "object": kinds[self.kind],
            "created": self.created,
            "model": self.model,
            "system_fingerprint": fingerprint,
        }

    def _choice(self, number: int, each: Answered) -> dict[str, Any]:
        logprobs = None if self.wishes.alternatives is None else self._logprobs(each.steps)
        choice: dict[str, Any] = {"index": number, "logprobs": logprobs, "finish_reason": each.finish}
        if self.kind == "chat":
            return {**choice, "message": {"role": "assistant", "content": each.text, "refusal": None}}
        return {**choice, "text": each.text}

    def _logprobs(self, steps: Sequence[Step]) -> dict[str, Any]:
        if self.kind == "chat":
            content = [
                {**self._token(step.id, step.logprob), "top_logprobs": [self._token(*pair) for pair in step.top]}
                for step in steps
            ]
            return {"content": content, "refusal": None}
        return {
            "tokens": [self._text(step.id) for step in steps],
            "token_logprobs": [step.logprob for step in steps],
            "top_logprobs": [{self._text(token): value for token, value in step.top} for step in steps],
            "text_offset": [],
        }

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = self._text(token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    def _text(self, token: int) -> str:
        return str(self.tokenizer.decode([token]))


def event(value: dict[str, Any]) -> str:
    """A server-sent event with JSON."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
