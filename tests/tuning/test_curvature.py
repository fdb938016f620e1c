"""The diagonal Fisher against per-parameter computations on the tiny model."""

import pytest
import torch

from components.model.prompts import render
from components.model.trunk import State
from components.tuning.curvature import diagonal_fisher

ANSWERS = ("yes", "no", "positive")


@pytest.fixture
def scene(tiny_bench):
    """A trained-looking adapter and three short rows."""
    bench = tiny_bench
    bench.slot.initialise(0)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in bench.slot.parameters.values():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    rows = [render(bench.base.tokenizer, bench.base.settings, "Say it", w, w) for w in ANSWERS]
    return bench, rows, bench.trunk.states([r.tokens for r in rows], 4)


def normalised(tensors):
    mean = sum(t.sum() for t in tensors) / sum(t.numel() for t in tensors)
    return [t / mean for t in tensors]


def test_squares_of_the_sampled_gradient_row_by_row(scene) -> None:
    bench, rows, states = scene
    lengths = [len(r.prompt) for r in rows]
    got = diagonal_fisher(bench.trunk, bench.slot, states, lengths, seed=5)
    draw = torch.Generator().manual_seed(5)
    parameters = list(bench.slot.parameters.values())
    expected = [torch.zeros_like(p) for p in parameters]
    for row in rows:
        ids = torch.tensor([row.tokens])
        logits = bench.base.model(input_ids=ids).logits[0, len(row.prompt) - 1 : -1].float()
        labels = torch.multinomial(logits.detach().softmax(-1), 1, generator=draw)[:, 0]
        loss = -sum(logits[i].log_softmax(-1)[label] for i, label in enumerate(labels))
        bench.base.model.zero_grad()
        loss.backward()
        for total, p in zip(expected, parameters, strict=True):
            total.add_(p.grad**2)
    for a, b in zip(got, normalised(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_mean_over_seeds_nears_the_enumerated_expectation(scene) -> None:
    """One answer token only, so that the expectation over labels is a sum over the vocabulary."""
    bench, rows, states = scene
    length = len(rows[0].prompt)
    state = State(states[0].tokens[: length + 1], states[0].output[: length + 1])
    parameters = list(bench.slot.parameters.values())
    logits = bench.trunk.answer_logits([state], [length])[0]
    assert logits.shape[0] == 1
    probabilities = logits.detach().softmax(-1)[0]
    exact = [torch.zeros_like(p) for p in parameters]
    for label in range(len(probabilities)):
        gradients = torch.autograd.grad(logits.log_softmax(-1)[0, label], parameters, retain_graph=True)
        for total, g in zip(exact, gradients, strict=True):
            total.add_(probabilities[label] * g**2)
    sampled = diagonal_fisher(bench.trunk, bench.slot, [state] * 200, [length] * 200, seed=0)
    a, b = (torch.cat([t.flatten() for t in tensors]) for tensors in (sampled, normalised(exact)))
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.85
    assert ((a - b).abs().mean() / b.mean()).item() < 0.4


def test_its_mean_is_one_and_equal_seeds_give_equal_tensors(scene) -> None:
    bench, rows, states = scene
    lengths = [len(r.prompt) for r in rows]
    first, second = (diagonal_fisher(bench.trunk, bench.slot, states, lengths, seed=1) for _ in range(2))
    flat = torch.cat([t.flatten() for t in first])
    assert flat.mean().item() == pytest.approx(1, abs=1e-4)
    assert (flat >= 0).all()
    assert [t.shape for t in first] == [p.shape for p in bench.slot.parameters.values()]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = diagonal_fisher(bench.trunk, bench.slot, states, lengths, seed=2)
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_all_ones_where_no_gradient_reaches_the_adapter(scene) -> None:
    bench, rows, states = scene
    with torch.no_grad():
        for parameter in bench.slot.parameters.values():
            parameter.zero_()  # A = B = 0: a saddle, every gradient is zero
    fisher = diagonal_fisher(bench.trunk, bench.slot, states, [len(r.prompt) for r in rows], seed=0)
    assert all(torch.equal(t, torch.ones_like(t)) for t in fisher)


def test_it_leaves_no_gradients_behind(scene) -> None:
    bench, rows, states = scene
    diagonal_fisher(bench.trunk, bench.slot, states, [len(r.prompt) for r in rows], seed=0)
    assert all(p.grad is None for p in bench.slot.parameters.values())
