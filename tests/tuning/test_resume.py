"""A tuning run killed after any step and resumed ends in the bytes of an undisturbed one; a cold start does not.

Killing a real process is tested in tests/faults.
"""

import hashlib
import json
import os
import signal

import pytest
import torch
from safetensors.torch import load, save

from components.model.adapters import AdapterSlot
from components.model.trunk import Trunk
from components.model.workbench import Workbench
from components.tuning.progress_curves import curves, read_curves
from components.tuning.run import Run, _metadata
from components.tuning.tuner import CHECKPOINT, Parent, TuningResult
from tests.tuning.test_tuner import RULES, Killed, Memory, assert_equal, changed, run

pytestmark = pytest.mark.slow

STEPS = 6
DYNAMIC = ("paper", "released", "scale_free")


@pytest.fixture
def bench(tiny_settings, load_tiny) -> Workbench:
    """A bench whose adapter has dropout, so that random numbers are part of what must be resumed."""
    base = load_tiny()
    slot = AdapterSlot(base, tiny_settings.adapter.model_copy(update={"dropout": 0.3}))
    return Workbench(base, slot, Trunk(base, slot))


def settings_of(rule: str, **values):
    return changed(rule, steps=STEPS, checkpoint_every=1, **values)


def killed_after(step: int, bench, rows, parent, settings) -> Memory:
    """The checkpoints of a run that dies in the step after `step`."""
    memory = Memory(fatal=2 * step + 1)  # each checkpoint is two files
    with pytest.raises(Killed):
        run(bench, rows, parent, settings, memory)
    memory.fatal = 0
    bench.slot.initialise(99)  # what a new process finds in the slot is something else
    torch.manual_seed(step)
    return memory


def digest(result: TuningResult, point: str = "ema") -> str:
    tensors = result.points.get(point, result.points["live"])
    return hashlib.sha256(save({name: tensors[name].contiguous() for name in sorted(tensors)})).hexdigest()


@pytest.mark.parametrize("rule", RULES)
def test_killed_after_any_step_and_resumed_is_as_if_undisturbed(rule, bench, rows, parent) -> None:
    settings = settings_of(rule)
    whole = run(bench, rows, parent, settings)
    assert whole.kept_rows > 0
    for step in range(STEPS):
        memory = killed_after(step, bench, rows, parent, settings)
        resumed = run(bench, rows, parent, settings, memory)
        assert digest(resumed) == digest(whole), step
        assert_equal(resumed, whole)


def test_mixes_by_layers_resume_too(bench, rows, parent) -> None:
    settings = settings_of("fixed", curve=(0.3, 0.6), curve_by_layers=True)
    whole = run(bench, rows, parent, settings)
    assert {"mix-0.3-0.6", "mix-0.6-0.3"} < whole.points.keys()
    for step in range(0, STEPS, 2):
        memory = killed_after(step, bench, rows, parent, settings)
        assert_equal(run(bench, rows, parent, settings, memory), whole)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("step", [1, 4])
def test_a_cold_start_from_the_live_weights_is_something_else(rule, step, bench, rows, parent) -> None:
    """What a run without checkpoints can do: train the rest of the steps from the weights it had."""
    whole = run(bench, rows, parent, settings_of(rule))
    memory = killed_after(step, bench, rows, parent, settings_of(rule))
    tensors = load(memory.files[CHECKPOINT])
    live = {name.removeprefix("live."): t for name, t in tensors.items() if name.startswith("live.")}
    cold = run(
        bench, rows, Parent(live, parent.curvature), settings_of(rule).model_copy(update={"steps": STEPS - step})
    )
    assert digest(cold) != digest(whole)
    assert digest(cold, "live") != digest(whole, "live")


@pytest.mark.parametrize(
    ("rule", "part"),
    [
        ("none", "live."),
        ("none", "optimizer."),
        ("fixed", "ema.average."),
        ("curvature", "ema.start."),
        ("paper", "ema.distance"),
        *((rule, "ema.previous.") for rule in DYNAMIC),
    ],
)
def test_every_part_of_the_checkpoint_is_needed(rule, part, bench, rows, parent) -> None:
    """The tests above can fail: with one part of the checkpoint changed the end is another."""
    settings = settings_of(rule, horizon=STEPS * 1.0)
    whole = run(bench, rows, parent, settings)
    memory = killed_after(3, bench, rows, parent, settings)
    tensors = load(memory.files[CHECKPOINT])
    metadata = {"step": "3"}
    touched = [name for name, t in tensors.items() if name.startswith(part) and not name.endswith(".step")]
    assert touched
    for name in touched:
        tensors[name] = tensors[name] * 3 + 0.01
    memory.files[CHECKPOINT] = save(tensors, metadata=metadata)
    assert digest(run(bench, rows, parent, settings, memory)) != digest(whole)


def test_the_order_of_rows_and_the_dropout_go_on_where_they_were(bench, rows, parent) -> None:
    whole = run(bench, rows, parent, settings_of("fixed"))
    other_order = run(bench, rows, parent, settings_of("fixed", seed=1))
    assert digest(other_order) != digest(whole)
    memory = killed_after(2, bench, rows, parent, settings_of("fixed"))
    resumed = run(bench, rows, parent, settings_of("fixed"), memory)
    assert resumed.losses == whole.losses  # each loss depends on its batch and its dropout


@pytest.mark.parametrize("rule", ["none", "scale_free"])
def test_the_curves_so_far_can_be_watched(rule, bench, rows, parent) -> None:
    whole = run(bench, rows, parent, settings_of(rule))
    finished = curves({"rule": rule, **vars(whole)})
    assert len(finished["loss"]) == STEPS
    assert ("beta" in finished) == (rule != "none")
    assert read_curves(Memory()) is None
    seen = read_curves(killed_after(3, bench, rows, parent, settings_of(rule)))
    assert seen == {name: [(step, value) for step, value in points if step <= 3] for name, points in finished.items()}


def test_a_run_killed_at_every_checkpoint_still_ends_in_the_same_bytes(bench, rows, parent) -> None:
    settings = changed("scale_free", steps=8, checkpoint_every=3)  # the last checkpoint is off the grid
    whole = run(bench, rows, parent, settings)
    files: dict[str, bytes] = {}
    for _ in range(2):
        with pytest.raises(Killed):
            run(bench, rows, parent, settings, Memory(files, fatal=2))
    assert_equal(whole, run(bench, rows, parent, settings, Memory(files)))


def test_a_finished_run_called_again_gives_its_result_from_the_checkpoint(bench, rows, parent) -> None:
    memory = Memory()
    first = run(bench, rows, parent, changed("curvature"), memory)
    writes = memory.writes
    assert_equal(first, run(bench, rows, parent, changed("curvature"), memory))
    assert memory.writes == writes


def test_a_new_group_resumes_too(bench, rows) -> None:
    whole = run(bench, rows, None, settings_of("scale_free"))
    memory = killed_after(3, bench, rows, None, settings_of("scale_free"))
    assert_equal(whole, run(bench, rows, None, settings_of("scale_free"), memory))


def test_asked_to_stop_it_writes_a_checkpoint_first(bench, rows, parent, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM, as when a node is drained: nothing is lost, and whoever handled the signal before still does."""
    settings = changed("curvature", steps=STEPS, checkpoint_every=100)
    whole = run(bench, rows, parent, settings)

    def interrupted(*_: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        memory, step = Memory(), Run.step

        def stepping(self, number: int, *rest: object) -> None:
            if number == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            step(self, number, *rest)

        with monkeypatch.context() as patched:
            patched.setattr(Run, "step", stepping)
            with pytest.raises(InterruptedError):
                run(bench, rows, parent, settings, memory)
        assert signal.getsignal(signal.SIGTERM) is interrupted
    finally:
        signal.signal(signal.SIGTERM, before)
    assert _metadata(memory.files[CHECKPOINT])["step"] == 3
    bench.slot.initialise(99)
    assert_equal(run(bench, rows, parent, settings, memory), whole)
    assert whole.resumed_across == ()


def test_another_kind_of_machine_is_on_record(bench, rows, parent) -> None:
    settings = settings_of("curvature")
    memory = killed_after(2, bench, rows, parent, settings)
    content = memory.files[CHECKPOINT]
    told = _metadata(content) | {"places": ["cuda:NVIDIA H200, 16 threads, torch 2.13.0"]}
    memory.files[CHECKPOINT] = save(load(content), metadata={key: json.dumps(value) for key, value in told.items()})
    assert run(bench, rows, parent, settings, memory).resumed_across == ("cuda:NVIDIA H200, 16 threads, torch 2.13.0",)
