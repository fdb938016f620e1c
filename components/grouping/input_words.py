"""Inputs of tasks by counts of their words: naive Bayes over buckets of hashed words, for places without torch."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from components.grouping.content_words import words
from components.grouping.general import general_inputs
from components.grouping.input_profile import WHOLE, InputProfile
from components.grouping.inputs import means

BUCKETS = 1024
"""Words share buckets, so that no word can be read off a count."""
PRIOR = 100.0
"""Words of general texts that each task's counts are mixed with."""
_READ = 400
"""Characters of an input that are read."""
_LENGTH = 12
"""Words of an input drawn at random."""


def bucket_counts(texts: Sequence[str]) -> NDArray[np.int64]:
    """Counts of the words of each bucket in texts: (buckets,), at most 32767 each."""
    buckets = [zlib.crc32(w.encode("utf-8", "surrogatepass")) % BUCKETS for text in texts for w in _words(text)]
    return np.minimum(np.bincount(np.array(buckets, dtype=np.int64), minlength=BUCKETS), WHOLE)


def _words(text: str) -> list[str]:
    return words(text[:_READ], dictionary=True)


@lru_cache(maxsize=1)
def _background() -> NDArray[np.float64]:
    """Shares of the buckets in general texts: (buckets,)."""
    counts = bucket_counts(general_inputs()) + 1.0
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


@dataclass(frozen=True)
class WordInputs:
    """log p(bucket | task) - log p(bucket | general texts): (tasks, buckets); zeros for a task without a profile."""

    ratios: NDArray[np.float64]

    @classmethod
    def of(cls, profiles: Sequence[InputProfile | None]) -> Self:
        """Off the tasks' profiles; counts by another encoder are not used."""
        counts, _ = means(profiles, "tfidf", BUCKETS)
        shares = (counts + PRIOR * _background()) / (counts.sum(axis=1, keepdims=True) + PRIOR)
        return cls(np.log(shares / _background()))

    def log_ratios(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """log p(input | task) - log p(input | general texts), shape (texts, tasks)."""
        counts = [bucket_counts([text]) for text in texts]
        return np.array(counts, dtype=np.float64).reshape(len(texts), BUCKETS) @ self.ratios.T

    def typical_log_ratios(self, number: int) -> NDArray[np.float64]:
        """The same for inputs drawn at random as the tasks have them; the same ones in each call."""
        draw = np.random.default_rng(0)
        shares = np.exp(self.ratios) * _background()
        shares /= shares.sum(axis=1, keepdims=True)
        tasks = draw.integers(len(shares), size=number)
        counts = np.stack([draw.multinomial(_LENGTH, shares[task]) for task in tasks])
        return counts @ self.ratios.T
