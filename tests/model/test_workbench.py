"""The slot as deep as settings and adapters ask for."""

import pytest
import torch

from components.model.adapters import AdapterError, AdapterSlot, store_adapter
from components.model.trunk import Trunk
from components.model.workbench import Workbench


@pytest.fixture
def bench_with(load_tiny, tiny_settings):
    """A bench whose slot is as deep as asked, its `auto` being two layers."""

    def bench_with(top_layers):
        base = load_tiny()
        slot = AdapterSlot(base, tiny_settings.adapter.model_copy(update={"top_layers": top_layers}))
        return Workbench(base, slot, Trunk(base, slot))

    return bench_with


@pytest.fixture
def stored(bench_with, store):
    """Digest of a stored adapter on the last layers."""

    def stored(top_layers):
        bench = bench_with(top_layers)
        bench.slot.initialise(top_layers)
        return store_adapter(store, bench.slot.files(bench.slot.tensors(), bench.base.digest))

    return stored


@pytest.fixture(autouse=True)
def two_layers(monkeypatch):
    monkeypatch.setattr("components.model.adapters.CPU_LAYERS", 2)


@pytest.mark.parametrize(
    ("top_layers", "adapters", "depth"),
    [("auto", [], 2), ("auto", [1], 2), ("auto", [1, 3], 3), ("auto", [4, 1], 4), (1, [3], 1), ("all", [1], 4)],
)
def test_fit_goes_by_settings_and_adapters_alone(bench_with, stored, store, top_layers, adapters, depth) -> None:
    bench = bench_with(top_layers)
    bench.cover(0)  # the process answered with a deep adapter before
    assert bench.slot.first_layer == 0
    bench.fit(store, [stored(count) for count in adapters])
    assert bench.slot.first_layer == bench.trunk.base.layers - depth
    assert bench.trunk.split
    row = tuple(range(5, 30))
    with torch.no_grad():
        (ours,) = bench.trunk.outputs(bench.trunk.states([row], 1))
        theirs = bench.base.model.get_decoder()(input_ids=torch.tensor([row])).last_hidden_state[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_an_adapter_deeper_than_the_settings_say_is_refused_with_the_mend(bench_with, stored, store) -> None:
    bench = bench_with(1)
    digest = stored(3)
    bench.fit(store, [digest])
    with pytest.raises(
        AdapterError, match=r"last 3 layers, adapter.top_layers is 1; .* set it to auto or to 3 or more"
    ):
        bench.slot.fetch(store, digest)


def test_cover_never_takes_layers_away(bench_with) -> None:
    bench = bench_with(3)
    trunk = bench.trunk
    bench.cover(2)
    assert (bench.slot.first_layer, bench.trunk) == (1, trunk)
