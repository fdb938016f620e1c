"""Rows that say nearly the same: MinHash and locality-sensitive hashing, checked exactly.

Two rows are near duplicates if the sets of their rare shingles have a Jaccard index of at least `SIMILAR`. Shingles are
runs of five bytes of text without the instruction, with white space and case evened out; a letter of a South East Asian
alphabet is one byte. Shingles that many rows share belong to a template: they are left out, so that templated rows,
which differ in a word or two on purpose, don't count as copies. MinHash: Broder 1997; banding: Leskovec et al., Mining
of Massive Datasets, ch. 3.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.tasks.rows import Example
from components.words import even_out, letter_bytes

SIMILAR = 0.7
"""Jaccard index of rare shingles from which two rows are near duplicates."""
SHINGLE = 5
"""Bytes of a shingle: five Latin letters, or two Chinese characters."""
COMMON_ROWS = 3
COMMON_SHARE = 0.005
"""A shingle in more rows than both of these (a count, a share) belongs to a template."""
LEAST_SHINGLES = 20
"""Rows with fewer rare shingles (some four words) are too short to be near duplicates of anything but themselves."""
PERMUTATIONS, BANDS = 48, 16
"""Sixteen bands of three: a pair of Jaccard index .7 is missed with probability .001."""

Hashes = NDArray[np.uint32]


def near_duplicates(rows: Sequence[Example], rare: Sequence[Hashes] | None = None) -> list[int | None]:
    """Per row the place of an earlier row that it nearly repeats, or None; `rare` is `rare_shingles(rows)`.

    Exact repetitions of a question don't count: other rules name them. Rows with other images are other questions.
    """
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]

    sets = rare_shingles(rows) if rare is None else rare
    index = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, PERMUTATIONS // BANDS))
    sketch = MinHash(num_perm=PERMUTATIONS, hashfunc=int)  # shingles are hashed already
    questions: set[tuple[str, ...]] = set()
    out: list[int | None] = []
    for place, (row, shingles) in enumerate(zip(rows, sets, strict=True)):
        match = None
        if len(shingles) >= LEAST_SHINGLES and row.question not in questions:
            sketch.clear()
            sketch.update_batch(shingles.tolist())
            minhash = sketch.copy()
            alike = [place for place in index.query(minhash) if rows[place].images == row.images]
            match = _similar(alike, shingles, sets)
            index.insert(place, minhash, check_duplication=False)
        questions.add(row.question)
        out.append(match)
    return out


def _similar(candidates: Sequence[Any], shingles: Hashes, sets: Sequence[Hashes]) -> int | None:
    for place in sorted(candidates):
        common = len(np.intersect1d(shingles, sets[place], assume_unique=True))
        if common >= SIMILAR * (len(shingles) + len(sets[place]) - common):
            return int(place)
    return None


def not_compared(rare: Sequence[Hashes]) -> int:
    """Number of rows that are compared with no other: short ones, pure templates, and rows with very many copies."""
    return sum(len(shingles) < LEAST_SHINGLES for shingles in rare)


def rare_shingles(rows: Sequence[Example]) -> list[Hashes]:
    """Hashes of each row's rare shingles, sorted."""
    sets = [_shingles(row) for row in rows]
    limit = max(COMMON_ROWS, COMMON_SHARE * len(rows))
    values, counts = np.unique(np.concatenate([np.empty(0, np.uint32), *sets]), return_counts=True)
    common = values[counts > limit]
    return [own[~_among(own, common)] for own in sets]


def _among(values: Hashes, common: Hashes) -> NDArray[np.bool_]:
    if not len(common):
        return np.zeros(len(values), dtype=bool)
    places = np.searchsorted(common, values).clip(max=len(common) - 1)
    hits: NDArray[np.bool_] = common[places] == values
    return hits


def _shingles(row: Example) -> Hashes:
    text = letter_bytes(even_out(row.subject))
    if len(text) < SHINGLE:
        return np.empty(0, np.uint32)
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(text, np.uint8), SHINGLE).astype(np.uint64)
    powers = np.array([131**power for power in range(SHINGLE)], np.uint64)
    spread = (windows @ powers) * np.uint64(0x9E3779B97F4A7C15)
    return np.unique((spread >> np.uint64(32)).astype(np.uint32))
