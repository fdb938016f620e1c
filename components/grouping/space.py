"""Space in which vectors of texts are compared: directions in which all texts differ count less (partial whitening).

With the covariance of general texts as background, cosine to a mean is linear discriminant analysis with a fixed
within-class covariance (Fisher 1936; Hariharan, Malik and Ramanan 2012). Only the directions of largest variance are
scaled: of a full whitening over some thousand texts most would be noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from components.grouping.input_profile import WHOLE, from_base64, to_base64
from components.grouping.pool import EncoderStateError

RANK = 40
"""Scaled directions. With 24 to 48 the example tasks are routed alike; all 384 do worse (benchmarks/routing)."""
SHRINKAGE = 0.1
"""Share of the mean variance in every variance, so that few texts make no direction look empty."""


@dataclass(frozen=True)
class Space:
    """Centre (columns,), orthogonal directions (rank, columns), and the factor on each (rank,); all in whole numbers.

    After `transform` general texts vary by about 1 in every direction.
    """

    centre: NDArray[np.int16]
    directions: NDArray[np.int8]
    factors: tuple[float, ...]
    scale: float

    @classmethod
    def fit(cls, vectors: NDArray[np.float64]) -> Self:
        """The space of general texts: (texts, columns), unit rows."""
        values, axes = np.linalg.eigh(np.cov(vectors.T))
        values = (1 - SHRINKAGE) * np.clip(values, 0, None) + SHRINKAGE * values.mean()
        rank = min(RANK, len(values) - 1)
        rest = float(values[:-rank].mean())
        directions = axes[:, -rank:].T
        signs = np.sign(directions[np.arange(rank), np.abs(directions).argmax(axis=1)])  # an axis has no sign
        scales = signs[:, None] * _BYTE / np.abs(directions).max()
        return cls(
            np.round(vectors.mean(axis=0) * WHOLE).astype(np.int16),
            np.ascontiguousarray(np.round(directions * scales).astype(np.int8)),
            tuple(round(float(np.sqrt(rest / value)), _DECIMALS) for value in values[-rank:]),
            round(float(1 / np.sqrt(rest)), _DECIMALS),
        )

    def transform(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rows in this space: (texts, columns) to the same shape."""
        axes = self.directions.astype(np.float64)
        axes /= np.linalg.norm(axes, axis=1, keepdims=True)
        rows = vectors - self.centre / WHOLE
        out: NDArray[np.float64] = rows + ((rows @ axes.T) * (np.array(self.factors) - 1)) @ axes
        return out * self.scale

    def to_json(self) -> dict[str, Any]:
        """State for the manifest."""
        return {
            "centre": to_base64(self.centre),
            "directions": to_base64(self.directions),
            "factors": list(self.factors),
            "scale": self.scale,
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        """Read back `to_json`.

        Raises:
            EncoderStateError: numbers that don't fit together.
        """
        try:
            centre = from_base64(state["centre"], np.int16)
            factors = tuple(map(float, state["factors"]))
            directions = from_base64(state["directions"], np.int8).reshape(len(factors), len(centre))
            return cls(centre, directions, factors, float(state["scale"]))
        except (KeyError, TypeError, ValueError) as error:
            raise EncoderStateError(
                f"the pool's encoder has a space that can't be read ({error}), expected `centre`, `directions`, "
                "`factors` and `scale`; restore the manifest object from a backup"
            ) from error


_BYTE = 127
_DECIMALS = 6
