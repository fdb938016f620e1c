"""Tuning in less memory: halved passes, gradients computed again, bfloat16 and four-bit bases."""

import importlib.util

import pytest
import torch
from work_area import Killed, Memory

from components.model.adapters import AdapterSlot
from components.model.base import BaseModelError
from components.model.memory import OutOfMemory, enough_memory
from components.model.trunk import Trunk
from components.model.workbench import Workbench
from components.settings import BaseModelSettings
from components.tuning.run import Run, _metadata
from components.tuning.tuner import CHECKPOINT
from tests.tuning.test_tuner import assert_equal, changed, run


def full_beyond(monkeypatch: pytest.MonkeyPatch, rows: int) -> list[int]:
    """Let passes of more than `rows` rows fail as on a GPU whose memory is full; returns what was tried."""
    tried: list[int] = []
    whole = Trunk.answer_logits

    def answer_logits(self: Trunk, states, *rest):
        tried.append(len(states))
        if len(states) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, states, *rest)

    monkeypatch.setattr(Trunk, "answer_logits", answer_logits)
    return tried


def test_what_does_not_fit_is_halved_and_stays_so(tiny_bench, rows, parent, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = changed("scale_free", batch_size=8, rows_per_pass="auto")
    singly = run(tiny_bench, rows, parent, settings.model_copy(update={"rows_per_pass": 3}))
    memory = Memory()
    with monkeypatch.context() as patched:
        tried = full_beyond(patched, 3)
        found = run(tiny_bench, rows, parent, settings, memory)
    assert tried[:3] == [11, 6, 3], "8 new rows, 3 old ones"
    assert max(tried[3:]) == 3, "what was found is kept"
    assert_equal(found, singly)
    assert _metadata(memory.files[CHECKPOINT])["rows_per_pass"] == 3


def test_a_checkpoint_does_not_say_how_much_is_read_where_the_settings_do(
    tiny_bench, rows, parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where layers are spread since, whose processes must go row by row."""
    settings, memory = changed("fixed", batch_size=8), Memory(fatal=3)
    with pytest.raises(Killed):
        run(tiny_bench, rows, parent, settings, memory)
    memory.fatal = 0
    tried = full_beyond(monkeypatch, 2)
    run(tiny_bench, rows, parent, settings.model_copy(update={"rows_per_pass": 2}), memory)
    assert set(tried) == {2}


def test_where_one_row_does_not_fit_it_says_what_would_help(tiny_bench, rows, parent, monkeypatch) -> None:
    full_beyond(monkeypatch, 0)
    with pytest.raises(OutOfMemory, match=r"ran out of memory while tuning; set tuning.rows_per_pass to auto"):
        run(tiny_bench, rows, parent, changed("fixed", rows_per_pass="auto"))


def test_without_auto_nothing_is_tried_again(tiny_bench, rows, parent, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = full_beyond(monkeypatch, 2)
    with pytest.raises(OutOfMemory):
        run(tiny_bench, rows, parent, changed("fixed"))
    assert tried == [5]


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="cuBLAS"), enough_memory("while tuning", "buy more"):
        raise RuntimeError("cuBLAS")


def kept_bytes(bench: Workbench, rows, *, again: bool) -> int:
    """What one pass keeps for its backward pass."""
    kept: dict[int, int] = {}
    trained = {p.data_ptr() for p in bench.base.model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in trained:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    states = bench.trunk.states([row.tokens for row in rows], 8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), bench.trunk.recomputing(active=again):
        logits = bench.trunk.answer_logits(states, [len(row.prompt) for row in rows])
    del logits
    return sum(kept.values())


def test_gradients_computed_again_are_the_same_and_less_is_kept(tiny_bench, tiny_settings, rows, parent) -> None:
    settings = changed("scale_free")
    plain = run(tiny_bench, rows, parent, settings)
    again = run(tiny_bench, rows, parent, settings.model_copy(update={"gradient_checkpointing": True}))
    assert_equal(plain, again)
    assert kept_bytes(tiny_bench, rows[0], again=True) < 0.5 * kept_bytes(tiny_bench, rows[0], again=False)
    assert not any(module.training for module in tiny_bench.base.model.modules())


def test_dropout_is_drawn_the_same_again(tiny_settings, load_tiny, rows, parent) -> None:
    base = load_tiny()
    slot = AdapterSlot(base, tiny_settings.adapter.model_copy(update={"dropout": 0.3}))
    bench = Workbench(base, slot, Trunk(base, slot))
    settings = changed("fixed")
    plain = run(bench, rows, parent, settings)
    assert_equal(plain, run(bench, rows, parent, settings.model_copy(update={"gradient_checkpointing": True})))


def bench_of(settings, base) -> Workbench:
    slot = AdapterSlot(base, settings.adapter)
    return Workbench(base, slot, Trunk(base, slot))


def distance(left, right, parent) -> float:
    """How far two live adapters are apart, as a share of the way from the parent."""
    way = sum(float((t - parent.adapter[n]).square().sum()) for n, t in left.points["live"].items())
    gap = sum(float((t - right.points["live"][n]).square().sum()) for n, t in left.points["live"].items())
    return (gap / way) ** 0.5


def test_a_bfloat16_base_multiplies_in_bfloat16_and_learns_in_float32(
    tiny_settings, tiny_bench, load_tiny, rows, parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(tiny_settings, load_tiny(dtype="bfloat16"))
    seen: set[tuple[torch.dtype, ...]] = set()
    losses = Run._losses

    def watched(self: Run, places):
        made = losses(self, places)
        seen.add(tuple({p.dtype for p in (*self.parameters, *self.ema.average)}))
        return made

    monkeypatch.setattr(Run, "_losses", watched)
    lora: set[torch.dtype] = set()
    for name, module in bench.slot.model.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda _, __, made: lora.add(made.dtype) if made.requires_grad else None)
    settings = changed("scale_free")
    half, whole = run(bench, rows, parent, settings), run(tiny_bench, rows, parent, settings)
    assert seen == {(torch.float32,)}
    assert lora == {torch.bfloat16}
    assert distance(whole, half, parent) < 0.3


def test_a_base_in_four_bits_is_tuned(tiny_settings, tiny_bench, load_tiny, rows, parent) -> None:
    import bitsandbytes

    base = load_tiny(quantization="nf4")
    layer = base.model.get_decoder().layers[0].mlp.up_proj
    assert isinstance(layer, bitsandbytes.nn.Linear4bit)
    assert base.numerics["quantization"] == f"nf4, bitsandbytes {bitsandbytes.__version__}"
    assert base.numerics_digest != tiny_bench.base.numerics_digest
    bench = bench_of(tiny_settings, base)
    settings = changed("scale_free", steps=20)
    made = run(bench, rows, parent, settings)
    assert made.losses[-1] < 0.9 * made.losses[0]
    assert {t.dtype for t in made.points["ema"].values()} == {torch.float32}
    assert_equal(made, run(bench, rows, parent, settings))


def test_four_bits_without_their_package(load_tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name))
    with pytest.raises(BaseModelError, match=r"needs the package bitsandbytes: pip install 'lcia\[qlora\]'"):
        load_tiny(quantization="nf4")


def test_four_bits_are_not_spread() -> None:
    with pytest.raises(ValueError, match="sharded and quantization are both set"):
        BaseModelSettings(sharded=True, quantization="nf4")
