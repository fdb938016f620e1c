"""Tuning on the tiny model: what it keeps, and that failures fail. Resuming: test_resume.py."""

import pytest
import torch
from work_area import Killed, Memory

from components.model.adapters import AdapterSlot
from components.model.trunk import Trunk
from components.model.workbench import Workbench
from components.settings import EmaSettings, RehearsalSettings, TuningSettings
from components.tuning.curvature import diagonal_fisher
from components.tuning.curve import layer_groups
from components.tuning.rehearsal import select_rows
from components.tuning.tuner import Parent, TuningFailed, TuningResult, tune

RULES = ("none", "fixed", "paper", "released", "scale_free", "curvature")
SETTINGS = TuningSettings(
    steps=6,
    batch_size=4,
    max_rows=10,
    learning_rate=1e-2,
    checkpoint_every=2,
    curve=(0.5,),
    ema=EmaSettings(fisher_rows=3, max_fallback=1),
)


def changed(rule: str = "none", **values) -> TuningSettings:
    ema = {"rule": rule, **{k: values.pop(k) for k in list(values) if k in EmaSettings.model_fields}}
    return SETTINGS.model_copy(update={"ema": SETTINGS.ema.model_copy(update=ema), **values})


def run(bench, rows, parent, settings, checkpoints=None) -> TuningResult:
    return tune(bench.trunk, bench.slot, *rows, parent, settings, checkpoints or Memory(), batch_rows=8)


def assert_equal(left: TuningResult, right: TuningResult) -> None:
    assert left.points.keys() == right.points.keys()
    for name, tensors in left.points.items():
        assert all(torch.equal(tensors[n], right.points[name][n]) for n in tensors), name
    assert (left.curvature is None) == (right.curvature is None)
    if left.curvature and right.curvature:
        assert all(torch.equal(left.curvature[n], right.curvature[n]) for n in left.curvature)
    assert (left.losses, left.old_losses, left.history) == (right.losses, right.old_losses, right.history)
    assert (left.fallback_share, left.fallbacks) == (right.fallback_share, right.fallbacks)
    assert (left.rows, left.kept_rows) == (right.rows, right.kept_rows)


def test_what_an_interrupted_run_leaves_in_the_slot_does_no_harm(tiny_bench, rows, parent, tiny_settings) -> None:
    whole = run(tiny_bench, rows, parent, changed("scale_free"))
    for parameter in tiny_bench.slot.parameters.values():
        parameter.grad = torch.ones_like(parameter)
    assert_equal(whole, run(tiny_bench, rows, parent, changed("scale_free")))


def test_a_failed_run_leaves_dropout_switched_off(tiny_settings, load_tiny, rows) -> None:
    base = load_tiny()
    slot = AdapterSlot(base, tiny_settings.adapter.model_copy(update={"dropout": 0.3}))
    with pytest.raises(Killed):
        run(Workbench(base, slot, Trunk(base, slot)), rows, None, changed(), Memory(fatal=1))
    assert not any(m.training for m in slot.model.modules() if isinstance(m, torch.nn.Dropout))


def test_another_seed_gives_other_weights(tiny_bench, rows, parent) -> None:
    first, other = (run(tiny_bench, rows, parent, changed("fixed", seed=seed)) for seed in (0, 1))
    assert not all(torch.equal(first.points["ema"][n], other.points["ema"][n]) for n in parent.adapter)


def test_the_loss_falls(tiny_bench, rows) -> None:
    result = run(tiny_bench, rows, None, changed(steps=40, rehearsal=RehearsalSettings(share=0)))
    assert sum(result.losses[-5:]) < 0.65 * sum(result.losses[:5])
    assert len(result.losses) == 40


def test_a_new_group_is_plain_and_gives_only_the_live_weights(tiny_bench, rows) -> None:
    plain = run(tiny_bench, rows, None, changed("none"))
    protected = run(tiny_bench, rows, None, changed("scale_free"))
    assert set(plain.points) == set(protected.points) == {"live"}
    assert all(torch.equal(plain.points["live"][n], protected.points["live"][n]) for n in plain.points["live"])
    assert protected.history["beta_median"] == []
    assert plain.curvature is None


def test_a_new_group_leaves_its_curvature_for_the_next_task(tiny_bench, rows) -> None:
    result = run(tiny_bench, rows, None, changed("curvature"))
    assert set(result.points) == {"live"}
    flat = torch.cat([t.flatten() for t in result.curvature.values()])
    assert flat.mean().item() == pytest.approx(1, abs=1e-4)


def test_curvature_adds_up_and_theta_star_lies_between_parent_and_live(tiny_bench, rows, parent) -> None:
    result = run(tiny_bench, rows, parent, changed("curvature", kappa=0, decay=1.0))
    for name, old in parent.curvature.items():
        assert (result.curvature[name] >= old - 1e-6).all()
        low = torch.minimum(parent.adapter[name], result.points["live"][name]) - 1e-6
        high = torch.maximum(parent.adapter[name], result.points["live"][name]) + 1e-6
        star = result.points["ema"][name]
        assert ((star >= low) & (star <= high)).all()


def test_the_curvature_of_earlier_tasks_decays(tiny_bench, rows, parent) -> None:
    summed = run(tiny_bench, rows, parent, changed("curvature", decay=1.0)).curvature
    halved = run(tiny_bench, rows, parent, changed("curvature", decay=0.5)).curvature
    for name, old in parent.curvature.items():
        torch.testing.assert_close(summed[name] - halved[name], old / 2)


def test_mixes_lie_on_the_line_from_parent_to_live(tiny_bench, rows, parent) -> None:
    result = run(tiny_bench, rows, parent, changed("fixed", curve=(0.25, 1.0)))
    assert set(result.points) == {"live", "ema", "mix-0.25", "mix-1"}
    for name, start in parent.adapter.items():
        live = result.points["live"][name]
        torch.testing.assert_close(result.points["mix-0.25"][name], start + 0.25 * (live - start))
        torch.testing.assert_close(result.points["mix-1"][name], live)


def test_mixes_by_layers_take_one_share_for_the_lower_and_one_for_the_upper_half(tiny_bench, rows, parent) -> None:
    result = run(tiny_bench, rows, parent, changed("fixed", curve=(0.25, 1.0), curve_by_layers=True))
    assert set(result.points) == {"live", "ema", "mix-0.25", "mix-1", "mix-0.25-1", "mix-1-0.25"}
    lower, upper = layer_groups(list(parent.adapter), 2)
    for names, point in ((lower, "mix-0.25"), (upper, "mix-1")):
        assert all(torch.equal(result.points["mix-0.25-1"][name], result.points[point][name]) for name in names)


def test_mixes_by_layers_of_a_single_adapted_layer_are_refused(tiny_settings, load_tiny, rows) -> None:
    base = load_tiny()
    slot = AdapterSlot(base, tiny_settings.adapter.model_copy(update={"top_layers": 1}))
    with pytest.raises(TuningFailed, match="curve_by_layers is on, but 2 groups of 1 adapted layers"):
        run(Workbench(base, slot, Trunk(base, slot)), rows, None, changed(curve_by_layers=True))


def test_losses_of_earlier_tasks_rows_are_told_apart(tiny_bench, rows, parent) -> None:
    """With a share of 1/9 every second step of four new rows has one old row."""
    settings = changed("fixed", rehearsal=RehearsalSettings(share=1 / 9), checkpoint_every=3)
    result = run(tiny_bench, rows, parent, settings)
    assert [x is None for x in result.old_losses] == [True, False] * 3
    assert run(tiny_bench, rows, parent, changed("fixed", rehearsal=RehearsalSettings(share=0))).old_losses == []


def test_the_smoothing_of_alpha_is_handed_on(tiny_bench, rows, parent) -> None:
    plain, smooth = (run(tiny_bench, rows, parent, changed("scale_free", smoothing=share)) for share in (0, 0.9))
    assert plain.history["beta_median"] != smooth.history["beta_median"]


def test_kept_rows_change_the_run_and_share_zero_leaves_them_out(tiny_bench, rows, parent) -> None:
    new, kept = rows
    none = changed("fixed", rehearsal=RehearsalSettings(share=0))
    with_rows, without = run(tiny_bench, rows, parent, changed("fixed")), run(tiny_bench, rows, parent, none)
    assert (with_rows.kept_rows, without.kept_rows) == (len(kept), 0)
    assert with_rows.losses != without.losses
    assert_equal(without, run(tiny_bench, (new, []), parent, none))


def test_a_loss_that_is_not_finite_fails(tiny_bench, rows) -> None:
    with pytest.raises(TuningFailed, match=r"not finite at step \d+; lower tuning.learning_rate"):
        run(tiny_bench, rows, None, changed(learning_rate=1e35))


def test_a_diverged_run_leaves_no_checkpoint_behind(tiny_bench, rows) -> None:
    memory = Memory()
    with pytest.raises(TuningFailed):
        run(tiny_bench, rows, None, changed(learning_rate=1e35, checkpoint_every=100), memory)
    assert memory.files == {}


def test_too_many_fallbacks_fail(tiny_bench, rows, parent) -> None:
    with pytest.raises(TuningFailed, match=r"'released' fell back .* most of them at base_model\S+ \(\d of 6\), "):
        run(tiny_bench, rows, parent, changed("released", max_fallback=0.05))
    fallbacks = run(tiny_bench, rows, parent, changed("released")).fallbacks
    assert 0 < len(fallbacks) <= 10
    assert list(fallbacks.values()) == sorted(fallbacks.values(), reverse=True)
    assert fallbacks.keys() <= parent.adapter.keys()
    assert run(tiny_bench, rows, parent, changed("fixed")).fallbacks == {}


def test_curvature_without_a_stored_one_is_refused(tiny_bench, rows, parent) -> None:
    with pytest.raises(TuningFailed, match="no stored curvature"):
        run(tiny_bench, rows, Parent(parent.adapter, None), changed("curvature"))


def test_an_adapter_that_did_not_move_is_refused(tiny_bench, rows, parent) -> None:
    with pytest.raises(TuningFailed, match="did not change the adapter"):
        run(tiny_bench, rows, parent, changed("fixed", learning_rate=1e-30))


def test_the_fisher_is_measured_on_rows_drawn_at_random(tiny_bench, rows, parent, monkeypatch) -> None:
    """Packages are often sorted by label: the first rows would be one label's."""
    prompts = [len(row.prompt) for row in rows[0]]
    seen: list[list[tuple[int, ...]]] = []

    def watching(trunk, slot, states, lengths, seed):
        seen.append([state.tokens[:length] for state, length in zip(states, lengths, strict=True)])
        return diagonal_fisher(trunk, slot, states, lengths, seed)

    monkeypatch.setattr("components.tuning.run.diagonal_fisher", watching)
    settings = changed("curvature", max_rows=None)
    for seed in range(4):
        run(tiny_bench, rows, None, settings.model_copy(update={"seed": seed}))
    assert all(len(drawn) == 3 for drawn in seen)
    first = [row.prompt[: prompts[i]] for i, row in enumerate(rows[0][:3])]
    assert sum(drawn == first for drawn in seen) <= 1
    assert len({str(drawn) for drawn in seen}) > 1


def test_the_fisher_that_is_stored_is_that_of_theta_star(tiny_bench, rows, parent) -> None:
    """Of the parent's curvature nothing is kept (decay 0), so what is stored is F_new alone."""
    settings = changed("curvature", decay=0.0, kappa=0.0, tau=3.0)
    result = run(tiny_bench, rows, parent, settings)

    def fisher_at(point: str) -> dict[str, torch.Tensor]:
        tiny_bench.slot.load(result.points[point])
        measured = [rows[0][i] for i in select_rows(12, settings.max_rows, settings.seed)]
        measured = [measured[i] for i in select_rows(10, 3, settings.seed)]
        states = tiny_bench.trunk.states([row.tokens for row in measured], 8)
        values = diagonal_fisher(tiny_bench.trunk, tiny_bench.slot, states, [len(r.prompt) for r in measured], 0)
        return dict(zip(tiny_bench.slot.parameters, values, strict=True))

    def apart(point: str) -> float:
        return sum(float((result.curvature[n] - f).abs().sum()) for n, f in fisher_at(point).items())

    assert apart("ema") < 1e-3 * apart("live")


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "curvature"])
def test_another_rule_hands_the_curvature_on(rule, tiny_bench, rows, parent) -> None:
    result = run(tiny_bench, rows, parent, changed(rule))
    assert all(torch.equal(result.curvature[name], old) for name, old in parent.curvature.items())
    assert run(tiny_bench, rows, Parent(parent.adapter, None), changed(rule)).curvature is None
    run(tiny_bench, rows, Parent(result.points["live"], result.curvature), changed("curvature"))
