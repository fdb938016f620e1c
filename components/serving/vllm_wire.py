"""Requests to vLLM and the reading of its answers: token ids go there and come back, so that no text is rendered twice.

Every field that shapes the choice of tokens is sent, whatever the server's own defaults are. Answers are data from
another program: read by types, bounded by the caller, refused if they are anything else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from components.errors import LciaError
from components.serving.engine import Job, Step
from components.visible import visible

COMPLETIONS, MODELS = "/v1/completions", "/v1/models"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
HEALTH, METRICS, VERSION = "/health", "/metrics", "/version"
WAITING = "vllm:num_requests_waiting{"
"""Begin of the lines of vLLM's metrics that count the requests in its queue."""
PLAIN = {
    "n": 1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "min_tokens": 0,
    "add_special_tokens": False,
    "skip_special_tokens": False,
}
"""Fields of every request: without them vLLM takes its own defaults, or those of the base model's generation config."""
PREFIX = "token_id:"
"""Begin of a token's name where vLLM names it by its id."""
SHOWN = 300
"""Most characters of a message of vLLM that are quoted."""

Tokens: TypeAlias = tuple[int, ...]
Id = Annotated[int, Field(ge=0)]


class AnswerUnreadable(LciaError):
    """An answer that is none of vLLM's, or breaks what was asked for."""


class _Card(BaseModel):
    id: str
    parent: str | None = None
    max_model_len: int | None = None


class _Cards(BaseModel):
    data: list[_Card]


class _Logprobs(BaseModel):
    token_logprobs: list[FiniteFloat | None]
    top_logprobs: list[dict[str, FiniteFloat] | None]


class _Choice(BaseModel):
    index: int
    token_ids: list[Id]
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Chunk(BaseModel):
    choices: list[_Choice]


class _Error(BaseModel):
    message: str


class _Refusal(BaseModel):
    error: _Error


class _Version(BaseModel):
    version: str


AnyAnswer = TypeVar("AnyAnswer", bound=BaseModel)


@dataclass(frozen=True)
class Served:
    """Models of a server: the base model's name there, the most tokens of prompt and answer, names of adapters."""

    base: str
    room: int
    adapters: frozenset[str]


@dataclass(frozen=True)
class Fragment:
    """Next tokens of an answer, the end token left out; `ended` with the last ones."""

    steps: tuple[Step, ...]
    ended: bool


def completion(job: Job, model: str) -> dict[str, Any]:
    """Body of the request that generates an answer, as a stream."""
    sampling = job.sampling
    body = {
        **PLAIN,
        "model": model,
        "prompt": list(job.prompt),
        "max_tokens": job.limit,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "ignore_eos": True,
        "stop_token_ids": list(job.ends),
        "return_token_ids": True,
        "stream": True,
    }
    if job.logprobs is not None:
        body |= {"logprobs": job.logprobs, "return_tokens_as_token_ids": True}
    return body


def edges(answers: Sequence[Tokens]) -> dict[int, list[Tokens]]:
    """Beginnings of `answers` that each of their tokens follows, each once."""
    out: dict[int, dict[Tokens, None]] = {}
    for answer in answers:
        for place, token in enumerate(answer):
            out.setdefault(token, {})[answer[:place]] = None
    return {token: list(starts) for token, starts in out.items()}


def reading(job: Job, token: int, starts: Sequence[Tokens], model: str) -> dict[str, Any]:
    """Body of the request for the log-probability of a token behind the prompt and each of `starts`.

    The token is the only one allowed; vLLM reports the log-probability that it had before that rule. One request with
    `prompt_logprobs` would do for all, but with LoRA vLLM 0.32.0 dies of it once two rows are under way (on the CPU;
    vllm-project/vllm#16668, #29955).
    """
    return {
        **PLAIN,
        "model": model,
        "prompt": [[*job.prompt, *start] for start in starts],
        "max_tokens": 1,
        "temperature": 0.0,
        "top_p": 1.0,
        "ignore_eos": True,
        "allowed_token_ids": [token],
        "logprobs": 0,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "stream": False,
    }


def served(content: bytes) -> Served:
    """Models that a server names.

    Raises:
        AnswerUnreadable: it names no base model.
    """
    cards = _parse(_Cards, content, MODELS).data
    base = next((card for card in cards if card.parent is None), None)
    if base is None or base.max_model_len is None:
        raise AnswerUnreadable(f"{MODELS} names no base model with its max_model_len; is it a vLLM server?")
    return Served(base.id, base.max_model_len, frozenset(card.id for card in cards if card.parent is not None))


def fragment(content: bytes, job: Job, count: int) -> Fragment:
    """Tokens of one event of a stream, in which `count` tokens came before.

    Raises:
        AnswerUnreadable: the server failed on the way, or does not keep to the job.
    """
    choices = _parse(_Chunk, content, COMPLETIONS).choices
    if not choices:
        return Fragment((), ended=False)
    choice = choices[0]
    ids, reason = choice.token_ids, choice.finish_reason
    steps = _steps(choice, job)
    if reason is None and count + len(ids) <= job.limit:
        return Fragment(steps, ended=False)
    if reason == "stop" and ids and ids[-1] in job.ends and count + len(ids) <= job.limit:
        return Fragment(steps[:-1], ended=True)
    if reason == "length" and count + len(ids) == job.limit:
        return Fragment(steps, ended=True)
    raise AnswerUnreadable(
        f"an answer ended with {visible(str(reason))[:40]!r} after {count + len(ids)} tokens; expected token "
        f"{' or '.join(map(str, job.ends))}, or {job.limit} tokens. "
        "Start vLLM as docs/gateway.md says, without limits of its own"
    )


def logprobs(content: bytes, token: int, count: int) -> list[float]:
    """Log-probabilities of the token in the `count` places that were asked for.

    Raises:
        AnswerUnreadable: the server did not report them all.
    """
    rows = {choice.index: choice for choice in _parse(_Chunk, content, COMPLETIONS).choices}
    out = []
    for index in range(count):
        row = rows.get(index)
        value = row.logprobs.token_logprobs[:1] if row and row.token_ids == [token] and row.logprobs else []
        if not value or value[0] is None:
            raise AnswerUnreadable(f"vLLM reported no log-probability of token {token} in row {index} of {count}")
        out.append(value[0])
    return out


def version(content: bytes) -> str:
    """The server's version, at most 40 plain characters.

    Raises:
        AnswerUnreadable: it names none.
    """
    return visible(_parse(_Version, content, VERSION).version)[:40]


def waiting(content: bytes) -> int | None:
    """Requests in vLLM's queue, of all its engines; None if its metrics do not say."""
    try:
        lines = [line for line in content.decode().splitlines() if line.startswith(WAITING)]
        return int(sum(float(line.rpartition(" ")[2]) for line in lines)) if lines else None
    except (ValueError, OverflowError):
        return None


def refusal(content: bytes) -> str:
    """The reason that vLLM gives for a refusal, cut and made safe to show; empty if it gives none."""
    try:
        return visible(_Refusal.model_validate_json(content).error.message)[:SHOWN]
    except ValidationError:
        return ""


def _parse(kind: type[AnyAnswer], content: bytes, path: str) -> AnyAnswer:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        reason = refusal(content) or f"{error.error_count()} fields are not as expected"
        raise AnswerUnreadable(f"{path} answered something else than vLLM does: {reason}") from error


def _steps(choice: _Choice, job: Job) -> tuple[Step, ...]:
    if job.logprobs is None:
        return tuple(Step(token) for token in choice.token_ids)
    values = choice.logprobs
    if values is None or not len(choice.token_ids) == len(values.token_logprobs) == len(values.top_logprobs):
        raise AnswerUnreadable("vLLM sent tokens without the log-probabilities that were asked for")
    rows = zip(choice.token_ids, values.token_logprobs, values.top_logprobs, strict=True)
    return tuple(Step(token, value, _top(top or {}, job.logprobs)) for token, value, top in rows)


def _top(top: dict[str, float], count: int) -> tuple[tuple[int, float], ...]:
    """The likeliest `count` tokens; vLLM adds the chosen one, likely or not, and names each by its id."""
    try:
        pairs = [(int(name.removeprefix(PREFIX)), value) for name, value in top.items()]
    except ValueError as error:
        raise AnswerUnreadable("vLLM named a token by its text, expected its id") from error
    return tuple(sorted(pairs, key=lambda pair: -pair[1])[:count])
