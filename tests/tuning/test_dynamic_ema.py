"""Dynamic EMA against slow references in numpy, written from the formulas in its docstring."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tuning import dynamic_ema
from components.tuning.dynamic_ema import RULES, DynamicEMA

SHAPES = ((4, 7), (3, 4), (5,))
FORMULAS = ("fixed", "paper", "released", "scale_free")
OPTIONS = {"steps": 40, "peak_lr": 1e-2, "beta": 0.97, "rho": 0.1, "alpha_min": 1e-4, "horizon": 3.0, "kappa": 30.0}


class Reference:
    """One tensor, float64, one plain line per formula; alpha of step t from theta and g of steps t and t-1."""

    def __init__(self, rule: str, theta: np.ndarray) -> None:
        self.rule, self.star, self.fallbacks = rule, theta.astype(np.float64), 0
        self.theta_before, self.star_before = self.star.copy(), self.star.copy()
        self.g_before: np.ndarray | None = None

    def step(self, theta: np.ndarray, g: np.ndarray) -> None:
        theta, g = theta.astype(np.float64), g.astype(np.float64)
        alpha = self._alpha(theta, g)
        self.theta_before, self.star_before, self.g_before = theta, self.star + alpha * (theta - self.star), g
        self.star = self.star_before

    def _alpha(self, theta: np.ndarray, g: np.ndarray) -> float:
        if self.rule == "fixed":
            return 1 - OPTIONS["beta"]
        d = np.abs(theta - self.star).sum()
        y = 0.0 if self.g_before is None else np.abs(g - self.g_before).sum()
        norm = np.abs(g).sum()
        if d < 1e-12 or y < 1e-12:
            self.fallbacks += 1
            return {"paper": 1 - OPTIONS["beta"], "released": 0.01, "scale_free": OPTIONS["alpha_min"]}[self.rule]
        if self.rule == "scale_free":
            raw = OPTIONS["rho"] * OPTIONS["peak_lr"] * theta.size * (norm / y) / d
            return float(np.clip(raw, OPTIONS["alpha_min"], OPTIONS["horizon"] / OPTIONS["steps"]))
        if self.rule == "paper":  # Eq. 45: 1 - beta = |theta_(t-1) - theta*_(t-1)| (1 + |g|) / (|d| |y|)
            raw = np.abs(self.theta_before - self.star_before).sum() * (1 + norm) / (d * y)
        else:
            raw = 2 * (1 + norm) / (d * y)
        if 0 < raw < 1:
            return float(raw)
        self.fallbacks += 1
        return {"paper": 1 - OPTIONS["beta"], "released": 0.01}[self.rule]


def parameters(seed: int = 0, scale: float = 1.0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [(torch.randn(shape, generator=draw) * scale).requires_grad_() for shape in SHAPES]


def importance(seed: int = 7) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=draw) * 2 for shape in SHAPES]


def make(rule: str, live: list[torch.Tensor]) -> DynamicEMA:
    return DynamicEMA(live, rule, **OPTIONS, importance=importance() if rule == "curvature" else None)


def walk(ema: DynamicEMA, step: int, *, size: float = 0.05, gradient: float = 1.0, skipped: bool = False) -> None:
    """One made-up optimizer step: a drift that is the same for the same step number."""
    draw = torch.Generator().manual_seed(1000 + step)
    for p in ema.live:
        p.grad = torch.randn(p.shape, generator=draw) * gradient
    ema.read_gradients()
    if not skipped:
        with torch.no_grad():
            for p in ema.live:
                p.add_(torch.randn(p.shape, generator=draw) * size)
    ema.update(OPTIONS["peak_lr"], skipped=skipped)


@pytest.mark.parametrize("rule", FORMULAS)
@pytest.mark.parametrize(("size", "gradient"), [(0.05, 1.0), (0.5, 0.02), (20.0, 30.0)])
def test_every_step_equals_the_formula(rule, size, gradient) -> None:
    live = parameters()
    ema, references = make(rule, live), [Reference(rule, p.detach().numpy()) for p in live]
    for step in range(25):
        walk(ema, step, size=size, gradient=gradient)
        for p, reference, star in zip(live, references, ema.average, strict=True):
            reference.step(p.detach().numpy(), p.grad.numpy())
            np.testing.assert_allclose(star.numpy(), reference.star, rtol=2e-4, atol=2e-5 * size)
    expected = sum(r.fallbacks for r in references) / (25 * len(live))
    assert ema.fallback_share() == pytest.approx(expected)


def test_the_cases_above_reach_both_the_formula_and_the_fallback() -> None:
    shares = {}
    for rule in ("paper", "released"):
        for size, gradient in ((0.05, 1.0), (20.0, 30.0)):
            ema = make(rule, parameters())
            for step in range(25):
                walk(ema, step, size=size, gradient=gradient)
            shares[rule, size] = ema.fallback_share()
    assert shares["released", 0.05] > 0.8  # as measured on small adapters: the constant does not fit
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
    assert {name.split(".")[0] for name in names} == {"torch", "collections", "typing"}
