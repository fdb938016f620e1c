"""TF-IDF encoder of instructions whose whole fitted state is a small JSON object of integers.

The released code of the paper fits TF-IDF on each pair of texts, so its weights mean little and two texts of stop
words crash it (tests/grouping/test_released_rule.py). Here one encoder is fitted per version on all instructions of the
pool, and unseen words count with the greatest weight instead of vanishing: otherwise a new task that shares a single
known word with an old one would look identical to it.
"""

import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy

from components.grouping.content_words import words
from components.grouping.general import foreign_requests, general_requests
from components.grouping.input_profile import InputProfile, Kind, even_sample
from components.grouping.input_words import WordInputs, bucket_counts
from components.grouping.pool import EncoderStateError
from components.words import is_unspaced

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

DIMENSION = 2**20
"""Columns of an encoding; a word's column is the CRC-32 of its UTF-8 bytes modulo this."""

_KIND: Kind = "tfidf"
_ANALYSER = "words-en-1"
"""Names the tokeniser and the stop-word list below; a change of either needs a new name."""
_WITH_DICTIONARY = "words-en-1+dictionary-1"
"""The same, with words cut by a dictionary in scripts that write no spaces; fitted if the pool has such texts."""


@dataclass(frozen=True)
class TfidfEncoder:
    """Fitted state: the number of texts seen and in how many of them each word occurs."""

    documents: int
    frequencies: Mapping[str, int]
    dictionary: bool = False
    """True if a dictionary cuts the words of scripts that write no spaces."""

    @classmethod
    def fit(cls, texts: Iterable[str]) -> Self:
        """Count in how many distinct texts each content word occurs; the order of the texts is irrelevant."""
        distinct = sorted(set(texts))
        dictionary = any(map(is_unspaced, distinct))
        counts = Counter(word for text in distinct for word in set(words(text, dictionary=dictionary)))
        return cls(documents=len(distinct), frequencies=dict(sorted(counts.items())), dictionary=dictionary)

    def weight(self, word: str) -> float:
        """Inverse document frequency `ln((1 + n) / (1 + df)) + 1`, at least 1."""
        return math.log((1 + self.documents) / (1 + self.frequencies.get(word, 0))) + 1

    @property
    def kind(self) -> Kind:
        """Its name in settings and manifests."""
        return _KIND

    def encode(self, texts: Sequence[str]) -> "csr_matrix":
        """Unit TF-IDF rows, float64, shape (texts, DIMENSION)."""
        entries: dict[str, tuple[int, float]] = {}
        values: list[float] = []
        columns: list[int] = []
        starts = [0]
        for text in texts:
            row: dict[int, float] = {}
            for word in sorted(words(text, dictionary=self.dictionary)):
                if word not in entries:
                    entries[word] = zlib.crc32(word.encode("utf-8", "surrogatepass")) % DIMENSION, self.weight(word)
                column, weight = entries[word]
                row[column] = row.get(column, 0.0) + weight
            norm = math.sqrt(sum(value * value for value in row.values()))
            columns.extend(row)
            values.extend(value / norm for value in row.values())
            starts.append(len(columns))
        return scipy.sparse.csr_matrix(
            (
                np.array(values, dtype=np.float64),
                np.array(columns, dtype=np.int64),
                np.array(starts, dtype=np.int64),
            ),
            shape=(len(texts), DIMENSION),
        )

    def general(self) -> "csr_matrix":
        """Unit rows of the general requests."""
        return self.encode(general_requests())

    def foreign(self) -> "list[csr_matrix]":
        """Unit rows of the general requests in each other language."""
        return [self.encode(texts) for texts in foreign_requests().values()]

    def profile(self, texts: Sequence[str]) -> InputProfile | None:
        """Typical inputs of a task; None where there are too few."""
        texts = even_sample(list(texts))
        if not texts:
            return None
        return InputProfile(_KIND, len(texts), bucket_counts(texts).astype(np.int16))

    def typical_inputs(self, profiles: Sequence[InputProfile | None]) -> WordInputs:
        """The inputs of tasks, ready to be compared with those of requests."""
        return WordInputs.of(profiles)

    def to_json(self) -> dict[str, Any]:
        """The whole state, for the pool manifest."""
        return {
            "kind": _KIND,
            "analyser": _WITH_DICTIONARY if self.dictionary else _ANALYSER,
            "documents": self.documents,
            "frequencies": dict(sorted(self.frequencies.items())),
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        """Read back `to_json`.

        Raises:
            EncoderStateError: another kind or analyser, or counts that are not whole numbers.
        """
        kind, analyser = state.get("kind"), state.get("analyser")
        if kind != _KIND or analyser not in (_ANALYSER, _WITH_DICTIONARY):
            raise EncoderStateError(
                f"the pool's encoder is {kind!r} with analyser {analyser!r}, expected {_KIND!r} with "
                f"{_ANALYSER!r}; "
                "use the release that wrote this version, or learn a task to make a version with a fresh "
                "encoder"
            )
        documents, frequencies = state.get("documents"), state.get("frequencies")
        if (
            not isinstance(documents, int)
            or not isinstance(frequencies, Mapping)
            or not all(isinstance(n, int) and 0 <= n <= documents for n in frequencies.values())
        ):
            raise EncoderStateError(
                "the pool's encoder state holds no usable word counts, expected `documents` and "
                "`frequencies` as "
                "whole numbers; restore the manifest object from a backup"
            )
        return cls(documents, dict(frequencies), dictionary=analyser == _WITH_DICTIONARY)
