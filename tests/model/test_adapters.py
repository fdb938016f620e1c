import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel

from components.model import adapters
from components.model.adapters import (
    AdapterError,
    AdapterSlot,
    config_of,
    fetch_adapter,
    first_layer,
    first_layer_of,
    read_weights,
    store_adapter,
)
from components.settings import AdapterSettings
from components.storage.objects import ObjectCorrupt


def noise(slot: AdapterSlot, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=draw) * 0.1 for name, p in slot.parameters.items()}


IDS = torch.arange(3, 40)[None]


def test_a_saved_adapter_gives_the_same_logits_in_plain_peft(tiny_bench, load_tiny, tmp_path) -> None:
    slot = tiny_bench.slot
    adapter = noise(slot)
    for name, data in slot.files(adapter, "b" * 64).items():
        (tmp_path / name).write_bytes(data)
    slot.load(adapter)
    with torch.no_grad():
        ours = slot.model(input_ids=IDS).logits
        theirs = PeftModel.from_pretrained(load_tiny().model, tmp_path).eval()(input_ids=IDS).logits
        alone = load_tiny().model(input_ids=IDS).logits
    torch.testing.assert_close(ours, theirs)
    assert (ours - alone).abs().max() > 0.1


def test_equal_tensors_give_equal_bytes_in_any_order(tiny_bench, load_tiny, tiny_settings) -> None:
    adapter = noise(tiny_bench.slot)
    files = tiny_bench.slot.files(adapter, "b" * 64)
    backwards = {name: adapter[name].clone() for name in reversed(adapter)}
    modules = tuple(reversed(tiny_settings.adapter.modules))
    other = AdapterSlot(load_tiny(), tiny_settings.adapter.model_copy(update={"modules": modules}))
    assert other.files(backwards, "b" * 64) == files
    assert str(tiny_settings.base_model.name) not in files["adapter_config.json"].decode()
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "sha256:" + "b" * 64


def test_a_fresh_adapter_changes_nothing_and_follows_its_seed(tiny_bench) -> None:
    slot = tiny_bench.slot
    slot.initialise(0)
    first = slot.tensors()
    with torch.no_grad():
        applied = slot.model(input_ids=IDS).logits
        with slot.switched_off():
            torch.testing.assert_close(slot.model(input_ids=IDS).logits, applied)
    slot.initialise(0)
    assert all(torch.equal(first[n], t) for n, t in slot.tensors().items())
    slot.initialise(1)
    assert not all(torch.equal(first[n], t) for n, t in slot.tensors().items())


def test_switched_off_is_the_base_model_and_switching_back_restores(tiny_bench, tiny_base) -> None:
    slot = tiny_bench.slot
    slot.load(noise(slot))
    with torch.no_grad():
        before = slot.model(input_ids=IDS).logits
        with slot.switched_off():
            torch.testing.assert_close(slot.model(input_ids=IDS).logits, tiny_base.model(input_ids=IDS).logits)
        assert torch.equal(slot.model(input_ids=IDS).logits, before)
    assert all(p.requires_grad for p in slot.parameters.values())


def test_only_the_last_layers_train_and_the_names_are_pefts(tiny_bench) -> None:
    slot = tiny_bench.slot
    assert slot.first_layer == 2
    assert list(slot.parameters) == sorted(slot.parameters)
    assert len(slot.parameters) == 2 * 7 * 2
    assert {n.split(".layers.")[1][0] for n in slot.parameters} == {"2", "3"}
    trained = [n for n, p in slot.model.named_parameters() if p.requires_grad]
    assert len(trained) == len(slot.parameters)


def test_tensors_are_a_copy(tiny_bench) -> None:
    slot = tiny_bench.slot
    adapter = noise(slot)
    slot.load(adapter)
    kept = slot.tensors()
    slot.initialise(0)
    assert all(torch.equal(kept[n], adapter[n]) for n in adapter)


def test_names_and_shapes_that_do_not_fit_are_refused(tiny_bench) -> None:
    slot = tiny_bench.slot
    adapter = noise(slot)
    first = next(iter(adapter))
    with pytest.raises(AdapterError, match=f"1 names differ, first {first}"):
        slot.load({n: t for n, t in adapter.items() if n != first})
    with pytest.raises(AdapterError, match=r"was `adapter.rank` lowered"):
        slot.load({**adapter, first: torch.zeros(3, 5)})
    with pytest.raises(AdapterError, match="first aaa"):
        slot.load({**adapter, "aaa": torch.zeros(1)})


def test_slots_that_do_not_fit_the_model_are_refused(load_tiny, tiny_settings) -> None:
    for change, words in (
        ({"top_layers": 9}, "the base model has 4 layers"),
        ({"modules": ("c_attn",)}, "adapter.modules c_attn do not occur"),
    ):
        with pytest.raises(AdapterError, match=words):
            AdapterSlot(load_tiny(), tiny_settings.adapter.model_copy(update=change))


def test_dropout_acts_only_where_switched_on(load_tiny, tiny_settings) -> None:
    slot = AdapterSlot(load_tiny(), tiny_settings.adapter.model_copy(update={"dropout": 0.5}))
    slot.load(noise(slot))
    with torch.no_grad():
        calm = [slot.model(input_ids=IDS).logits for _ in range(2)]
        slot.dropout(active=True)
        wild = [slot.model(input_ids=IDS).logits for _ in range(2)]
        slot.dropout(active=False)
        assert torch.equal(calm[0], slot.model(input_ids=IDS).logits)
    assert torch.equal(*calm)
    assert not torch.equal(*wild)


def test_store_and_fetch(tiny_bench, store) -> None:
    slot = tiny_bench.slot
    adapter = noise(slot)
    digest = store_adapter(store, slot.files(adapter, tiny_bench.base.digest))
    for fetched in (fetch_adapter(store, digest), slot.fetch(store, digest)):
        assert all(torch.equal(fetched[n], adapter[n]) for n in adapter)
    assert store_adapter(store, slot.files(slot.fetch(store, digest), tiny_bench.base.digest)) == digest


def test_objects_that_are_no_adapter_are_refused(tiny_bench, store) -> None:
    other = store_adapter(store, {"readme.txt": b"nothing"})
    with pytest.raises(AdapterError, match=r"holds readme.txt, expected adapter_model.safetensors"):
        fetch_adapter(store, other)
    with pytest.raises(ObjectCorrupt, match="expected to be a folder"):
        fetch_adapter(store, store.put_json({"kind": "task"}))
    broken = store_adapter(store, {"adapter_model.safetensors": b"no tensors", "adapter_config.json": b"{}"})
    with pytest.raises(AdapterError, match="safetensors"):
        fetch_adapter(store, broken)


@pytest.mark.parametrize(
    "change",
    [{"alpha": 4.0}, {"rank": 2}, {"rank": 8, "alpha": 16}, {"top_layers": 3}, {"modules": ("q_proj",)}],
)
def test_an_adapter_made_under_other_settings_is_refused(tiny_bench, store, load_tiny, tiny_settings, change) -> None:
    other = AdapterSlot(load_tiny(), tiny_settings.adapter.model_copy(update=change))
    digest = store_adapter(store, other.files(noise(other), tiny_bench.base.digest))
    with pytest.raises(AdapterError, match="a pool keeps the adapter"):
        tiny_bench.slot.fetch(store, digest)


def test_read_weights_reads_what_was_written(tiny_bench) -> None:
    adapter = noise(tiny_bench.slot)
    read = read_weights(tiny_bench.slot.files(adapter, "b" * 64)["adapter_model.safetensors"])
    assert all(torch.equal(read[n], adapter[n]) for n in adapter)


@pytest.mark.parametrize(("numerics", "limit", "first"), [("cpu:x86", 12, 0), ("cpu:x86", 3, 1), ("cuda:H200", 3, 0)])
def test_auto_is_all_layers_on_a_gpu_and_the_last_ones_on_a_cpu(load_tiny, monkeypatch, numerics, limit, first) -> None:
    monkeypatch.setattr(adapters, "CPU_LAYERS", limit)
    base = load_tiny()
    slot = AdapterSlot(replace(base, numerics={**base.numerics, "device": numerics}), AdapterSettings())
    assert (slot.first_layer, slot.own_first_layer) == (first, first)


SMALLER = [{"top_layers": 1}, {"rank": 2, "alpha": 4}, {"rank": 1, "alpha": 2, "top_layers": 1}]


@pytest.mark.parametrize("change", SMALLER)
def test_a_smaller_adapter_computes_the_same_in_a_larger_slot(
    tiny_bench, store, load_tiny, tiny_settings, change
) -> None:
    small, slot = AdapterSlot(load_tiny(), tiny_settings.adapter.model_copy(update=change)), tiny_bench.slot
    adapter = noise(small)
    small.load(adapter)
    digest = store_adapter(store, small.files(adapter, tiny_bench.base.digest))
    whole = slot.fetch(store, digest)
    assert whole.keys() == slot.parameters.keys()
    slot.load(whole)
    with torch.no_grad():
        expected = small.model(input_ids=IDS).logits
        torch.testing.assert_close(slot.model(input_ids=IDS).logits, expected)
        slot.initialise(3)
        slot.load(adapter)  # as a bundle hands it over, without its configuration
        torch.testing.assert_close(slot.model(input_ids=IDS).logits, expected)


def test_what_a_smaller_adapter_lacks_can_learn_and_follows_from_its_name(tiny_bench, load_tiny, tiny_settings) -> None:
    smaller = tiny_settings.adapter.model_copy(update={"top_layers": 1, "rank": 2, "alpha": 4})
    adapter, slot = noise(AdapterSlot(load_tiny(), smaller)), tiny_bench.slot
    whole = slot.complete(adapter)
    slot.load(whole)
    slot.model(input_ids=IDS).logits.logsumexp(-1).sum().backward()
    lacking = [n for n in slot.parameters if n not in adapter and ".lora_B." in n]
    assert lacking
    assert all(slot.parameters[n].grad.abs().max() > 0 for n in lacking), "A is no zero there"
    between = slot.complete({n: t for n, t in whole.items() if ".layers.3." in n})
    assert all(torch.equal(between[n], whole[n]) for n in whole)
    assert whole.keys() == slot.complete(whole).keys()


def test_importance_is_the_mean_where_it_was_never_measured(tiny_bench, load_tiny, tiny_settings) -> None:
    smaller = tiny_settings.adapter.model_copy(update={"top_layers": 1, "rank": 2, "alpha": 4})
    old = {n: t.abs() for n, t in noise(AdapterSlot(load_tiny(), smaller)).items()}
    full = tiny_bench.slot.importance(old)
    assert {n: t.shape for n, t in full.items()} == {n: p.shape for n, p in tiny_bench.slot.parameters.items()}
    for name, tensor in old.items():
        assert torch.equal(full[name][: tensor.shape[0], : tensor.shape[1]], tensor)
        below = full[name.replace(".layers.3.", ".layers.2.")]
        torch.testing.assert_close(below, torch.full(below.shape, float(tensor.mean())))


def test_a_slot_that_grew_and_shrank_is_as_one_that_never_did(load_tiny, tiny_settings) -> None:
    base, other = load_tiny(), load_tiny()
    slot, plain = (AdapterSlot(each, tiny_settings.adapter) for each in (base, other))
    for first in (0, 2):
        slot.adapt_from(first)
        assert {int(n.split(".layers.")[1][0]) for n in slot.parameters} == set(range(first, 4))
        assert [n for n, p in base.model.named_parameters() if p.requires_grad] == [
            n for n, p in slot.model.base_model.model.named_parameters() if p.requires_grad
        ]
    adapter = noise(slot)
    slot.load(adapter)
    plain.load(adapter)
    with torch.no_grad():
        torch.testing.assert_close(slot.model(input_ids=IDS).logits, plain.model(input_ids=IDS).logits)
        with slot.switched_off():
            alone = load_tiny().model(input_ids=IDS).logits
            torch.testing.assert_close(slot.model(input_ids=IDS).logits, alone)


def test_the_lowest_layer_is_read_from_files_as_they_are_stored(tiny_bench, store) -> None:
    slot = tiny_bench.slot
    digest = store_adapter(store, slot.files(noise(slot), tiny_bench.base.digest))
    assert first_layer(config_of(store, digest)) == first_layer_of(fetch_adapter(store, digest)) == 2
    pattern = r"model\.language_model\.layers\.(11|9|10)\.(?:.+\.)?(q_proj|v_proj)"
    assert first_layer({"target_modules": pattern, "layers_to_transform": None}) == 9
