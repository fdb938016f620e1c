"""Rows and a parent adapter for tuning on the tiny model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from components.model.prompts import Rendered, render
from components.tasks.package import Package, read_package
from components.tasks.rows import Unlabelled
from components.tasks.snapshot import take_snapshot
from components.tuning.tuner import Parent

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"


@pytest.fixture
def rows(tiny_bench, take_example) -> tuple[list[Rendered], list[Rendered]]:
    """New rows and kept ones of an earlier task."""

    def rendered(name: str, count: int) -> list[Rendered]:
        base = tiny_bench.base
        examples = take_example(name, train=count).rows("train")
        return [render(base.tokenizer, base.settings, e.instruction, e.input, e.output) for e in examples]

    return rendered("movie_sentiment", 12), rendered("grammar_check", 5)


@pytest.fixture
def parent(tiny_bench) -> Parent:
    """An adapter that does something, with a curvature."""
    draw = torch.Generator().manual_seed(3)
    shapes = {name: p.shape for name, p in tiny_bench.slot.parameters.items()}
    adapter = {name: torch.randn(shape, generator=draw) * 0.05 for name, shape in shapes.items()}
    return Parent(adapter, {name: torch.rand(shape, generator=draw) * 2 for name, shape in shapes.items()})


@pytest.fixture
def take_unlabelled(store):
    """A small task whose answer is always `negative`, so that the tiny model learns it, with unlabelled rows."""

    def take(name: str, unlabelled: list[Unlabelled] | int, **changes):
        package = read_package(EXAMPLES / name)
        rows = {split: [replace(row, output="negative") for row in package.splits[split]] for split in package.splits}
        splits = {"train": tuple(rows["train"][:16]), "validation": package.splits["validation"][:6]}
        splits["test"] = package.splits["test"][:8]
        if isinstance(unlabelled, int):
            splits["validation"] = tuple(rows["validation"][:20])
            unlabelled = [Unlabelled(r.instruction, r.input) for r in rows["train"][16 : 16 + unlabelled]]
        return take_snapshot(
            Package(package.path, package.task.model_copy(update=changes), splits, (), tuple(unlabelled)), store
        )

    return take
