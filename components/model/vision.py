"""What the decoder of a multimodal base model is given where a prompt shows images.

The model itself says it: its own forward pass is run up to the decoder and stopped there, so every architecture that
puts images among the tokens is read alike. Only the tokens up to the last image token (the opening) can differ from
plain text; openings are remembered, since rows about one image begin alike.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from components.model.reader import FIRST, ImageReader, on_device

OPENING_BYTES = 2**30
"""Most memory that remembered openings may take."""


@dataclass(frozen=True)
class Opening:
    """What the decoder is given for the first tokens of a row, up to its last image token.

    `hidden` (tokens, width); `positions` (axes, tokens) where the architecture counts places in its own way, else None;
    `mutual` (tokens, tokens) marks pairs that see each other whatever their order, None where there are none.
    """

    hidden: Tensor
    positions: Tensor | None
    mutual: Tensor | None

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.hidden)

    def position(self, place: int) -> int:
        """Where the architecture counts the token at `place` behind the opening."""
        if self.positions is None:
            return place
        return int(self.positions.max()) + 1 + place - self.length


class _Reached(Exception):
    """Carries what the decoder was called with out of the model's forward pass."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given


class Sight:
    """The vision side of one loaded base model."""

    def __init__(self, model: PreTrainedModel, reader: ImageReader) -> None:
        self.model, self.reader = model, reader
        self.trained = False
        """True while what makes hidden states of images is trained or differs by adapter: nothing is remembered."""
        self._inner: nn.Module = model.base_model
        self._takes = signature(type(self._inner).forward).parameters.keys()
        self._openings: OrderedDict[tuple[int, ...], Opening] = OrderedDict()
        self._bytes = 0

    @staticmethod
    def shown(tokens: Sequence[int]) -> int:
        """Tokens up to the last image token; 0 where a row shows none."""
        return next((place for place in range(len(tokens), 0, -1) if tokens[place - 1] >= FIRST), 0)

    def opening(self, tokens: Sequence[int]) -> Opening | None:
        """The opening of a row, None where it shows no image; differentiable while `trained`."""
        length = self.shown(tokens)
        if length == 0:
            return None
        key = tuple(tokens[:length])
        if key in self._openings and not self.trained:
            self._openings.move_to_end(key)
            return self._openings[key]
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            made = self._opening(key)
        if not self.trained:
            self._remember(key, made)
        return made

    def whole(self, tokens: Sequence[int]) -> Tensor:
        """Final hidden states (tokens, width) of a row by the model's own forward pass."""
        hidden: Tensor = self._inner(**self._inputs(tokens)).last_hidden_state[0]
        return hidden

    def logits(self, tokens: Sequence[int], cache: DynamicCache) -> Tensor:
        """Logits of the token after a row, by the model's own forward pass; `cache` takes up what was read."""
        given = {**self._inputs(tokens), "past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        logits: Tensor = self.model(**given).logits[0, -1]
        return logits

    def position(self, tokens: Sequence[int]) -> int:
        """Where the architecture counts the token after a row."""
        opening = self.opening(tokens)
        return len(tokens) if opening is None else opening.position(len(tokens))

    def forget(self) -> None:
        """Drop what is remembered."""
        self._openings.clear()
        self._bytes = 0

    def _inputs(self, tokens: Sequence[int]) -> dict[str, Tensor]:
        ids = torch.tensor([self.reader.plain(tokens)], device=self.model.device)
        images = self.reader.inputs(tokens)
        given = {"input_ids": ids, **on_device(images, self.model.device, self.model.dtype)}
        kinds = (ids == self.reader.image_token).long()
        return given | {name: kinds for name in ("token_type_ids", "mm_token_type_ids") if name in self._takes}

    def _opening(self, tokens: tuple[int, ...]) -> Opening:
        with _stopped(self.model.get_decoder()):
            try:
                self._inner(**self._inputs(tokens))
            except _Reached as reached:
                given = reached.given
        counted: Tensor | None = given.get("position_ids")
        positions = counted[:, 0] if counted is not None and counted.ndim == 3 else None
        return Opening(given["inputs_embeds"][0], positions, _mutual(given.get("attention_mask")))

    def _remember(self, key: tuple[int, ...], made: Opening) -> None:
        self._openings[key] = made
        self._bytes += made.hidden.nbytes
        while self._bytes > OPENING_BYTES and len(self._openings) > 1:
            _, old = self._openings.popitem(last=False)
            self._bytes -= old.hidden.nbytes


@contextmanager
def _stopped(decoder: nn.Module) -> Any:  # noqa: ANN401 - a context manager
    def stop(_: nn.Module, __: object, given: dict[str, Any]) -> NoReturn:
        raise _Reached(given)

    handle = decoder.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _mutual(mask: Tensor | Mapping[str, Tensor | None] | None) -> Tensor | None:
    """Pairs above the diagonal that a mask lets see each other."""
    found = mask.get("full_attention") if isinstance(mask, Mapping) else mask
    if found is None or found.ndim != 4:
        return None
    seen = found[0, 0] if found.dtype == torch.bool else found[0, 0] == 0
    above = seen.triu(1)
    return above if bool(above.any()) else None
