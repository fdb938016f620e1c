"""Early stopping: when it measures and ends, and that a run ends in the weights of the best measurement."""

import pytest
import torch
from safetensors.torch import load, save

from components.settings import RehearsalSettings, TuningSettings, length
from components.tuning.early_stopping import EarlyStopping, ValidationScore, validation_rows
from components.tuning.run import Run
from components.tuning.tuner import CHECKPOINT, TuningFailed, tune
from tests.tuning.test_tuner import Killed, Memory, assert_equal, changed

QUIET = RehearsalSettings(share=0)


def stopping(rows: int = 600, measured: int = 100, scores=(), **settings) -> EarlyStopping:
    one = EarlyStopping(length(rows, TuningSettings(**settings)), measured)
    for i, score in enumerate(scores, 1):
        one.add(ValidationScore(i * one.every, *(score if isinstance(score, tuple) else (score, 1.0))))
    return one


@pytest.mark.parametrize(
    ("rows", "settings", "measured", "steps"),
    [
        (600, {}, 100, [37, 74, 111, 148, 185, 222, 225]),  # 225 steps, every half pass; the last weights are measured
        (240, {"epochs": 2.0, "batch_size": 4}, 48, [40, 80, 120]),  # fewer where they would cost much
        (600, {"epochs": 30.0}, 100, [225 * i for i in range(1, 11)]),
        (600, {"steps": 1}, 20, [1]),
        (600, {"steps": 5}, 20, [2, 4, 5]),
        (600, {}, 0, []),
    ],
)
def test_it_measures_about_every_half_pass_as_far_as_that_is_cheap(rows, settings, measured, steps) -> None:
    one = stopping(rows, measured, **settings)
    assert [step for step in range(1, one.length.steps + 1) if one.is_due(step)] == steps


@pytest.mark.parametrize(
    ("rows", "settings", "limit", "expected"),
    [(600, {}, None, 100), (600, {}, 60, 60), (240, {"epochs": 2.0}, None, 48), (600, {"steps": 2}, None, 20)],
)
def test_few_validation_rows_for_a_short_run(rows, settings, limit, expected) -> None:
    assert validation_rows(length(rows, TuningSettings(**settings)), limit) == expected


@pytest.mark.parametrize(
    ("scores", "kept", "over"),
    [
        ((0.5, 0.6, 0.7), 3, False),
        ((0.5, 0.7, 0.6), 2, False),
        ((0.5, 0.7, 0.7, 0.6), 2, False),
        ((0.5, 0.7, 0.7, 0.6, 0.6), 2, True),
        ((0.7, 0.6), 1, False),
        ((0.7, 0.6, 0.6, 0.6), 1, True),
        (((0.7, 2.0), (0.7, 1.9), (0.7, 1.8)), 3, False),  # of equal shares the lower loss
        (((0.7, float("nan")), (0.7, float("nan")), (0.7, float("nan")), (0.7, float("nan"))), 1, True),
    ],
)
def test_three_measurements_without_a_gain_end_it(scores, kept, over) -> None:
    one = stopping(scores=scores, max_steps=10_000)
    assert one.best == one.checks[kept - 1]
    assert one.is_over(len(scores) * one.every) is over


def test_it_never_ends_before_every_row_was_read() -> None:
    one = stopping(scores=(0.9, 0.1, 0.1, 0.1), epochs=1.0)
    assert not one.is_over(74)
    assert one.is_over(75)


def test_the_end_is_put_into_words() -> None:
    assert stopping(scores=(0.5, 0.7, 0.6, 0.6, 0.6)).record(185)["words"] == (
        "stopped after step 185 of 225: no gain on validation since step 74"
    )
    assert stopping(scores=(0.5, 0.7)).record(225)["words"] == (
        "ran all 225 steps; the weights are those of step 74, the best on validation"
    )
    assert stopping().record(225) == {"checks": [], "step": 225, "words": "ran all 225 steps"}


# -- runs on the tiny model ---------------------------------------------------------------------------


def run(bench, rows, parent, settings, validation, checkpoints=None):
    return tune(bench.trunk, bench.slot, *rows, parent, settings, checkpoints, 8, validation=validation)


def scripted(monkeypatch, scores) -> None:
    """Let the measurements have given scores, in turn; the real ones are made all the same."""
    add = EarlyStopping.add

    def adding(self, check):
        return add(self, check._replace(score=scores[len(self.checks)]))

    monkeypatch.setattr(EarlyStopping, "add", adding)


@pytest.mark.parametrize("rule", ["none", "fixed", "scale_free", "curvature"])
def test_a_run_ends_in_the_weights_of_its_best_measurement(rule, tiny_bench, rows, parent, monkeypatch) -> None:
    settings = changed(rule, steps=24, min_steps=1, checkpoint_every=3, kappa=1.0)
    scripted(monkeypatch, (0.1, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4))
    result = run(tiny_bench, rows, parent, settings, rows[0][:3])
    step = result.stopping["checks"][1][0]
    assert result.stopping["step"] == step
    assert len(result.losses) == result.stopping["checks"][4][0] < 24
    until = changed(rule, steps=24, early_stopping=False, kappa=1.0)
    whole = Run.step

    class Enough(Exception):
        pass

    def stepping(self, number, *rest):
        if number == step:
            seen["live"] = self.slot.tensors()
            seen["ema"] = [t.clone() for t in self.ema.average]
            raise Enough
        whole(self, number, *rest)

    seen: dict = {}
    monkeypatch.setattr(Run, "step", stepping)
    with pytest.raises(Enough):
        run(tiny_bench, rows, parent, until, ())
    assert all(torch.equal(result.points["live"][n], t) for n, t in seen["live"].items())
    if rule in ("fixed", "scale_free"):
        assert all(torch.equal(result.points["ema"][n], t) for n, t in zip(seen["live"], seen["ema"], strict=True))


@pytest.mark.parametrize("rule", ["none", "scale_free", "curvature"])
def test_a_run_that_stopped_early_resumes_to_the_same_bytes(rule, tiny_bench, rows, parent, monkeypatch) -> None:
    settings = changed(rule, steps=24, min_steps=1, checkpoint_every=1)
    scripted(monkeypatch, (0.1, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4))
    whole = run(tiny_bench, rows, parent, settings, rows[0][:3])
    for step in range(len(whole.losses)):
        memory = Memory(fatal=2 * step + 1)
        with pytest.raises(Killed):
            run(tiny_bench, rows, parent, settings, rows[0][:3], memory)
        memory.fatal = 0
        tiny_bench.slot.initialise(99)
        resumed = run(tiny_bench, rows, parent, settings, rows[0][:3], memory)
        assert_equal(resumed, whole)
        assert resumed.stopping == whole.stopping
    writes = memory.writes
    assert_equal(run(tiny_bench, rows, parent, settings, rows[0][:3], memory), whole)  # called again when it has ended
    assert memory.writes == writes
    tensors = load(memory.files[CHECKPOINT])
    metadata = {"step": str(len(whole.losses)), "checks": str([list(c) for c in whole.stopping["checks"]])}
    changed_best = {n: t + (0.01 if n.startswith("best.") else 0) for n, t in tensors.items()}
    memory.files[CHECKPOINT] = save(changed_best, metadata=metadata)
    again = run(tiny_bench, rows, parent, settings, rows[0][:3], memory)
    assert not all(torch.equal(again.points["live"][n], t) for n, t in whole.points["live"].items())


def test_a_measurement_is_the_share_of_whole_answers_and_changes_nothing(tiny_bench, rows, parent) -> None:
    settings = changed("fixed", steps=40, rehearsal=QUIET, learning_rate=0.03)
    with_checks = run(tiny_bench, rows, None, settings, rows[0])
    plain = run(tiny_bench, rows, None, settings, ())
    assert with_checks.losses == plain.losses[: len(with_checks.losses)]
    checks = with_checks.stopping["checks"]
    assert checks[-1][1] == 1  # the rows that it learns from
    assert checks[-1][2] < checks[0][2]
    nothing = run(tiny_bench, rows, None, changed("fixed", rehearsal=QUIET, learning_rate=1e-6), rows[0])
    assert {score for _, score, _ in nothing.stopping["checks"]} == {0}
    assert plain.stopping == {"checks": [], "step": 40, "words": "ran all 40 steps"}


def test_weights_that_are_not_finite_after_the_last_step_fail(tiny_bench, rows) -> None:
    """The losses of the steps were taken before; without the measurement nobody would have noticed."""
    with pytest.raises(TuningFailed, match="on validation rows is not finite after step 1; lower"):
        run(tiny_bench, rows, None, changed(steps=1, warmup=0.0, learning_rate=1e35), rows[0])


def test_switched_off_it_measures_nothing(tiny_bench, rows, parent) -> None:
    assert run(tiny_bench, rows, parent, changed("fixed", early_stopping=False), rows[0]).stopping["checks"] == []
