"""Rows of each training step: new rows in shuffled epochs, rows of earlier tasks on top."""

import random
from collections.abc import Sequence

from components.settings import TuningSettings, old_shares


def select_rows(count: int, limit: int | None, seed: int) -> list[int]:
    """Indices of at most `limit` of `count` rows, drawn without replacement, in ascending order."""
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(random.Random(seed).sample(range(count), limit))  # noqa: S311 - not cryptography


def batches(new: int, sources: Sequence[tuple[int, float]], steps: int, batch_size: int, seed: int) -> list[list[int]]:
    """Row numbers of every step, fixed in advance so that a resumed run sees the same order.

    Each step has `batch_size` of the `new` rows, which come in shuffled epochs. On top come old rows of
    each source (count, share): `share` of all rows of the run, in shuffled epochs of their own. Rows are
    numbered through: new rows first, then the sources in order.
    """
    queues = [_Shuffled(range(new), seed)]
    start = new
    for number, (count, _) in enumerate(sources, 1):
        queues.append(_Shuffled(range(start, start + count), seed + number))
        start += count
    shares = [share if count else 0.0 for count, share in sources]
    per_step = [batch_size * share / (1 - sum(shares)) for share in shares]
    due = [0.0] * len(sources)
    plan = []
    for _ in range(steps):
        batch = [next(queues[0]) for _ in range(batch_size)]
        for k, extra in enumerate(per_step):
            due[k] += extra
            rows = int(due[k] + 1e-9)  # a sum of shares may fall short of a whole row by rounding
            due[k] -= rows
            batch += [next(queues[k + 1]) for _ in range(rows)]
        plan.append(batch)
    return plan


def scale_shares(settings: TuningSettings, rehearsal_tasks: int, recall_tasks: int, tasks: int) -> TuningSettings:
    """The settings with both shares of old rows scaled by the share of the earlier tasks they are for."""
    count = max(tasks, 1)
    rehearsal, recall = old_shares(settings, rehearsal_tasks / count, recall_tasks / count)
    return settings.model_copy(
        update={
            "rehearsal": settings.rehearsal.model_copy(update={"share": rehearsal}),
            "pseudo_rehearsal": settings.pseudo_rehearsal.model_copy(update={"share": recall}),
        }
    )


class _Shuffled:
    """Shuffled epochs over `items` without end."""

    def __init__(self, items: Sequence[int], seed: int) -> None:
        self._items, self._queue = list(items), list[int]()
        self._random = random.Random(seed)  # noqa: S311 - not cryptography

    def __next__(self) -> int:
        if not self._queue:
            self._queue = self._random.sample(self._items, len(self._items))
        return self._queue.pop()
