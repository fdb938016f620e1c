"""Cutting validation and test rows from the training rows where a package has none.

Where a row goes follows from its question alone, so it stays there in every later version of the task, whatever else is
added, and rows with the same question stay together: nothing leaks.
"""

from collections.abc import Collection, Mapping
from typing import TypeVar

from components.storage.objects import canonical, digest_of
from components.tasks.rows import Example

SHARES = {"test": 0.2, "validation": 0.1}
"""Share of the training rows that each missing split gets."""
Numbered = TypeVar("Numbered", bound=tuple[int, Example])


def cut(lines: Mapping[str, list[Numbered]], missing: Collection[str]) -> dict[str, list[Numbered]]:
    """All splits, with the missing ones cut from `train`; rows keep their numbers."""
    out = {**lines, "train": [], **{split: [] for split in missing}}
    for row in lines["train"]:
        out[_place(row[1], missing)].append(row)
    return out


def _place(example: Example, missing: Collection[str]) -> str:
    """A fixed place between 0 and 1 for each question, without its options: [0, .2) is test, [.2, .3) validation."""
    place = int(digest_of(canonical(["split", *example.stem]))[:13], 16) / 16**13
    start = 0.0
    for split, share in SHARES.items():
        if start <= place < start + share and split in missing:
            return split
        start += share
    return "train"
