"""The product's trunk with its ingredients switched off one by one; every variant computes the same loss."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from components.model.adapters import AdapterSlot
from components.model.base import BaseModel
from components.model.packing import Tokens, packs
from components.model.trunk import Progress, State, Trunk

Pass = tuple[Tensor, dict[int, Tensor]]
"""Final hidden states of one forward pass (positions, hidden), and each row's positions in it."""


class SwitchedTrunk(Trunk):
    """A trunk whose ingredients can be switched off.

    `cached` off: all layers run in every step. `answers_only` off: logits at every position. `tree` off: the rows
    of a batch are padded on the right to the longest. With `cached` and `tree` off this is the plain way to train.
    """

    def __init__(self, base: BaseModel, slot: AdapterSlot, *, cached=True, answers_only=True, tree=True) -> None:
        self.cached, self.answers_only, self.tree = cached, answers_only, tree
        super().__init__(base, slot)

    def states(self, rows: Sequence[Tokens], batch_rows: int, progress: Progress | None = None) -> list[State]:
        if self.cached:
            return super().states(rows, batch_rows, progress)
        return [State(tuple(row), None) for row in rows]

    def outputs(self, states: Sequence[State]) -> list[Tensor]:
        out = [torch.empty(0)] * len(states)
        for hidden, places in self._passes(states):
            for row, positions in places.items():
                out[row] = hidden[positions]
        return out

    def answer_logits(self, states: Sequence[State], prompt_lengths: Sequence[int]) -> list[Tensor]:
        out = [torch.empty(0)] * len(states)
        for hidden, places in self._passes(states):
            picked = [positions[prompt_lengths[row] - 1 : -1] for row, positions in places.items()]
            index = torch.cat(picked)
            logits = self.head(hidden[index]) if self.answers_only else self.head(hidden)[index]
            for row, values in zip(places, logits.float().split([len(p) for p in picked]), strict=True):
                out[row] = values
        return out

    def _passes(self, states: Sequence[State]) -> Iterator[Pass]:
        if not self.tree:
            yield self._padded(states)
            return
        rows = [state.tokens for state in states]
        if not self.cached:
            states = super().states(rows, len(rows))
        for pack in packs(rows):
            fresh = [states[row].output[start:] for row, start in zip(pack.rows, pack.fresh, strict=True)]
            embeds = torch.cat(fresh)[None].to(self.base.model.dtype)
            yield (
                self._run(self._upper, pack, None, inputs_embeds=embeds),
                dict(zip(pack.rows, pack.paths, strict=True)),
            )

    def _padded(self, states: Sequence[State]) -> Pass:
        """Causal attention needs no mask for padding on the right: nothing before it sees it."""
        if self.cached:
            embeds = nn.utils.rnn.pad_sequence([s.output for s in states], batch_first=True)
            final = self._upper(inputs_embeds=embeds, use_cache=False).last_hidden_state
        else:
            ids = nn.utils.rnn.pad_sequence([torch.tensor(s.tokens) for s in states], batch_first=True)
            final = self._decoder(input_ids=ids, use_cache=False).last_hidden_state
        width = final.shape[1]
        places = {i: torch.arange(i * width, i * width + len(s.tokens)) for i, s in enumerate(states)}
        return final.flatten(0, 1), places


@torch.no_grad()
def padded_lower_pass(trunk: Trunk, rows: Sequence[Tokens], batch_rows: int) -> None:
    """States as `Trunk.states` computes them, on padded batches in the order given."""
    for start in range(0, len(rows), batch_rows):
        batch = [torch.tensor(row) for row in rows[start : start + batch_rows]]
        trunk._lower(input_ids=nn.utils.rnn.pad_sequence(batch, batch_first=True), use_cache=False)  # noqa: SLF001
