"""A tiny model whose adapter has learnt a little, so that there are hits and misses."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from components.model.prompts import render
from components.settings import EmaSettings, RehearsalSettings, TuningSettings

if TYPE_CHECKING:
    from torch import Tensor

    from components.model.workbench import Workbench
    from components.tasks.snapshot import Snapshot

QUICK = TuningSettings(
    steps=30,
    batch_size=4,
    learning_rate=1e-2,
    checkpoint_every=30,
    curve=(0.5,),
    ema=EmaSettings(rule="fixed", beta=0.9),
    rehearsal=RehearsalSettings(share=0.2),
)


@pytest.fixture(scope="session")
def quick() -> TuningSettings:
    """Tuning that takes about a second."""
    return QUICK


@pytest.fixture(scope="session")
def adapters() -> dict[str, dict[str, "Tensor"]]:
    """Adapters trained before, by task digest."""
    return {}


@pytest.fixture
def trained(
    tiny_bench: "Workbench", adapters: dict[str, dict[str, "Tensor"]]
) -> Callable[["Snapshot"], dict[str, "Tensor"]]:
    """An adapter tuned on a few rows of a task."""
    from components.tuning.tuner import tune

    def train(snapshot: "Snapshot") -> dict[str, "Tensor"]:
        if snapshot.digest in adapters:
            return adapters[snapshot.digest]
        base = tiny_bench.base
        rows = [render(base.tokenizer, base.settings, e.instruction, e.input, e.output) for e in snapshot.rows("train")]
        result = tune(tiny_bench.trunk, tiny_bench.slot, rows, (), None, QUICK, None, 32)
        adapters[snapshot.digest] = result.points["live"]
        return adapters[snapshot.digest]

    return train
