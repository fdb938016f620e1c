"""TF-IDF encoder of instructions whose whole fitted state is a small JSON object of integers.

The released code of the paper fits TF-IDF on each pair of texts, so its weights mean little and two texts of stop
words crash it (tests/grouping/test_released_rule.py). Here one encoder is fitted per version on all instructions of the
pool, and unseen words count with the greatest weight instead of vanishing: otherwise a new task that shares a single
known word with an old one would look identical to it.
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_matrix

from components.grouping.pool import EncoderStateError
from components.words import is_unspaced
from components.words import words as dictionary_words

DIMENSION = 2**20
"""Columns of an encoding; a word's column is the CRC-32 of its UTF-8 bytes modulo this."""

_KIND = "tfidf"
_ANALYSER = "words-en-1"
"""Names the tokeniser and the stop-word list below; a change of either needs a new name."""
_WITH_DICTIONARY = "words-en-1+dictionary-1"
"""The same, with words cut by a dictionary in scripts that write no spaces; fitted if the pool has such texts."""

_WORD = re.compile(r"\w+", re.UNICODE)
_STOP_TEXT = """
a about an and any are as at be been being but by can could did do does each either every for from had has
have he her his how i if in into is it its may me might more most must my no nor not of off on one only or
other our out over own shall she should so some such than that the their them then there these they this
those through to too under up upon us very was we were what whether when where which while who whom whose
why will with within without would yes you your
"""
_STOP_WORDS = frozenset(_STOP_TEXT.split())


def words(text: str, *, dictionary: bool = False) -> list[str]:
    """Content words of a text, lower case, in order; `dictionary` cuts them in scripts that write no spaces.

    A text of stop words only keeps them all, and a text without any letter or digit is one token of its
    own, so every text has at least one token.
    """
    parts = dictionary_words(text.lower()) if dictionary and is_unspaced(text) else [text.lower()]
    tokens = [token for part in parts for token in ([part] if is_unspaced(part) else _WORD.findall(part))]
    content = [token for token in tokens if token not in _STOP_WORDS]
    return content or tokens or [f"\0{text.strip()}"]


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

    def encode(self, texts: Sequence[str]) -> csr_matrix:
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
        return csr_matrix(
            (
                np.array(values, dtype=np.float64),
                np.array(columns, dtype=np.int64),
                np.array(starts, dtype=np.int64),
            ),
            shape=(len(texts), DIMENSION),
        )

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
