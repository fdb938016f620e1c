"""Decoding of one answer token by token, for streams; greedy decoding as in `generation.generate_greedy`."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.generation import TopPLogitsWarper

from components.model.generation import left_padded, next_logits
from components.model.vision import Sight

COLDEST = 1e-5
"""Smallest temperature to divide by: colder ones take the likeliest token just as well, and overflow."""


@dataclass(frozen=True)
class Decoded:
    """One token, its log-probability under the model, and the likeliest tokens in its place with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@torch.no_grad()
def decode(
    model: PreTrainedModel,
    prompt: Sequence[int],
    limit: int,
    ends: Collection[int],
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    alternatives: int = 0,
    sight: Sight | None = None,
) -> Iterator[Decoded]:
    """Tokens of an answer, as they are decoded, until one of `ends` (left out) or `limit` of them.

    Temperature 0 takes the likeliest token; else one is drawn, with `seed`, from the smallest set whose share reaches
    `top_p`. Each step reads the adapter that is in the slot then: it must be the same at all of them. A prompt with
    images needs the model's `sight`.
    """
    generator = _generator(model.device, seed)
    cache, position = DynamicCache(), len(prompt)
    if sight and Sight.opening_length(prompt):
        logits, position = sight.logits(prompt, cache), sight.position(prompt)
    else:
        logits = next_logits(model, *left_padded([prompt], model.device), cache)[0]
    for count in range(limit):
        token = _pick(logits, temperature, top_p, generator)
        if token in ends:
            return
        yield _step(logits, token, alternatives)
        if count + 1 < limit:
            ids, at = (torch.tensor([[number]], device=model.device) for number in (token, position + count))
            mask = torch.ones(1, len(prompt) + count + 1, dtype=torch.long, device=model.device)
            logits = next_logits(model, ids, mask, at, cache)[0]


def _generator(device: torch.device, seed: int | None) -> torch.Generator:
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed % 2**63)
    return generator


def _pick(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.float().topk(2).indices[0])  # of equals the one that evaluation takes
    scores = (logits.float() - logits.max())[None] / max(temperature, COLDEST)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(torch.empty(0), scores)
    return int(torch.multinomial(scores.softmax(-1)[0], 1, generator=generator))


def _step(logits: Tensor, token: int, alternatives: int) -> Decoded:
    values = logits.float().log_softmax(-1)
    top = values.topk(alternatives) if alternatives else None
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True) if top else ()
    return Decoded(token, float(values[token]), tuple(pairs))
