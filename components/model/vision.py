"""Decoder inputs of a multimodal base model for prompts that show images.

They come from the model itself: its own forward pass is run up to the decoder and stopped there, so every architecture
that puts images among the tokens is read alike. Only the tokens up to the last image token (the opening) can differ
from plain text; openings are remembered, since rows about one image begin alike.
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
    """Decoder inputs for the first tokens of a row, up to its last image token.

    `inputs` (tokens, width); `positions` (axes, tokens) if the architecture counts positions in its own way, else None;
    `mutual` (tokens, tokens) marks pairs that see each other whatever their order, None without any.
    """

    inputs: Tensor
    positions: Tensor | None
    mutual: Tensor | None

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.inputs)

    def position(self, place: int) -> int:
        """Position of the token at `place` behind the opening, as the architecture counts."""
        if self.positions is None:
            return place
        return int(self.positions.max()) + 1 + place - self.length


class _Reached(Exception):
    """Carries what the decoder was called with out of the model's forward pass."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments


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
    def opening_length(tokens: Sequence[int]) -> int:
        """Number of tokens up to the last image token; 0 if a row shows none."""
        return next((place for place in range(len(tokens), 0, -1) if tokens[place - 1] >= FIRST), 0)

    def opening(self, tokens: Sequence[int]) -> Opening | None:
        """The opening of a row, None if it shows no image; differentiable while `trained`."""
        length = self.opening_length(tokens)
        if length == 0:
            return None
        key = tuple(tokens[:length])
        if key in self._openings and not self.trained:
            self._openings.move_to_end(key)
            return self._openings[key]
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            opening = self._opening(key)
        if not self.trained:
            self._remember(key, opening)
        return opening

    def whole(self, tokens: Sequence[int]) -> Tensor:
        """Final hidden states (tokens, width) of a row by the model's own forward pass."""
        output: Tensor = self._inner(**self._inputs(tokens)).last_hidden_state[0]
        return output

    def logits(self, tokens: Sequence[int], cache: DynamicCache) -> Tensor:
        """Logits of the token after a row, by the model's own forward pass; `cache` takes up what was read."""
        arguments = {**self._inputs(tokens), "past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        logits: Tensor = self.model(**arguments).logits[0, -1]
        return logits

    def position(self, tokens: Sequence[int]) -> int:
        """Position of the token after a row, as the architecture counts."""
        opening = self.opening(tokens)
        return len(tokens) if opening is None else opening.position(len(tokens))

    def forget(self) -> None:
        """Drop what is remembered."""
        self._openings.clear()
        self._bytes = 0

    def _inputs(self, tokens: Sequence[int]) -> dict[str, Tensor]:
        ids = torch.tensor([self.reader.plain(tokens)], device=self.model.device)
        images = self.reader.inputs(tokens)
        arguments = {"input_ids": ids, **on_device(images, self.model.device, self.model.dtype)}
        kinds = (ids == self.reader.image_token).long()
        return arguments | {name: kinds for name in ("token_type_ids", "mm_token_type_ids") if name in self._takes}

    def _opening(self, tokens: tuple[int, ...]) -> Opening:
        with _stop_before(self.model.get_decoder()):
            try:
                self._inner(**self._inputs(tokens))
            except _Reached as reached:
                arguments = reached.arguments
        numbers: Tensor | None = arguments.get("position_ids")
        positions = numbers[:, 0] if numbers is not None and numbers.ndim == 3 else None
        return Opening(arguments["inputs_embeds"][0], positions, _mutual(arguments.get("attention_mask")))

    def _remember(self, key: tuple[int, ...], opening: Opening) -> None:
        self._openings[key] = opening
        self._bytes += opening.inputs.nbytes
        while self._bytes > OPENING_BYTES and len(self._openings) > 1:
            _, old = self._openings.popitem(last=False)
            self._bytes -= old.inputs.nbytes


@contextmanager
def _stop_before(decoder: nn.Module) -> Any:  # noqa: ANN401 - a context manager
    def stop(_: nn.Module, __: object, arguments: dict[str, Any]) -> NoReturn:
        raise _Reached(arguments)

    handle = decoder.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _mutual(mask: Tensor | Mapping[str, Tensor | None] | None) -> Tensor | None:
    """Pairs above the diagonal that a mask lets see each other."""
    pairs = mask.get("full_attention") if isinstance(mask, Mapping) else mask
    if pairs is None or pairs.ndim != 4:
        return None
    visible = pairs[0, 0] if pairs.dtype == torch.bool else pairs[0, 0] == 0
    above = visible.triu(1)  # below the diagonal every token sees what stands before it anyway
    return above if bool(above.any()) else None
