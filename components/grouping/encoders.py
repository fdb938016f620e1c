"""The two encoders behind one interface, and the thresholds each was calibrated to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from components.grouping.embedding import EmbeddingEncoder
from components.grouping.input_profile import InputProfile
from components.grouping.inputs import TypicalInputs
from components.grouping.tfidf import TfidfEncoder
from components.settings import GroupingSettings


class Encoder(Protocol):
    """Turns texts into unit rows whose dot products are similarities."""

    def encode(self, texts: Sequence[str]) -> csr_matrix | NDArray[np.float64]:
        """Unit rows, shape (texts, columns)."""

    def general(self) -> csr_matrix | NDArray[np.float64]:
        """Unit rows of the general requests."""

    def profile(self, texts: Sequence[str]) -> InputProfile | None:
        """Typical inputs of a task; None where there are too few."""

    def typical_inputs(self, profiles: Sequence[InputProfile | None]) -> TypicalInputs:
        """The inputs of tasks, ready to be compared with those of requests."""

    def to_json(self) -> dict[str, Any]:
        """The state that the pool manifest holds."""


@dataclass(frozen=True)
class Thresholds:
    """Similarity at which a task joins a group, and the band around it; see `GroupingSettings`."""

    threshold: float
    review_band: float


CALIBRATED = {
    "tfidf": Thresholds(threshold=0.50, review_band=0.04),
    "embedding": Thresholds(threshold=0.55, review_band=0.02),
}
"""Thresholds per encoder, measured in benchmarks/grouping on work that is not among the example tasks."""


def thresholds(settings: GroupingSettings) -> Thresholds:
    """Thresholds of the settings or, if they set none, those that their encoder was calibrated to."""
    own = CALIBRATED[settings.encoder]

    def choose(setting: float | None, default: float) -> float:
        return default if setting is None else setting

    return Thresholds(
        threshold=choose(settings.threshold, own.threshold),
        review_band=choose(settings.review_band, own.review_band),
    )


def fit_encoder(settings: GroupingSettings, texts: Iterable[str]) -> Encoder:
    """The configured encoder for a pool of these instructions.

    Raises:
        EncoderModelError: the sentence model is missing or does not load.
    """
    if settings.encoder == "embedding":
        return EmbeddingEncoder.fit(settings.encoder_model)
    return TfidfEncoder.fit(texts)


def read_encoder(state: Mapping[str, Any], settings: GroupingSettings) -> Encoder:
    """The encoder that a manifest names; the settings only name the folder of a sentence model.

    Raises:
        EncoderStateError: a state that this release cannot read, or another sentence model.
    """
    if state.get("kind") == "embedding":
        return EmbeddingEncoder.from_json(state, settings.encoder_model)
    return TfidfEncoder.from_json(state)
