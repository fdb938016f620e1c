"""Which rows a training step sees: new rows in shuffled epochs, kept rows of earlier tasks mixed in."""

import random
from collections.abc import Sequence


def select_rows(count: int, limit: int | None, seed: int) -> list[int]:
    """Indices of at most `limit` of `count` rows, drawn without replacement, in ascending order."""
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(random.Random(seed).sample(range(count), limit))  # noqa: S311 - not cryptography


def batches(new: int, kept: int, steps: int, batch_size: int, share: float, seed: int) -> list[list[int]]:
    """Row numbers of every step, fixed in advance so that a resumed run sees the same order.

    Numbers below `new` are new rows, the rest kept rows. New rows come in shuffled epochs; of every
    1 / share rows one is a kept row (none without kept rows), drawn in shuffled epochs of their own.
    """
    fresh, old = _Shuffled(range(new), seed), _Shuffled(range(new, new + kept), seed + 1)
    plan, due = [], 0.0
    for _ in range(steps):
        due += share * batch_size if kept else 0.0
        rehearsed = min(int(due + 1e-9), batch_size)
        due -= rehearsed
        plan.append([next(fresh) for _ in range(batch_size - rehearsed)] + [next(old) for _ in range(rehearsed)])
    return plan


class _Shuffled:
    """Shuffled epochs over `items` without end."""

    def __init__(self, items: Sequence[int], seed: int) -> None:
        self._items, self._queue = list(items), list[int]()
        self._random = random.Random(seed)  # noqa: S311 - not cryptography

    def __next__(self) -> int:
        if not self._queue:
            self._queue = self._random.sample(self._items, len(self._items))
        return self._queue.pop()
