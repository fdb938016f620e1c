"""Cutting validation and test rows from the training rows of a package that has none.

A row's split follows from its question alone. So it stays the same in every later version of the task, no matter which
rows are added, and rows with the same question stay together: nothing leaks.
"""

from collections.abc import Collection, Mapping
from typing import TypeVar

from components.storage.objects import canonical, digest_of
from components.tasks.rows import Example

SHARES = {"test": 0.2, "validation": 0.1}
"""Share of the training rows that each missing split gets."""
Numbered = TypeVar("Numbered", bound=tuple[int, Example])


def cut(lines: Mapping[str, list[Numbered]], missing: Collection[str]) -> dict[str, list[Numbered]]:
    """All splits, the missing ones cut from `train`; rows keep their numbers."""
    out = {**lines, "train": [], **{split: [] for split in missing}}
    for row in lines["train"]:
        out[_split_of(row[1], missing)].append(row)
    return out


def _split_of(example: Example, missing: Collection[str]) -> str:
    """Split of a question: its hash (without the options) is a fixed point in [0, 1).

    [0, .2) is test, [.2, .3) validation, the rest train.
    """
    point = int(digest_of(canonical(["split", *example.stem]))[:13], 16) / 16**13
    start = 0.0
    for split, share in SHARES.items():
        if start <= point < start + share and split in missing:
            return split
        start += share
    return "train"
