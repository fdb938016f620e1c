"""Rows and a parent adapter for tuning on the tiny model."""

import pytest
import torch

from components.model.prompts import Rendered, render
from components.tuning.tuner import Parent


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
