"""The two encoders behind one interface, and the thresholds each was calibrated to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from components.grouping.embedding import EmbeddingEncoder
from components.grouping.input_profile import InputProfile, Kind
from components.grouping.inputs import TypicalInputs
from components.grouping.sentence_model import PACKAGED
from components.grouping.tfidf import TfidfEncoder
from components.settings import GroupingSettings
from components.words import is_unspaced

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Vectors: TypeAlias = "csr_matrix | NDArray[np.float64]"
"""Rows of an encoder: sparse ones of word counts, dense ones of a sentence model."""


class Encoder(Protocol):
    """Turns texts into unit rows whose dot products are similarities."""

    @property
    def kind(self) -> Kind:
        """Its name in settings and manifests."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit rows, shape (texts, columns)."""

    def general(self) -> Vectors:
        """Unit rows of the general requests in English."""

    def foreign(self) -> Sequence[Vectors]:
        """Unit rows of the general requests in each other language."""

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


def thresholds(settings: GroupingSettings, kind: Kind) -> Thresholds:
    """Thresholds of the settings or, if they set none, those that an encoder was calibrated to."""
    own = CALIBRATED[kind]

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
    every = list(texts)
    if kind_of(settings, every) == "embedding":
        return EmbeddingEncoder.fit(settings.encoder_model)
    return TfidfEncoder.fit(every)


def kind_of(settings: GroupingSettings, texts: Sequence[str]) -> Kind:
    """The encoder for a pool of these instructions.

    `auto` is the sentence model, but word counts where most instructions are in a script that writes no spaces: the
    packaged model knows English.
    """
    if settings.encoder != "auto":
        return settings.encoder
    is_packaged = settings.encoder_model in PACKAGED
    return "tfidf" if is_packaged and 2 * sum(map(is_unspaced, texts)) > len(texts) else "embedding"


def read_encoder(state: Mapping[str, Any], settings: GroupingSettings) -> Encoder:
    """The encoder that a manifest names; the settings only name the folder of a sentence model.

    Raises:
        EncoderStateError: a state that this release cannot read, or another sentence model.
    """
    if state.get("kind") == "embedding":
        return EmbeddingEncoder.from_json(state, settings.encoder_model)
    return TfidfEncoder.from_json(state)
