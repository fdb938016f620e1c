"""Rows drawn from a split: at random, since files are often sorted, and the same ones each time."""

import random
from collections.abc import Sequence
from typing import TypeVar

Row = TypeVar("Row")


def sample_rows(rows: Sequence[Row], limit: int | None, seed: str) -> list[Row]:
    """At most `limit` of the rows (None: all), drawn without replacement, in their order.

    `seed` should name the task, so that two tasks sorted alike are not read at the same places.
    """
    if limit is None or limit >= len(rows):
        return list(rows)
    places = sorted(random.Random(seed).sample(range(len(rows)), limit))  # noqa: S311 - not cryptography
    return [rows[place] for place in places]
