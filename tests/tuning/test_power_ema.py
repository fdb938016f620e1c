"""Reconstructed EMAs against the same EMAs tracked directly."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tuning import power_ema
from components.tuning.power_ema import GAMMAS, PowerEMA, exponent, profile, sigma_rel

SHAPES = ((3, 5), (7,), ())


def walk(steps: int, *, seed: int = 0, noise: float = 1.0) -> list[list[torch.Tensor]]:
    """A drifting random walk of several tensors, live weights after each step."""
    draw = torch.Generator().manual_seed(seed)
    position = [torch.randn(s, generator=draw) for s in SHAPES]
    path = []
    for _ in range(steps):
        position = [p + 0.05 + noise * torch.randn(p.shape, generator=draw) for p in position]
        path.append(position)
    return path


def track(path, **options) -> PowerEMA:
    live = [torch.zeros(s) for s in SHAPES]
    ema = PowerEMA(live, **options)
    for step, position in enumerate(path, 1):
        for p, value in zip(live, position, strict=True):
            p.copy_(value)
        ema.update(step)
    return ema


def direct(path, gamma: float, last: int) -> list[np.ndarray]:
    """The recursion, in float64."""
    average = [np.zeros(s) for s in SHAPES]
    for t, position in enumerate(path[:last], 1):
        beta = (1 - 1 / t) ** (gamma + 1)
        average = [beta * a + (1 - beta) * p.double().numpy() for a, p in zip(average, position, strict=True)]
    return average


def distance(left, right) -> float:
    return max(np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in zip(left, right, strict=True))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 0.28))
def test_exponent_is_the_inverse_of_length(length) -> None:
    assert sigma_rel(exponent(length)) == pytest.approx(length, rel=1e-6)


def test_the_lengths_of_the_paper() -> None:
    assert [round(sigma_rel(g), 3) for g in GAMMAS] == [0.05, 0.1]
    assert sigma_rel(0) == pytest.approx(12**-0.5)  # a plain mean: the deviation of a uniform distribution


@pytest.mark.parametrize("gamma", [0.5, 6.94, 50.0])
def test_the_profile_is_what_the_recursion_does(gamma) -> None:
    steps, last = 40, 30
    weights = np.zeros(steps)
    for t in range(1, last + 1):
        beta = (1 - 1 / t) ** (gamma + 1)
        weights *= beta
        weights[t - 1] += 1 - beta
    np.testing.assert_allclose(profile(gamma, last, steps), weights, atol=1e-12)
    assert weights.sum() == pytest.approx(1)


def test_the_length_is_the_deviation_of_the_profile() -> None:
    steps = 20_000
    for length in (0.02, 0.1, 0.25):
        weights, position = profile(exponent(length), steps, steps), np.arange(steps) / steps
        mean = (weights * position).sum()
        assert np.sqrt((weights * (position - mean) ** 2).sum()) == pytest.approx(length, rel=1e-2)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_tracked_ones_are_the_recursion_and_are_given_back(gamma) -> None:
    path = walk(120)
    ema = track(path, every=10)
    expected = direct(path, gamma, 120)
    assert distance(ema.averages[GAMMAS.index(gamma)], expected) < 1e-4
    assert distance(ema.reconstruct(sigma_rel(gamma)), expected) < 1e-3
    assert ema.error(sigma_rel(gamma)) < 1e-4
    for step in (50, 100):
        assert distance(ema.reconstruct(sigma_rel(gamma), step), direct(path, gamma, step)) < 1e-3


@pytest.mark.parametrize("length", [0.04, 0.07, 0.1, 0.15, 0.2, 0.25])
@pytest.mark.parametrize("steps", [60, 300, 3000])
def test_any_length_is_close_to_the_one_tracked_directly(length, steps) -> None:
    """Within a few percent of what the lengths differ by, from two tracked ones and 30 snapshots."""
    path = walk(steps)
    ema = track(path, every=steps // 30)
    expected = direct(path, exponent(length), steps)
    short, long = direct(path, exponent(0.03), steps), direct(path, exponent(0.27), steps)
    assert distance(ema.reconstruct(length), expected) < 0.05 * distance(short, long)
    assert ema.error(length) < 0.15


def test_constant_weights_stay_constant_at_any_length() -> None:
    path = [[torch.full(s, 3.0) for s in SHAPES]] * 100
    ema = track(path, every=5)
    for length in (0.05, 0.12, 0.25):
        assert distance(ema.reconstruct(length), [np.full(s, 3.0) for s in SHAPES]) < 0.05


def test_the_error_says_when_a_length_is_out_of_reach() -> None:
    ema = track(walk(100), every=50)
    assert ema.error(0.08) < 0.1 < 0.5 < ema.error(0.005)


def test_memory_is_bounded_and_old_snapshots_are_thinned_out(monkeypatch) -> None:
    monkeypatch.setattr(power_ema, "SNAPSHOTS", 8)
    path = walk(500)
    ema = track(path, every=3)
    assert len(ema.snapshots) <= 8
    assert ema.every in (48, 96)
    ema.snapshot()
    expected = direct(path, exponent(0.12), 500)
    spread = distance(direct(path, exponent(0.03), 500), direct(path, exponent(0.27), 500))
    assert distance(ema.reconstruct(0.12), expected) < 0.1 * spread


def test_a_resumed_run_is_as_if_undisturbed() -> None:
    path = walk(90)
    whole = track(path, every=7)
    first = track(path[:40], every=7)
    live = [torch.zeros(s) for s in SHAPES]
    second = PowerEMA(live, every=7)
    second.load_state_dict(first.state_dict())
    for step, position in enumerate(path[40:], 41):
        for p, value in zip(live, position, strict=True):
            p.copy_(value)
        second.update(step)
    assert whole.snapshots.keys() == second.snapshots.keys()
    for a, b in zip(whole.reconstruct(0.13), second.reconstruct(0.13), strict=True):
        assert torch.equal(a, b)
    cold = PowerEMA(live, every=7)
    for step in range(1, 51):
        cold.update(step)
    assert not torch.allclose(cold.averages[0][0], whole.averages[0][0])


def test_half_precision_weights_are_averaged_in_float32() -> None:
    live = [torch.zeros(32, dtype=torch.bfloat16)]
    ema = PowerEMA(live, every=50)
    for step in range(1, 101):
        live[0].fill_(step)
        ema.update(step)
    assert ema.averages[0][0].dtype == torch.float32
    expected = sum(profile(GAMMAS[0], 100, 100) * np.array([float(torch.tensor(i).bfloat16()) for i in range(1, 101)]))
    torch.testing.assert_close(ema.averages[0][0], torch.full((32,), expected), rtol=1e-5, atol=0, check_dtype=False)


def test_what_cannot_be_done_is_refused() -> None:
    ema = PowerEMA([torch.zeros(3)])
    with pytest.raises(ValueError, match="no snapshot yet at step 0, the first comes at step 10"):
        ema.reconstruct(0.1)
    with pytest.raises(ValueError, match="step 2 follows step 0"):
        ema.update(2)
    for step in range(1, 11):
        ema.update(step)
    with pytest.raises(ValueError, match="step 11 was asked for"):
        ema.reconstruct(0.1, 11)
    for length in (0, 0.3):
        with pytest.raises(ValueError, match=r"expected a number in \(0, 0.28\]"):
            ema.reconstruct(length)
    with pytest.raises(ValueError, match="of exponents"):
        PowerEMA([torch.zeros(3)], gammas=(3.0,)).load_state_dict(ema.state_dict())
    with pytest.raises(ValueError, match="2 other tensors"):
        PowerEMA([torch.zeros(4)]).load_state_dict(ema.state_dict())
    with pytest.raises(ValueError, match="0 parameters"):
        PowerEMA([])
