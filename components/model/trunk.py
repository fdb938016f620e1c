"""The frozen trunk: layers below the first adapter are a function of the example alone.

`Trunk.states` computes its output once per example; every epoch, rule and evaluation reuses it. Rows of a
batch are merged into one prefix tree of tokens, so what they share (system line, instruction, the prompt of
several answers) is computed once, and nothing is padding. Equal to the whole model within float
tolerance; never evidence, gone with the process.

On request a pass also hands out its keys and values (`Past`), so that a row can be decoded from its last token instead
of being read again.

Images enter at the bottom, so a row that shows some is split as any other: what the lower layers make of its image
tokens is remembered with the rest. If the projector is trained it depends on the adapter, and with adapters on all
layers it is the images' features alone, of which `Sight` keeps what fits: such rows are read from the bottom each time.
So is every row if the base is spread over processes, which must run the same layers in step.

An architecture that cannot be split (no Llama-like decoder, or a split that changes its output) runs
whole each time: slower, otherwise the same.

Layers with a sliding window see only the tokens that are less than a window back. In a pack they stand at other places
than in their row, so the window goes by positions in the row.
"""

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer

from components.model.adapters import AdapterSlot
from components.model.base import BaseModel, BaseModelError
from components.model.packing import Pack, Tokens, batches_of_similar, packs
from components.model.prompts import render
from components.model.reader import FIRST
from components.model.vision import Opening, Sight
from components.storage.objects import digest_of
from components.tasks.images import Picture

logger = logging.getLogger(__name__)

Progress = Callable[[int], None]

SAMPLES = ("Name the river that flows through the town.", "Count the apples that are left in the basket.")
"""Instructions on which a split is compared with the whole."""
BEYOND = 32
"""Tokens by which a row on which a split is compared exceeds the model's longest window."""
FULL, SLIDING = "full_attention", "sliding_attention"
"""Kinds of layers, as transformers names them."""
AGAIN = partial(checkpoint, use_reentrant=False)


@dataclass(frozen=True)
class Past:
    """Keys and values of one row: by layer those of its whole pack (heads, tokens, width), and its places in them."""

    layers: Mapping[int, tuple[Tensor, Tensor]]
    path: Tensor


@dataclass(frozen=True)
class State:
    """Trunk output of one row: its token ids and, if the base model is split, a tensor (length, width)."""

    tokens: tuple[int, ...]
    output: Tensor | None
    past: Past | None = None


def memory(states: Iterable[State]) -> int:
    """Bytes of the states; what the rows of a pack share counts once."""
    tensors = {id(s.output): s.output for s in states if s.output is not None}
    tensors |= {id(t): t for s in states if s.past for pair in s.past.layers.values() for t in pair}
    return sum(tensor.nbytes for tensor in tensors.values())


class Trunk:
    """The base model split at the first adapted layer.

    `states(rows)` runs the lower part; `answer_logits(states, ...)` the upper part, with whatever adapter is in
    the slot. Where `split` is False the states are token ids alone, and the whole model runs each time.
    """

    def __init__(self, base: BaseModel, slot: AdapterSlot) -> None:
        decoder = base.model.get_decoder()
        layers: Any = getattr(decoder, "layers", None)
        self.base = base
        self.head = base.model.get_output_embeddings()
        self._decoder = decoder
        self._windows = windows(decoder)
        self.split = isinstance(layers, nn.ModuleList) and hasattr(decoder, "norm") and self._windows is not None
        self.keeps_images = slot.first_layer > 0 and not slot.projector
        if base.sight:
            base.sight.forget()
            base.sight.trained = slot.projector
        if self.split:
            self._lower = _view(decoder, 0, slot.first_layer, nn.Identity())
            self._upper = _view(decoder, slot.first_layer, len(layers), decoder.norm)
            self.split = self._is_exact()
        if not self.split:
            logger.warning("%s has no trunk that can be cached; every pass runs all layers", type(decoder).__name__)

    @torch.no_grad()
    def states(
        self, rows: Sequence[Tokens], batch_rows: int, progress: Progress | None = None, *, keep_past: bool = False
    ) -> list[State]:
        """Trunk output per row, on request with keys and values; rows are processed in deterministic batches."""
        out = [State(tuple(row), None) for row in rows]
        if not self.split or self.base.is_sharded:
            return out
        cacheable = [i for i, row in enumerate(rows) if self.keeps_images or not Sight.opening_length(row)]
        for batch in batches_of_similar([rows[i] for i in cacheable], batch_rows):
            batch = [cacheable[i] for i in batch]  # noqa: PLW2901 - places among all rows
            for pack in packs([rows[i] for i in batch]):
                cache = DynamicCache() if keep_past else None
                lower = self._read(pack, cache)
                layers = _layers(cache)
                for place, path in zip(pack.rows, pack.paths, strict=True):
                    index = batch[place]
                    out[index] = State(tuple(rows[index]), lower[path], Past(layers, path) if keep_past else None)
            if progress:
                progress(len(batch))
        return out

    def answer_logits(
        self, states: Sequence[State], prompt_lengths: Sequence[int], pasts: list[Past] | None = None
    ) -> list[Tensor]:
        """Logits that predict each answer token, per row (answer length, vocabulary); differentiable.

        The state at the prompt's last token predicts the first answer token. `pasts` is filled as by `outputs`.
        """
        outputs = self.outputs(states, pasts)
        spans = [(p - 1, len(h) - 1) for p, h in zip(prompt_lengths, outputs, strict=True)]
        answers = torch.cat([h[a:b] for h, (a, b) in zip(outputs, spans, strict=True)])
        logits: Tensor = self.head(answers).float()
        return list(torch.split(logits, [b - a for a, b in spans]))

    def outputs(self, states: Sequence[State], pasts: list[Past] | None = None) -> list[Tensor]:
        """Final normalised hidden states per row (length, hidden); differentiable.

        `pasts` gets, row by row, the keys and values of the layers above the trunk.
        """
        if not self.split:
            return self._whole(states)
        out: list[Tensor] = [torch.empty(0)] * len(states)
        parts: dict[int, Past] = {}
        for read in (False, True):  # rows whose trunk output is known, then those that are read from the bottom
            members = [i for i, state in enumerate(states) if (state.output is None) is read]
            for pack in packs([states[i].tokens for i in members]):
                cache = DynamicCache() if pasts is not None else None
                if read:
                    lower = self._read(pack, cache)
                else:
                    pairs = zip(pack.rows, pack.fresh, strict=True)
                    lower = torch.cat([_output(states[members[row]])[start:] for row, start in pairs])
                upper = self._run(self._upper, pack, cache, inputs_embeds=lower[None].to(self.base.model.dtype))
                layers = _layers(cache)
                for row, path in zip(pack.rows, pack.paths, strict=True):
                    out[members[row]] = upper[path]
                    parts[members[row]] = Past(layers, path)
        if pasts is not None:
            pasts.extend(parts[row] for row in range(len(states)))
        return out

    @contextmanager
    def recomputing(self, *, active: bool) -> Iterator[None]:
        """Passes within the block keep only what went into each adapted layer; gradients compute the rest again.

        Raises:
            BaseModelError: the architecture's layers can't.
        """
        within: Any = self._upper.layers if self.split else self._decoder.modules()
        layers = [part for part in within if isinstance(part, GradientCheckpointingLayer)] if active else []
        if active and not layers:
            raise BaseModelError(
                f"tuning.gradient_checkpointing is on, but layers of {type(self._decoder).__name__} can't be computed "
                "again; set it to false"
            )
        for layer in layers:  # the flag of the layer alone: its parts, dropout among them, stay as they are
            layer.gradient_checkpointing = layer.training = True
            layer._gradient_checkpointing_func = AGAIN  # noqa: SLF001 - set so by transformers itself
        try:
            yield
        finally:
            for layer in layers:
                layer.gradient_checkpointing = layer.training = False

    def _read(self, pack: Pack, cache: DynamicCache | None) -> Tensor:
        """Output of the lower layers for a pack (tokens, hidden)."""
        ids = torch.tensor(pack.tokens, device=self.base.device)
        if not self._openings(pack):
            return self._run(self._lower, pack, cache, input_ids=ids[None])
        # ids of images lie beyond the vocabulary; token 0 stands in for them until the openings overwrite it
        embeddings = self.base.model.get_input_embeddings()(ids.where(ids < FIRST, 0))
        for path, opening in self._openings(pack):
            embeddings = embeddings.index_put(
                (path[: opening.length].to(ids.device),), opening.inputs.to(embeddings.dtype)
            )
        return self._run(self._lower, pack, cache, inputs_embeds=embeddings[None])

    def _openings(self, pack: Pack) -> list[tuple[Tensor, Opening]]:
        """Paths of the pack's rows that show images, and their openings, each once."""
        if self.base.sight is None or max(pack.tokens) < FIRST:
            return []
        if pack.openings is None:
            openings: dict[tuple[int, ...], tuple[Tensor, Opening]] = {}
            for path in pack.paths:
                tokens = [pack.tokens[place] for place in path.tolist()]
                key = tuple(tokens[: Sight.opening_length(tokens)])
                if key and key not in openings:
                    opening = self.base.sight.opening(tokens)
                    assert opening is not None  # noqa: S101 - it shows an image
                    openings[key] = (path, opening)
            pack.openings = openings
        return list(pack.openings.values())

    def _positions(self, pack: Pack) -> Tensor:
        """Positions (1, tokens), or (axes, 1, tokens) where images are counted in the architecture's own way."""
        plain = torch.tensor(pack.positions, device=self.base.device)[None]
        own = [opening for _, opening in self._openings(pack) if opening.positions is not None]
        if not own or own[0].positions is None:
            return plain
        places = plain.repeat(len(own[0].positions), 1)
        for path in pack.paths:
            tokens = [pack.tokens[place] for place in path.tolist()]
            key = tuple(tokens[: Sight.opening_length(tokens)])
            if key and pack.openings is not None:
                opening = pack.openings[key][1]
                rest = torch.arange(opening.position(opening.length), opening.position(len(path)))
                assert opening.positions is not None  # noqa: S101 - one architecture counts one way
                numbers = torch.cat([opening.positions, rest.to(plain.device).repeat(len(places), 1)], dim=1)
                places[:, path.to(plain.device)] = numbers.to(places.dtype)
        return places[:, None]

    def _run(self, part: nn.Module, pack: Pack, cache: DynamicCache | None, **inputs: Tensor) -> Tensor:
        masks = {kind: self._mask(pack, window) for kind, window in (self._windows or {}).items()}
        result = part(
            # a model whose layers are all of one kind takes no mapping
            attention_mask=masks if len(masks) > 1 else next(iter(masks.values())),
            position_ids=self._positions(pack),
            past_key_values=cache,
            use_cache=cache is not None,
            **inputs,
        )
        output: Tensor = result.last_hidden_state[0]
        return output

    def _mask(self, pack: Pack, window: int | None) -> Tensor:
        """Mask of a pack (1, 1, tokens, tokens): each token sees those before it in the rows it belongs to.

        `window` is the number of tokens, itself among them, that it sees at most; images that see each other whatever
        their order do so whatever their distance.
        """
        dtype = self.base.model.dtype
        visible = torch.zeros((len(pack.tokens),) * 2, dtype=torch.bool)
        for path in pack.paths:
            place = torch.arange(len(path))
            distance = place[:, None] - place[None, :]
            near = (distance >= 0) & (distance < window) if window else distance >= 0
            visible[path[:, None], path[None, :]] |= near
        for path, opening in self._openings(pack):
            if opening.mutual is not None:
                start, mutual = path[: opening.length], opening.mutual.cpu()
                visible[start[:, None], start[None, :]] |= mutual | mutual.T
        mask = torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)
        return mask[None, None].to(self.base.device)

    def _whole(self, states: Sequence[State]) -> list[Tensor]:
        if self.base.sight and any(Sight.opening_length(state.tokens) for state in states):
            return [self._alone(state) for state in states]
        rows = [torch.tensor(state.tokens) for state in states]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.base.device)
        output = self._decoder(input_ids=ids, use_cache=False).last_hidden_state
        return [output[i, : len(row)] for i, row in enumerate(rows)]

    def _alone(self, state: State) -> Tensor:
        """A row by the model's own forward pass."""
        if self.base.sight and Sight.opening_length(state.tokens):
            return self.base.sight.whole(state.tokens)
        output: Tensor = self._decoder(
            input_ids=torch.tensor([state.tokens], device=self.base.device)
        ).last_hidden_state
        return output[0]

    @torch.no_grad()
    def _is_exact(self) -> bool:
        # text that a model has seen the like of: on arbitrary tokens bfloat16 alone is off by half
        settings = self.base.settings.model_copy(update={"max_tokens": 2**31})
        texts = [render(self.base.reader, settings, text, "The cat saw the dog.", "It did.").tokens for text in SAMPLES]
        rows: list[Tokens] = [*texts, (*texts[0][:-4], *texts[1][-2:])]
        # a window shows only in a row that exceeds it, if rows can
        longest = max((window or 0 for window in (self._windows or {}).values()), default=0)
        if longest and (length := min(self.base.settings.longest, longest + BEYOND)) > longest:
            rows.append((texts[0] * length)[:length])
        if self.base.sight:
            images = [render(self.base.reader, settings, "a", "b", "c", [picture]).tokens for picture in _samples()]
            rows += [*images, (*images[0], *images[1][-2:])]
        pairs = zip(self._whole([State(tuple(r), None) for r in rows]), self.outputs(self.states(rows, 2)), strict=True)
        return all(bool((a - b).float().norm() <= 0.05 * a.float().norm()) for a, b in pairs)


def windows(decoder: nn.Module) -> dict[str, int | None] | None:
    """Kinds of a decoder's layers with their window (None: all tokens), None if it has others than these two.

    A decoder that does not say of which kind its layers are has one kind, whose window is the configuration's.
    """
    config: Any = getattr(decoder, "config", None)
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return {FULL: window}
    by_kind = {FULL: None, SLIDING: window}
    return {kind: by_kind[kind] for kind in by_kind if kind in kinds} if set(kinds) <= by_kind.keys() else None


def _layers(cache: DynamicCache | None) -> dict[int, tuple[Tensor, Tensor]]:
    """Keys and values (heads, tokens, width) of the layers that ran, by their number in the whole model."""
    layers = enumerate(cache.layers) if cache is not None else ()
    return {number: (layer.keys[0], layer.values[0]) for number, layer in layers if layer.is_initialized}


def _output(state: State) -> Tensor:
    if state.output is None:
        raise ValueError("a state without hidden values; it was made by a trunk that is not split")
    return state.output


def _samples() -> list[Picture]:
    """Two images of other shapes."""
    pictures = []
    for height, width in ((48, 64), (90, 40)):
        ramp = bytes((31 * x + 17 * y * y) % 256 for y in range(height) for x in range(3 * width))
        content = b"P6\n%d %d\n255\n" % (width, height) + ramp
        pictures.append(Picture.by_digest(digest_of(content), {digest_of(content): content}.__getitem__))
    return pictures


def _view(decoder: nn.Module, start: int, end: int, norm: nn.Module) -> nn.Module:
    """A decoder that shares every weight but runs only the layers from `start` to before `end`, and `norm`."""
    every: Any = decoder.layers
    view, layers = copy.copy(decoder), every[start:end]
    view._modules = {**decoder._modules, "layers": layers, "norm": norm}  # noqa: SLF001 - nn.Module's own shallow copy
    config: Any = getattr(decoder, "config", None)
    if config is not None:
        shorter = copy.copy(config)
        shorter.num_hidden_layers = end - start
        if getattr(config, "layer_types", None):
            shorter.layer_types = config.layer_types[start:end]
        view.config = shorter
    return view
