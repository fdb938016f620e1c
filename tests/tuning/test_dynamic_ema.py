"""Dynamic EMA against slow references in numpy, written from the formulas in its docstring."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from components.tuning import dynamic_ema
from components.tuning.dynamic_ema import RULES, DynamicEMA

SHAPES = ((4, 7), (3, 4), (5,), (4, 7), (1,), (3, 4), (4, 7))
FORMULAS = ("fixed", "paper", "released", "scale_free")
DYNAMIC = FORMULAS[1:]
OPTIONS = {"steps": 40, "peak_lr": 1e-2, "beta": 0.97, "rho": 0.1, "alpha_min": 1e-4, "horizon": 3.0, "kappa": 30.0}


class Reference:
    """One tensor, float64, one plain line per formula; alpha of step t from theta and g of steps t and t-1."""

    def __init__(self, rule: str, theta: np.ndarray, smoothing: float = 0.0) -> None:
        self.rule, self.star, self.fallbacks = rule, theta.astype(np.float64), 0
        self.theta_before, self.star_before = self.star.copy(), self.star.copy()
        self.g_before: np.ndarray | None = None
        self.window = max(1, round(smoothing * OPTIONS["steps"]))
        self.alpha, self.logs, self.mean = 0.0, 0, 0.0

    def step(self, theta: np.ndarray, g: np.ndarray) -> None:
        theta, g = theta.astype(np.float64), g.astype(np.float64)
        raw, other = self._alpha(theta, g)
        if raw is None:
            self.fallbacks += self.g_before is not None
            self.alpha = other
        else:
            self.logs += 1
            self.mean += (np.log(raw) - self.mean) / min(self.logs, self.window)
            self.alpha = np.exp(self.mean)
        self.star = (1 - self.alpha) * self.star + self.alpha * theta
        self.theta_before, self.star_before, self.g_before = theta, self.star, g

    def _alpha(self, theta: np.ndarray, g: np.ndarray) -> tuple[float | None, float]:
        """alpha, None where the rule does not define it, and the rule's fallback."""
        other = {"released": 0.01, "scale_free": OPTIONS["alpha_min"]}.get(self.rule, 1 - OPTIONS["beta"])
        if self.rule == "fixed":
            return other, other
        d = np.abs(theta - self.star).sum()
        y = 0.0 if self.g_before is None else np.abs(g - self.g_before).sum()
        norm = np.abs(g).sum()
        if d < 1e-12 or y < 1e-12:
            return None, other
        if self.rule == "scale_free":
            raw = OPTIONS["rho"] * OPTIONS["peak_lr"] * theta.size * (norm / y) / d
            return float(np.clip(raw, OPTIONS["alpha_min"], OPTIONS["horizon"] / OPTIONS["steps"])), other
        if self.rule == "paper":  # Eq. 45: 1 - beta = |theta_(t-1) - theta*_(t-1)| (1 + |g|) / (|d| |y|)
            raw = np.abs(self.theta_before - self.star_before).sum() * (1 + norm) / (d * y)
        else:
            raw = 2 * (1 + norm) / (d * y)
        return (float(raw) if 0 < raw < 1 else None), other


def parameters(seed: int = 0, scale: float = 1.0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [(torch.randn(shape, generator=draw) * scale).requires_grad_() for shape in SHAPES]


def importance(seed: int = 7) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=draw) * 2 for shape in SHAPES]


def make(rule: str, live: list[torch.Tensor], **options) -> DynamicEMA:
    weights = importance() if rule == "curvature" else None
    return DynamicEMA(live, rule, **{**OPTIONS, "importance": weights, **options})


def walk(ema: DynamicEMA, step: int, *, size: float = 0.05, gradient: float = 1.0, skipped: bool = False) -> None:
    """One made-up optimizer step: a drift that is the same for the same step number."""
    draw = torch.Generator().manual_seed(1000 + step)
    for p in ema.live:
        p.grad = (torch.randn(p.shape, generator=draw) * gradient).to(p.dtype)
    ema.read_gradients()
    if not skipped:
        with torch.no_grad():
            for p in ema.live:
                p.add_(torch.randn(p.shape, generator=draw) * size)
    ema.update(OPTIONS["peak_lr"], skipped=skipped)


@pytest.mark.parametrize("rule", FORMULAS)
@pytest.mark.parametrize(("size", "gradient"), [(0.05, 1.0), (0.5, 0.02), (20.0, 30.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_every_step_equals_the_formula(rule, size, gradient, smoothing) -> None:
    live = parameters()
    ema = make(rule, live, smoothing=smoothing)
    references = [Reference(rule, p.detach().numpy(), smoothing) for p in live]
    for step in range(60):
        if rule in DYNAMIC and step % 7 == 5:  # theta = theta*: no distance
            with torch.no_grad():
                live[3].copy_(ema.average[3])
                references[3].star = live[3].detach().numpy().astype(np.float64)
        walk_with_dead_tensors(ema, step, size, gradient)
        for p, reference, star in zip(live, references, ema.average, strict=True):
            reference.step(p.detach().numpy(), p.grad.numpy())
            np.testing.assert_allclose(star.numpy(), reference.star, rtol=1e-3, atol=1e-4 * size)
        betas = 1 - np.array([r.alpha for r in references])
        band = [ema.history()[key][-1] for key in ("beta_low", "beta_median", "beta_high")]
        np.testing.assert_allclose(band, np.quantile(betas, [0.1, 0.5, 0.9]), rtol=1e-3, atol=1e-5)
        distance = sum(np.abs(r.theta_before - r.star).sum() for r in references)
        np.testing.assert_allclose(ema.history()["distance"][-1], distance, rtol=1e-3)
    assert ema.fallbacks() == {str(i): r.fallbacks for i, r in enumerate(references)}
    tried = 60 if rule == "fixed" else 59
    assert ema.fallback_share() == pytest.approx(sum(r.fallbacks for r in references) / (tried * len(live)))


def walk_with_dead_tensors(ema: DynamicEMA, step: int, size: float, gradient: float) -> None:
    """Tensor 0 has no gradient for ten steps (lora_A while B is zero), tensor 3 sometimes does not move."""
    draw = torch.Generator().manual_seed(1000 + step)
    for i, p in enumerate(ema.live):
        p.grad = torch.randn(p.shape, generator=draw) * gradient * (0 if i == 0 and step < 10 else 1)
    ema.read_gradients()
    with torch.no_grad():
        for i, p in enumerate(ema.live):
            p.add_(torch.randn(p.shape, generator=draw) * size * (0 if i == 3 and step % 7 == 5 else 1))
    ema.update(OPTIONS["peak_lr"])


def test_the_cases_above_reach_both_the_formula_and_the_fallback() -> None:
    shares = {}
    for rule in ("paper", "released"):
        for size, gradient in ((0.05, 1.0), (20.0, 30.0)):
            ema = make(rule, parameters())
            for step in range(25):
                walk(ema, step, size=size, gradient=gradient)
            shares[rule, size] = ema.fallback_share()
    assert shares["released", 0.05] > 0.7  # as measured on small adapters: the constant does not fit
    assert shares["released", 20.0] < 0.2
    assert 0 < shares["paper", 20.0] < 0.5


def test_curvature_pull_and_consolidation_equal_the_formula() -> None:
    live, old, new, tau = parameters(), importance(), importance(8), 0.3
    start = [p.detach().numpy().astype(np.float64) for p in live]
    ema = make("curvature", live)
    expected = [s.copy() for s in start]
    torch.manual_seed(3)
    for _ in range(20):
        moves = [torch.randn(shape) * 0.05 for shape in SHAPES]
        with torch.no_grad():
            torch._foreach_add_(live, moves)
        ema.update(OPTIONS["peak_lr"])
        expected = [
            s + (e + m.numpy() - s) * np.exp(-OPTIONS["peak_lr"] * OPTIONS["kappa"] * f.numpy())
            for e, m, s, f in zip(expected, moves, start, old, strict=True)
        ]
        for p, star, e in zip(live, ema.average, expected, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), e, rtol=1e-4, atol=1e-5)
            assert torch.equal(p, star)
    ema.consolidate(new, tau)
    for star, e, s, f_old, f_new in zip(ema.average, expected, start, old, new, strict=True):
        beta = tau * f_old.numpy() / (tau * f_old.numpy() + f_new.numpy())
        np.testing.assert_allclose(star.numpy(), beta * s + (1 - beta) * e, rtol=1e-4, atol=1e-5)
    assert ema.fallback_share() == 0


@pytest.mark.parametrize(("tau", "old", "new", "weight"), [(0, 1, 1, 1), (1, 1, 1, 0.5), (1, 1, 0, 0), (0.5, 0, 1, 1)])
def test_consolidation_at_its_limits(tau, old, new, weight) -> None:
    live = parameters()
    start = [p.detach().clone() for p in live]
    ema = DynamicEMA(
        live, "curvature", steps=1, peak_lr=1e-2, importance=[torch.full_like(p, float(old)) for p in live]
    )
    with torch.no_grad():
        for p in live:
            p.add_(1)
    ema.update(0.0)
    ema.consolidate([torch.full_like(p, float(new)) for p in live], tau)
    for star, s in zip(ema.average, start, strict=True):
        torch.testing.assert_close(star, s + weight)


def test_nothing_learnt_without_importance_is_pulled() -> None:
    live = parameters()
    ema = DynamicEMA(live, "curvature", steps=1, peak_lr=1e-2, importance=[torch.zeros(s) for s in SHAPES])
    with torch.no_grad():
        for p in live:
            p.mul_(1.5)
    moved = [p.detach().clone() for p in live]
    ema.update(1e-2)
    for p, m in zip(live, moved, strict=True):
        torch.testing.assert_close(p.detach(), m)


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from(FORMULAS),
    size=st.floats(1e-6, 1e3),
    gradient=st.floats(0, 1e6),
    steps=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_protected_weights_stay_between_their_old_value_and_the_live_one(rule, size, gradient, steps, seed) -> None:
    ema = make(rule, parameters(seed))
    for step in range(steps):
        before = [a.clone() for a in ema.average]
        walk(ema, step, size=size, gradient=gradient)
        for old, star, p in zip(before, ema.average, ema.live, strict=True):
            slack = 1e-6 * torch.maximum(old.abs(), p.detach().abs()) + 1e-9
            assert torch.isfinite(star).all()
            assert (star >= torch.minimum(old, p.detach()) - slack).all()
            assert (star <= torch.maximum(old, p.detach()) + slack).all()


@settings(max_examples=40, deadline=None)
@given(size=st.floats(1e-6, 1e3), gradient=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
def test_alpha_of_scale_free_stays_within_its_bounds(size, gradient, seed) -> None:
    ema = make("scale_free", parameters(seed))
    for step in range(6):
        walk(ema, step, size=size, gradient=gradient)
    history = ema.history()
    low, high = 1 - OPTIONS["horizon"] / OPTIONS["steps"], 1 - OPTIONS["alpha_min"]
    for beta in history["beta_low"] + history["beta_median"] + history["beta_high"]:
        assert low - 1e-6 <= beta <= high + 1e-6


@settings(max_examples=30, deadline=None)
@given(lr=st.floats(0, 1), kappa=st.floats(0, 1e4), seed=st.integers(0, 99))
def test_the_pull_leads_towards_the_parent_and_never_past_it(lr, kappa, seed) -> None:
    live = parameters(seed)
    ema = DynamicEMA(live, "curvature", steps=4, peak_lr=1.0, kappa=kappa, importance=importance(seed))
    with torch.no_grad():
        for p in live:
            p.add_(torch.randn(p.shape))
    before = [p.detach() - s for p, s in zip(live, ema.start, strict=True)]
    ema.update(lr)
    for p, s, d in zip(live, ema.start, before, strict=True):
        after = p.detach() - s
        assert (after * d >= -1e-6).all()
        assert (after.abs() <= d.abs() + 1e-6).all()


@pytest.mark.parametrize("rule", RULES)
def test_skipped_steps_change_nothing(rule) -> None:
    plain, holed = make(rule, parameters()), make(rule, parameters())
    for step in range(8):
        walk(plain, step)
        walk(holed, step)
        walk(holed, 500 + step, gradient=float("inf"), skipped=True)
        for a, b in zip(plain.average + plain.live, holed.average + holed.live, strict=True):
            assert torch.equal(a, b)
    assert plain.history() == holed.history()
    assert plain.fallback_share() == holed.fallback_share()


@pytest.mark.parametrize("rule", RULES)
def test_state_taken_midway_goes_on_bit_for_bit(rule) -> None:
    whole = make(rule, parameters())
    for step in range(10):
        walk(whole, step)
    first = make(rule, parameters())
    for step in range(4):
        walk(first, step)
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    second = make(rule, [p.detach().clone().requires_grad_() for p in first.live])
    second.load_state_dict(state)
    for step in range(4, 10):
        walk(second, step)
    for a, b in zip(whole.average + whole.live, second.average + second.live, strict=True):
        assert torch.equal(a, b)
    assert whole.history() == second.history()
    assert whole.fallback_share() == second.fallback_share()


@pytest.mark.parametrize("rule", ["paper", "released", "scale_free"])
@pytest.mark.parametrize("case", ["no gradient", "same gradient", "no distance"])
def test_undefined_quotients_fall_back_and_are_counted(rule, case) -> None:
    live = parameters()
    ema = make(rule, live)
    for _ in range(5):
        for p in live:
            p.grad = torch.zeros_like(p) if case == "no gradient" else torch.ones_like(p)
            if case == "no distance":
                p.grad = torch.randn(p.shape)
        ema.read_gradients()
        if case != "no distance":
            with torch.no_grad():
                for p in live:
                    p.add_(0.1)
        ema.update(1e-2)
    assert ema.fallback_share() == 1.0
    assert all(torch.isfinite(star).all() for star in ema.average)
    assert all(np.isfinite(values).all() for values in ema.history().values())


def test_rule_none_leaves_everything_alone() -> None:
    ema = make("none", parameters())
    start = [a.clone() for a in ema.average]
    walk(ema, 0)
    assert all(torch.equal(a, s) for a, s in zip(ema.average, start, strict=True))
    assert ema.history() == {"beta_low": [], "beta_median": [], "beta_high": [], "distance": []}
    assert ema.fallback_share() == 0


def test_protected_weights_are_float32_beside_half_precision_ones() -> None:
    live = [torch.zeros(64, dtype=torch.bfloat16, requires_grad=True)]
    ema = DynamicEMA(live, "fixed", beta=0.999, steps=10, peak_lr=1.0)
    with torch.no_grad():
        live[0].add_(1)
    for _ in range(100):
        ema.update(1.0)
    assert ema.average[0].dtype == torch.float32
    torch.testing.assert_close(ema.average[0], torch.full((64,), 1 - 0.999**100), rtol=1e-4, atol=0)


@pytest.mark.parametrize("rule", FORMULAS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_beside_half_precision_weights_all_is_computed_as_if_they_were_float32(rule, dtype) -> None:
    half = [p.detach().to(dtype).requires_grad_() for p in parameters()]
    full = [p.detach().float().requires_grad_() for p in half]
    beside_half, beside_full = make(rule, half), make(rule, full)
    for step in range(20):
        walk(beside_half, step)
        with torch.no_grad():
            for p, q in zip(full, half, strict=True):
                p.copy_(q)
                p.grad = q.grad.float()
        beside_full.read_gradients()
        beside_full.update(OPTIONS["peak_lr"])
        for a, b in zip(beside_half.average, beside_full.average, strict=True):
            assert a.dtype == torch.float32
            assert torch.equal(a, b)


@pytest.mark.parametrize("kappa", [0.0, 30.0])
def test_the_pull_of_half_precision_weights_keeps_theta_star_in_float32(kappa) -> None:
    live = [p.detach().bfloat16() for p in parameters()]
    ema = make("curvature", live, kappa=kappa)
    for p in live:
        p.add_(0.5)
    moved = [p.float() for p in live]
    ema.update(1e-2)
    for p, star, m, s, f in zip(live, ema.average, moved, ema.start, importance(), strict=True):
        torch.testing.assert_close(star, s + (m - s) * torch.exp(-1e-2 * kappa * f))
        assert torch.equal(p, star.bfloat16())


def test_curvature_without_pull_is_plain_training() -> None:
    plain, pulled = make("none", parameters()), make("curvature", parameters(), kappa=0.0)
    for step in range(10):
        walk(plain, step)
        walk(pulled, step)
    for p, q, star in zip(plain.live, pulled.live, pulled.average, strict=True):
        assert torch.equal(p, q)
        assert torch.equal(q, star)
    assert set(pulled.history()["beta_median"]) == {0.0}


def test_fixed_is_the_closed_form() -> None:
    """theta*_t = beta^t theta*_0 + sum_i (1 - beta) beta^(t-i) theta_i."""
    live = parameters()
    ema, beta, steps = make("fixed", live), OPTIONS["beta"], 30
    expected = [p.detach().double() * beta**steps for p in live]
    for step in range(steps):
        walk(ema, step)
        weight = (1 - beta) * beta ** (steps - 1 - step)
        expected = [e + weight * p.detach().double() for e, p in zip(expected, live, strict=True)]
    for star, e in zip(ema.average, expected, strict=True):
        torch.testing.assert_close(star.double(), e, rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(smoothing=st.floats(0.03, 2), seed=st.integers(0, 99), size=st.floats(1e-3, 1e2), gradient=st.floats(0.01, 10))
def test_smoothing_keeps_alpha_within_what_it_averages(smoothing, seed, size, gradient) -> None:
    ema = make("scale_free", parameters(seed), smoothing=smoothing)
    low, high = OPTIONS["alpha_min"], OPTIONS["horizon"] / OPTIONS["steps"]
    for step in range(12):
        walk(ema, step, size=size, gradient=gradient)
        assert (ema._alphas >= low * (1 - 1e-5)).all()
        assert (ema._alphas <= high * (1 + 1e-5)).all()


def test_smoothing_calms_alpha_and_the_published_rules_have_none() -> None:
    jumps = {}
    for smoothing in (0.0, 0.25):
        ema = make("scale_free", parameters(), smoothing=smoothing, horizon=40.0, alpha_min=1e-6)
        betas = []
        for step in range(40):
            walk(ema, step)
            betas.append(1 - np.array(ema.history()["beta_median"][-1]))
        jumps[smoothing] = np.abs(np.diff(np.log(betas[10:]))).mean()
    assert jumps[0.25] < 0.5 * jumps[0.0]
    assert [make(rule, parameters(), steps=1000).window for rule in FORMULAS] == [1, 1, 1, 50]


class NoHostSync(TorchDispatchMode):
    """Fails on the operations that hand a device value to Python."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket not in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.nonzero,
            torch.ops.aten.equal,
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rule", RULES)
def test_no_step_waits_for_the_device(rule, monkeypatch) -> None:
    """Nothing is read back; and the meta device, where nothing can be, goes through the same code."""
    monkeypatch.setattr(dynamic_ema, "HISTORY", 4)  # merging is part of it
    ema = make(rule, parameters())
    with NoHostSync():
        for _ in range(12):
            for p in ema.live:
                p.grad = torch.ones_like(p)
            ema.read_gradients()
            ema.update(1e-2)
    with pytest.raises(AssertionError), NoHostSync():
        ema._distance.sum().item()
    weights = [torch.empty(s, device="meta") for s in SHAPES] if rule == "curvature" else None
    live = [torch.empty(s, device="meta") for s in SHAPES]
    ema = make(rule, live, importance=weights)
    for _ in range(12):
        for p in live:
            p.grad = torch.empty_like(p)
        ema.read_gradients()
        ema.update(1e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rule", RULES)
def test_no_step_waits_for_a_real_device(rule) -> None:
    live = [p.detach().cuda().requires_grad_() for p in parameters()]
    ema = make(rule, live)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            for p in live:
                p.grad = torch.ones_like(p)
            ema.read_gradients()
            ema.update(1e-2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    on_cpu = make(rule, parameters())
    for _ in range(5):
        for p in on_cpu.live:
            p.grad = torch.ones_like(p)
        on_cpu.read_gradients()
        on_cpu.update(1e-2)
    for a, b in zip(ema.average, on_cpu.average, strict=True):
        torch.testing.assert_close(a.cpu(), b)


@pytest.mark.parametrize("rule", ["scale_free", "curvature"])
def test_memory_does_not_grow_with_the_steps_and_the_history_keeps_its_course(rule, monkeypatch) -> None:
    monkeypatch.setattr(dynamic_ema, "HISTORY", 16)
    short, long = make(rule, parameters()), make(rule, parameters())
    monkeypatch.setattr(dynamic_ema, "HISTORY", 1024)
    exact = make(rule, parameters())
    for step in range(150):
        for ema in (long, exact):
            walk(ema, step)
        if step < 16:
            walk(short, step)
    size = {ema: sum(t.numel() for t in ema.state_dict().values()) for ema in (short, long)}
    assert size[long] <= size[short]
    assert short.history() == {key: values[:16] for key, values in exact.history().items()}
    for key, values in long.history().items():  # 150 = 9 rows of 16 and one of 6
        means = [np.mean(exact.history()[key][i : i + 16]) for i in range(0, 150, 16)]
        np.testing.assert_allclose(values, means, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_blocks_are_only_a_way_of_computing(rule, monkeypatch) -> None:
    stacked = make(rule, parameters())
    monkeypatch.setattr(dynamic_ema, "CPU_BLOCK", 1)
    single = make(rule, parameters())
    assert (len(stacked._blocks), len(single._blocks)) == (4, len(SHAPES))
    for step in range(12):
        walk(stacked, step)
        walk(single, step)
    for a, b in zip(stacked.average + stacked.live, single.average + single.live, strict=True):
        torch.testing.assert_close(a, b)
    assert stacked.fallbacks() == single.fallbacks()
    single.load_state_dict(stacked.state_dict())  # and the state does not depend on it
    assert all(torch.equal(a, b) for a, b in zip(stacked.average, single.average, strict=True))
    assert stacked.fallbacks() == single.fallbacks()


def test_a_real_gradient_scaler_that_skips_steps() -> None:
    def train(skip: set[int]) -> DynamicEMA:
        live = parameters()
        optimizer = torch.optim.SGD(live, lr=0.05)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        ema = make("scale_free", live)
        done = 0
        for step in range(8 + len(skip)):
            optimizer.zero_grad()
            loss = sum(((p * (1 + done)).sin()).sum() for p in live) * (float("inf") if step in skip else 1.0)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            ema.read_gradients()
            scale = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            skipped = scaler.get_scale() < scale
            assert skipped == (step in skip)
            ema.update(0.05, skipped=skipped)
            done += not skipped
        return ema

    plain, holed = train(set()), train({0, 3, 4, 7})
    for a, b in zip(plain.average + plain.live, holed.average + holed.live, strict=True):
        assert torch.equal(a, b)
    assert plain.history() == holed.history()
    assert plain.fallbacks() == holed.fallbacks()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swap_shows_theta_star_and_gives_the_live_weights_back(dtype) -> None:
    live = [p.detach().to(dtype).requires_grad_() for p in parameters()]
    ema = make("fixed", live)
    for step in range(5):
        walk(ema, step)
    before = [p.detach().clone() for p in live]
    with ema.swap():
        assert all(torch.equal(p, star.to(dtype)) for p, star in zip(live, ema.average, strict=True))
        with pytest.raises(RuntimeError, match="swapped"), ema.swap():
            pass
        with pytest.raises(RuntimeError, match="leave `swap"):
            ema.update(1e-2)
    with pytest.raises(ZeroDivisionError), ema.swap():
        raise ZeroDivisionError
    assert all(torch.equal(p, b) for p, b in zip(live, before, strict=True))
    assert all(p.requires_grad for p in live)
    walk(ema, 6)
    target = [torch.empty_like(p) for p in live]
    ema.copy_to(target)
    assert all(torch.equal(t, star.to(dtype)) for t, star in zip(target, ema.average, strict=True))


def test_a_step_without_its_gradients_is_an_error() -> None:
    ema = make("scale_free", parameters())
    walk(ema, 0)
    with pytest.raises(RuntimeError, match="needs `read_gradients"):
        ema.update(1e-2)


def test_fallbacks_are_counted_by_name() -> None:
    ema = make("scale_free", parameters(), names=[f"layer.{i}" for i in range(len(SHAPES))])
    for step in range(12):
        walk_with_dead_tensors(ema, step, 0.05, 1.0)
    counts = ema.fallbacks()
    assert counts["layer.0"] == 9  # no gradient change while B is zero; the step in which it appears has one
    assert counts["layer.1"] == 0  # the first step has no previous gradient, and nothing to fall back from
    assert ema.fallback_share() == sum(counts.values()) / (11 * len(SHAPES))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("average.2"), r"average.2 is absent, expected torch.Size\(\[5\]\) \(1 tensors differ\)"),
        (lambda s: s.update({"previous.1": s["previous.0"]}), "previous.1 is"),
        (lambda s: s.update({"average.9": s["average.0"]}), "average.9 is .* expected absent"),
        (lambda s: s.pop("counters"), "counters are absent"),
        (lambda s: s.pop("history"), "history is absent"),
        (lambda s: s["counters"][0].fill_(RULES.index("paper")), "the state is of rule paper"),
        (lambda s: s["counters"][3].fill_(9), "smoothing window of 9 steps, this is scale_free with 2"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_is_changed(change, message) -> None:
    ema, other = make("scale_free", parameters()), make("scale_free", parameters(1))
    for step in range(3):
        walk(ema, step)
    state = ema.state_dict()
    change(state)
    before = [star.clone() for star in other.average]
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(before, other.average, strict=True))
    assert other.updates == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"beta": 1.5}, "beta 1.5"),
        ({"names": ["a"]}, "1 names given for 7"),
        ({"importance": [torch.ones(1)] * 7}, "of its shape"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        make("curvature", parameters(), **options)
    with pytest.raises(ValueError, match="at least one"):
        make("fixed", [])


def test_a_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of none, fixed, paper, released, scale_free, curvature"):
        make("eq45", parameters())


def test_curvature_needs_importance() -> None:
    with pytest.raises(ValueError, match="one importance tensor per parameter"):
        DynamicEMA(parameters(), "curvature", steps=1, peak_lr=1.0)


def test_a_missing_gradient_is_an_error_not_a_silent_fallback() -> None:
    with pytest.raises(ValueError, match="no gradient"):
        make("paper", parameters()).read_gradients()


def test_it_imports_nothing_but_torch() -> None:
    tree = ast.parse(Path(dynamic_ema.__file__).read_text())
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name for n in imports if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in imports if isinstance(n, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"torch"}


STRANGER = """
import sys
import torch
from safetensors.torch import load_file, save_file
from dynamic_ema import DynamicEMA

assert not any(name.split(".")[0] in ("components", "transformers", "peft") for name in sys.modules)


def train(ema, model, optimizer, first, last):
    for step in range(first, last):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(4, 6)).square().mean().backward()
        ema.read_gradients()
        optimizer.step()
        ema.update(0.1)


def begin():
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3)
    names, parameters = zip(*model.named_parameters())
    ema = DynamicEMA(parameters, "scale_free", steps=10, peak_lr=0.1, names=names, smoothing=0.3)
    return ema, model, torch.optim.SGD(parameters, lr=0.1)


whole, model, optimizer = begin()
train(whole, model, optimizer, 0, 10)
first, model, optimizer = begin()
train(first, model, optimizer, 0, 4)
save_file(first.state_dict(), "ema.safetensors")
weights = model.state_dict()
second, model, optimizer = begin()
model.load_state_dict(weights)
second.load_state_dict(load_file("ema.safetensors"))
train(second, model, optimizer, 4, 10)
assert all(torch.equal(a, b) for a, b in zip(whole.average, second.average))
print(second.fallbacks())
"""


def test_a_stranger_copies_the_file_and_uses_it(tmp_path) -> None:
    """Nothing of this project is on the path; a bare loop is resumed."""
    shutil.copy(dynamic_ema.__file__, tmp_path)
    (tmp_path / "loop.py").write_text(STRANGER)
    done = subprocess.run([sys.executable, "loop.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "{'weight': 0, 'bias': 0}\n"), done.stderr


RANK = """
import hashlib
import sys
import torch
from torch import distributed
from dynamic_ema import DynamicEMA

rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
torch.manual_seed(0)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(6, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
ema = DynamicEMA(list(model.parameters()), sys.argv[3], steps=10, peak_lr=0.1)
torch.manual_seed(100 + rank)
for _ in range(6):
    optimizer.zero_grad()
    model(torch.randn(4, 6)).square().mean().backward()
    ema.read_gradients()
    optimizer.step()
    ema.update(0.1)
print(hashlib.sha256(torch.cat([a.flatten() for a in ema.average]).numpy().tobytes()).hexdigest())
"""


def test_processes_with_different_rows_hold_the_same_theta_star(tmp_path) -> None:
    """Gradients are read after DistributedDataParallel has averaged them."""
    shutil.copy(dynamic_ema.__file__, tmp_path)
    (tmp_path / "rank.py").write_text(RANK)
    command = [sys.executable, "rank.py"]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store"), "scale_free"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    (first, error), (second, _) = (rank.communicate(timeout=120) for rank in ranks)
    assert len(first) == 65, error
    assert first == second
