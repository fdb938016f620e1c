"""The frozen trunk: everything below the first adapted layer is a function of the example alone.

`Trunk.states` computes its output once per example; every epoch, rule and evaluation reuses it.
Rows that begin with the same tokens (system line and instruction) share the computation of that
prefix. Equal to the whole model within float tolerance; never evidence, gone with the process.

An architecture that cannot be split so (no Llama-like decoder, or a split that changes its output) runs
whole each time: slower, otherwise the same.
"""

import copy
import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from components.model.adapters import AdapterSlot
from components.model.base import BaseModel

logger = logging.getLogger(__name__)

Tokens = Sequence[int]
Progress = Callable[[int], None]


class Trunk:
    """The base model split at the first adapted layer.

    `states(rows)` runs the lower part; `hidden(states)` the upper part, with whatever adapter is in the slot.
    Where `split` is False the states are the token ids, and `hidden` runs the whole model.
    """

    def __init__(self, base: BaseModel, slot: AdapterSlot) -> None:
        decoder = base.model.get_decoder()
        layers: Any = getattr(decoder, "layers", None)
        self.base = base
        self.head = base.model.get_output_embeddings()
        self._decoder = decoder
        self.split = isinstance(layers, nn.ModuleList) and hasattr(decoder, "norm")
        if self.split:
            self._lower = _view(decoder, layers[: slot.first_layer], nn.Identity())
            self._upper = _view(decoder, layers[slot.first_layer :], decoder.norm)
            self.split = self._is_exact()
        if not self.split:
            logger.warning("%s has no trunk that can be cached; every pass runs all layers", type(decoder).__name__)

    @torch.no_grad()
    def states(self, rows: Sequence[Tokens], batch_rows: int, progress: Progress | None = None) -> list[Tensor]:
        """Trunk output per row, each (length, hidden); rows are processed in deterministic batches."""
        if not self.split:
            return [torch.tensor(list(row), device=self.base.device) for row in rows]
        out: list[Tensor] = [torch.empty(0)] * len(rows)
        for prefix, members in shared_prefixes(rows):
            cache = self._prefix_states(rows[members[0]][:prefix]) if prefix else None
            ordered = sorted(members, key=lambda i: (len(rows[i]), i))
            for start in range(0, len(ordered), batch_rows):
                batch = ordered[start : start + batch_rows]
                for index, state in zip(batch, self._batch(rows, batch, prefix, cache), strict=True):
                    out[index] = state
                if progress:
                    progress(len(batch))
        return out

    def hidden(self, states: Sequence[Tensor]) -> Tensor:
        """Final normalised hidden states of a right-padded batch (batch, longest, hidden); differentiable."""
        padded = nn.utils.rnn.pad_sequence(list(states), batch_first=True)
        if self.split:
            result = self._upper(inputs_embeds=padded.to(self.base.model.dtype), use_cache=False)
        else:
            result = self._decoder(input_ids=padded, use_cache=False)
        hidden: Tensor = result.last_hidden_state
        return hidden

    def answer_logits(self, states: Sequence[Tensor], prompt_lengths: Sequence[int]) -> list[Tensor]:
        """Logits that predict each answer token, per row (answer length, vocabulary).

        The state at the prompt's last token predicts the first answer token.
        """
        hidden = self.hidden(states)
        spans = [(p - 1, len(s) - 1) for p, s in zip(prompt_lengths, states, strict=True)]
        picked = torch.cat([hidden[i, a:b] for i, (a, b) in enumerate(spans)])
        logits: Tensor = self.head(picked).float()
        return list(torch.split(logits, [b - a for a, b in spans]))

    @torch.no_grad()
    def _prefix_states(self, tokens: Tokens) -> tuple[Tensor, DynamicCache]:
        cache = DynamicCache()
        ids = torch.tensor([list(tokens)], device=self.base.device)
        state = self._lower(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
        return state[0], cache

    @torch.no_grad()
    def _batch(
        self,
        rows: Sequence[Tokens],
        batch: list[int],
        prefix: int,
        cached: tuple[Tensor, DynamicCache] | None,
    ) -> list[Tensor]:
        tails = [torch.tensor(list(rows[i][prefix:])) for i in batch]
        ids = nn.utils.rnn.pad_sequence(tails, batch_first=True).to(self.base.device)
        if cached is None:
            lower = self._lower(input_ids=ids, use_cache=False).last_hidden_state
            return [lower[j, : len(tail)].clone() for j, tail in enumerate(tails)]
        head, cache = cached
        cache = copy.deepcopy(cache)
        cache.batch_repeat_interleave(len(batch))
        lower = self._lower(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
        return [torch.cat([head, lower[j, : len(tail)]]) for j, tail in enumerate(tails)]

    @torch.no_grad()
    def _is_exact(self) -> bool:
        ids = torch.arange(3, 19, device=self.base.device)[None] % self.base.model.config.vocab_size
        whole = self._decoder(input_ids=ids, use_cache=False).last_hidden_state.float()
        split = self.hidden(self.states([ids[0].tolist()], 1)).float()
        return bool((whole - split).abs().max() <= 0.02 * whole.abs().max())


def shared_prefixes(rows: Sequence[Tokens], key_tokens: int = 24, least: int = 8) -> Iterator[tuple[int, list[int]]]:
    """Groups of rows with the length of their longest common prefix (0: too short to be worth it).

    Rows are bucketed by their first `key_tokens` tokens; each row belongs to exactly one group, and
    at least one token per row stays outside the prefix.
    """
    buckets: dict[Hashable, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        buckets[tuple(row[:key_tokens])].append(index)
    alone: list[int] = []
    for members in buckets.values():
        if len(members) < 4:
            alone += members
            continue
        shortest = min(len(rows[i]) for i in members) - 1
        columns = zip(*(rows[i][:shortest] for i in members), strict=True)
        length = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
        yield (length if length >= least else 0), members
    if alone:
        yield 0, alone


def _view(decoder: nn.Module, layers: nn.ModuleList, norm: nn.Module) -> nn.Module:
    """A decoder that shares every weight but runs only `layers` and `norm`."""
    view = copy.copy(decoder)
    view._modules = {**decoder._modules, "layers": layers, "norm": norm}  # noqa: SLF001 - nn.Module's own shallow copy
    config: Any = getattr(decoder, "config", None)
    if config is not None:
        shorter = copy.copy(config)
        shorter.num_hidden_layers = len(layers)
        view.config = shorter
    return view
