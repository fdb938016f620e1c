"""Typical inputs of a task as the manifest holds them: one sum of whole numbers, from which no text can be read."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

Kind = Literal["embedding", "tfidf"]
WHOLE = 2**15 - 1
"""A component of 1 as a whole number of 16 bits; the most that a count can be."""
LEAST_ROWS = 20
"""Inputs that a profile needs; a sum of fewer could say too much about each."""
MOST_ROWS = 200
"""Inputs that a profile is made of; more change no route (benchmarks/routing)."""


@dataclass(frozen=True)
class InputProfile:
    """`values` are the mean vector by a sentence model in 1/32767, (columns,), or counts of words by bucket.

    It derives from the task's training rows, as the adapter does, and stays as long as the version.
    """

    kind: Kind
    rows: int
    values: NDArray[np.int16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InputProfile) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.kind, self.rows, self.values.tobytes()))

    def to_json(self) -> dict[str, Any]:
        """State for the manifest."""
        return {"kind": self.kind, "rows": self.rows, "values": to_base64(self.values)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        """Read back `to_json`.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        kind = state["kind"]
        if kind not in ("embedding", "tfidf"):
            raise ValueError(f"an input profile of kind {kind!r}, expected embedding or tfidf")
        return cls(kind, int(state["rows"]), from_base64(state["values"], np.int16))


def to_base64(values: NDArray[Any]) -> str:
    """Whole numbers as base64 of their little-endian bytes."""
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def from_base64(text: str, kind: type[np.integer[Any]]) -> NDArray[Any]:
    """Read back `to_base64`.

    Raises:
        ValueError: not base64, or no whole number of numbers.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=np.dtype(kind).newbyteorder("<")).astype(kind)


def even_sample(texts: list[str]) -> list[str]:
    """Texts that a profile is made of, spread evenly over those that are not empty; none where they are too few."""
    texts = [text for text in texts if text.strip()]
    if len(texts) < LEAST_ROWS:
        return []
    number = min(len(texts), MOST_ROWS)
    return [texts[i * len(texts) // number] for i in range(number)]
