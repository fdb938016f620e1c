"""Encoder by a sentence model: instructions and inputs, each in the space of general texts of its kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from components.grouping.general import VECTORS, foreign_requests, general_inputs, general_requests
from components.grouping.input_profile import WHOLE, InputProfile, Kind, even_sample
from components.grouping.inputs import means
from components.grouping.pool import EncoderStateError
from components.grouping.sentence_model import EncoderModelError, SentenceModel
from components.grouping.space import Space
from components.storage.objects import canonical, digest_of

_KIND: Kind = "embedding"
_POOLING = "mean-256"
"""Mean over at most 256 tokens, special ones included, then unit length; a change needs a new name."""
_TEMPER = 0.2
"""Factor on log ratios: a text's numbers are not independent, so their sum claims too much. At .2 the shares of further
training rows of the example tasks are likeliest, from 20 inputs a task to 150 (benchmarks/routing)."""
_READ = 400
"""Characters of an input that are read: its kind shows at once, and reading more takes longer than the instruction."""


@dataclass(frozen=True)
class EmbeddingEncoder:
    """A sentence model with the spaces of instructions and inputs; versions of earlier releases have none."""

    model: SentenceModel
    requests: Space | None = None
    inputs: Space | None = None

    @classmethod
    def fit(cls, model: str) -> Self:
        """The model of that name or folder, with the spaces of the packaged general texts.

        Raises:
            EncoderModelError: the model is missing or does not load.
        """
        sentences = SentenceModel.load(model)
        return cls(sentences, *_spaces(sentences))

    @property
    def kind(self) -> Kind:
        """Its name in settings and manifests."""
        return _KIND

    def encode(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Unit rows, shape (texts, dimension). Equal up to about 1e-6 whatever other texts are in the call."""
        return self._unit(self.model.vectors(texts))

    def general(self) -> NDArray[np.float64]:
        """Unit rows of the general requests."""
        return self._unit(general_vectors(self.model)[0])

    def foreign(self) -> list[NDArray[np.float64]]:
        """Unit rows of the general requests in each other language."""
        return [self._unit(rows) for rows in general_vectors(self.model)[2:]]

    def _unit(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.requests is None or not len(vectors):
            return vectors
        rows = self.requests.transform(vectors)
        unit: NDArray[np.float64] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return unit

    def profile(self, texts: Sequence[str]) -> InputProfile | None:
        """Typical inputs of a task; None where there are too few."""
        texts = even_sample(list(texts))
        if not texts or self.inputs is None:
            return None
        mean = self.input_vectors(texts).mean(axis=0)
        return InputProfile(_KIND, len(texts), np.round(mean * WHOLE).astype(np.int16))

    def typical_inputs(self, profiles: Sequence[InputProfile | None]) -> "EmbeddingInputs":
        """The inputs of tasks, ready to be compared with those of requests."""
        space = self.inputs
        if space is None:
            return EmbeddingInputs(self, np.zeros((len(profiles), 0)))
        rows, has_one = means(profiles, _KIND, len(space.centre))
        return EmbeddingInputs(self, np.where(has_one[:, None], space.transform(rows / WHOLE), 0.0))

    def input_vectors(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Unit rows of inputs, of which only the beginning is read; shape (texts, dimension)."""
        return self.model.vectors([text[:_READ] for text in texts], remember=False)

    def to_json(self) -> dict[str, Any]:
        """State that names the model and holds the spaces."""
        state: dict[str, Any] = {"kind": _KIND, "model": self.model.digest, "pooling": _POOLING}
        if self.requests and self.inputs:
            state |= {"requests": self.requests.to_json(), "inputs": self.inputs.to_json()}
        return state

    @classmethod
    def from_json(cls, state: Mapping[str, Any], model: str) -> Self:
        """The encoder a manifest names, from the model found at `model`.

        Raises:
            EncoderModelError: the model there is missing or another one.
            EncoderStateError: the state is not one this release can read.
        """
        if state.get("kind") != _KIND or state.get("pooling") != _POOLING:
            raise EncoderStateError(
                f"the pool's encoder is {state.get('kind')!r} with pooling {state.get('pooling')!r}, expected "
                f"{_KIND!r} with {_POOLING!r}; use the release that wrote this version"
            )
        sentences = SentenceModel.load(model)
        if sentences.digest != state.get("model"):
            raise EncoderModelError(
                f"this version is routed by the sentence model with digest {str(state.get('model'))[:12]}, but "
                f"{model} is {sentences.digest[:12]}; let grouping.encoder_model name the folder of the right one, or "
                "learn a task to make a version routed by this one"
            )
        spaces = [Space.from_json(state[name]) if state.get(name) else None for name in ("requests", "inputs")]
        return cls(sentences, *spaces)


@dataclass(frozen=True)
class EmbeddingInputs:
    """Inputs of tasks by linear discriminants: each task's mean in the inputs' space, (tasks, dimension)."""

    encoder: EmbeddingEncoder
    tasks: NDArray[np.float64]

    def log_ratios(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """log p(input | task) - log p(input | general texts), shape (texts, tasks)."""
        if self.encoder.inputs is None:
            return np.zeros((len(texts), len(self.tasks)))
        return self._of(self.encoder.inputs.transform(self.encoder.input_vectors(texts)))

    def typical_log_ratios(self, number: int) -> NDArray[np.float64]:
        """The same for inputs drawn at random around the tasks' means; the same ones in each call."""
        draw = np.random.default_rng(0)
        around = self.tasks[draw.integers(len(self.tasks), size=number)]
        return self._of(around + draw.standard_normal(around.shape))

    def _of(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        ratios: NDArray[np.float64] = rows @ self.tasks.T - 0.5 * (self.tasks**2).sum(axis=1)
        return ratios * _TEMPER


@lru_cache(maxsize=2)
def general_vectors(model: SentenceModel) -> tuple[NDArray[np.float64], ...]:
    """Vectors of `general_texts`, in their order: of the packaged model off a file, else computed."""
    if VECTORS.exists():
        with safe_open(VECTORS, "numpy") as file:
            if file.metadata() == origin(model):
                scale = file.get_tensor("scale")
                return tuple((file.get_tensor(name) / scale).astype(np.float64) for name in general_texts())
    return tuple(model.vectors(texts, remember=False) for texts in general_texts().values())


def general_texts() -> dict[str, list[str]]:
    """The general texts as they are read: requests and inputs in English, then requests in each other language."""
    english = {"requests": list(general_requests()), "inputs": [text[:_READ] for text in general_inputs()]}
    return english | {language: list(texts) for language, texts in foreign_requests().items()}


def origin(model: SentenceModel) -> dict[str, str]:
    """Names what the stored vectors were made of."""
    return {"model": model.digest, "texts": digest_of(canonical(general_texts()))}


@lru_cache(maxsize=2)
def _spaces(model: SentenceModel) -> tuple[Space, Space]:
    requests, inputs = general_vectors(model)[:2]
    return Space.fit(requests), Space.fit(inputs)
