"""The split model against the whole one, on real rows of several tasks."""

from pathlib import Path

import pytest
import torch
from torch import nn

from components.model.adapters import AdapterSlot
from components.model.base import BaseModel
from components.model.packing import batches_of_similar, packs
from components.model.prompts import render
from components.model.trunk import Trunk, memory
from components.settings import BaseModelSettings, Settings

TASKS = ("movie_sentiment", "request_domain", "passive_voice", "booking_slot")


@pytest.fixture
def rows(tiny_base, take_example):
    """Rows of four tasks: several share a prefix, their lengths differ, and two occur twice."""
    examples = [row for name in TASKS for row in take_example(name, train=5).rows("train")]
    examples += examples[:2]
    return [render(tiny_base.tokenizer, tiny_base.settings, e.instruction, e.input, e.output) for e in examples]


def loud(slot: AdapterSlot) -> None:
    slot.initialise(0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in slot.parameters.values():
            parameter.add_(torch.randn(parameter.shape) * 0.1)


@torch.no_grad()
def whole_logits(base: BaseModel, row) -> torch.Tensor:
    logits = base.model(input_ids=torch.tensor([row.tokens], device=base.device)).logits[0].float()
    return logits[len(row.prompt) - 1 : -1]


@pytest.mark.parametrize(("top_layers", "batch_rows"), [(1, 7), (2, 1), (2, 7), (3, 64), ("all", 7)])
def test_split_and_whole_agree(load_tiny, tiny_settings, rows, top_layers, batch_rows) -> None:
    base = load_tiny()
    slot = AdapterSlot(base, tiny_settings.adapter.model_copy(update={"top_layers": top_layers}))
    trunk = Trunk(base, slot)
    loud(slot)
    states = trunk.states([r.tokens for r in rows], batch_rows)
    assert [len(s.tokens) for s in states] == [len(r.tokens) for r in rows]
    with torch.no_grad():
        split = trunk.answer_logits(states, [len(r.prompt) for r in rows])
    for row, ours in zip(rows, split, strict=True):
        theirs = whole_logits(base, row)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
        assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


def test_hidden_states_are_the_decoders_own(tiny_bench, rows) -> None:
    loud(tiny_bench.slot)
    base, trunk = tiny_bench.base, tiny_bench.trunk
    for row in rows[:6]:
        with torch.no_grad():
            whole = base.model.get_decoder()(input_ids=torch.tensor([row.tokens])).last_hidden_state
            (split,) = trunk.outputs(trunk.states([row.tokens], 1))
        torch.testing.assert_close(split, whole[0], rtol=1e-4, atol=1e-4)


def test_gradients_through_the_split_model_are_the_whole_models(tiny_bench, rows) -> None:
    loud(tiny_bench.slot)
    row, parameters = rows[0], list(tiny_bench.slot.parameters.values())
    labels = torch.tensor(row.answer)

    def gradients(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(nn.functional.cross_entropy(logits, labels), parameters)

    states = tiny_bench.trunk.states([row.tokens], 1)
    ours = gradients(tiny_bench.trunk.answer_logits(states, [len(row.prompt)])[0])
    whole = tiny_bench.base.model(input_ids=torch.tensor([row.tokens])).logits[0, len(row.prompt) - 1 : -1]
    for a, b in zip(ours, gradients(whole), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_states_do_not_depend_on_the_adapter_and_carry_no_graph(tiny_bench, rows) -> None:
    loud(tiny_bench.slot)
    tokens = [r.tokens for r in rows]
    first = tiny_bench.trunk.states(tokens, 8)
    tiny_bench.slot.initialise(5)
    second = tiny_bench.trunk.states(tokens, 8)
    assert all(torch.equal(a.output, b.output) for a, b in zip(first, second, strict=True))
    assert not any(s.output.requires_grad for s in first)


def test_keeping_the_past_changes_no_state_and_counts_once_a_pack(tiny_bench, rows) -> None:
    tokens = [r.tokens for r in rows]
    plain, kept = (tiny_bench.trunk.states(tokens, 64, keep_past=keep) for keep in (False, True))
    assert all(torch.equal(a.output, b.output) for a, b in zip(plain, kept, strict=True))
    assert all(state.past is None for state in plain)
    assert {tuple(state.past.layers) for state in kept} == {(0, 1)}  # those below the adapters
    pairs = {id(layers): layers for layers in (state.past.layers for state in kept)}
    shared = sum(t.nbytes for layers in pairs.values() for pair in layers.values() for t in pair)
    assert memory(kept) == memory(plain) + shared


def test_progress_counts_every_row(tiny_bench, rows) -> None:
    done: list[int] = []
    tiny_bench.trunk.states([r.tokens for r in rows], 8, done.append)
    assert sum(done) == len(rows)


def test_no_rows_are_no_states(tiny_bench) -> None:
    assert tiny_bench.trunk.states([], 8) == []


def test_the_whole_model_is_unharmed_by_the_split(tiny_bench, tiny_base) -> None:
    ids = torch.arange(3, 30)[None]
    with tiny_bench.slot.switched_off(), torch.no_grad():
        ours = tiny_bench.base.model(input_ids=ids).logits
        torch.testing.assert_close(ours, tiny_base.model(input_ids=ids).logits)
    assert tiny_bench.base.model.config.num_hidden_layers == 4


def test_a_model_that_splits_wrongly_runs_whole(load_tiny, tiny_settings) -> None:
    """An embedding that also depends on the caller: adding it twice is seen at once."""
    base = load_tiny()
    slot = AdapterSlot(base, tiny_settings.adapter)
    decoder = base.model.get_decoder()
    plain = type(decoder).forward

    class Scaled(type(decoder)):
        def forward(self, inputs_embeds=None, **kwargs):
            if inputs_embeds is not None:
                inputs_embeds = inputs_embeds * 3
            return plain(self, inputs_embeds=inputs_embeds, **kwargs)

    decoder.__class__ = Scaled
    trunk = Trunk(base, slot)
    assert not trunk.split
    row = tuple(range(5, 17))
    (hidden,) = trunk.outputs(trunk.states([row], 1))
    torch.testing.assert_close(hidden, decoder(input_ids=torch.tensor([row])).last_hidden_state[0])


def test_an_architecture_that_cannot_be_split_runs_whole_and_right(tmp_path, tiny_folder) -> None:
    import shutil

    from transformers import GPT2Config, GPT2LMHeadModel

    from components.model.base import load_base
    from components.settings import AdapterSettings

    shutil.copytree(tiny_folder, tmp_path / "gpt2")
    GPT2LMHeadModel(GPT2Config(vocab_size=700, n_embd=24, n_layer=2, n_head=2, n_positions=64)).save_pretrained(
        tmp_path / "gpt2"
    )
    base = load_base(BaseModelSettings(name=str(tmp_path / "gpt2"), device="cpu"), tmp_path / "store")
    trunk = Trunk(base, AdapterSlot(base, AdapterSettings(top_layers=1, modules=("c_fc",))))
    assert not trunk.split
    rows = [tuple(range(5, 5 + length)) for length in (9, 14, 11)]
    logits = trunk.answer_logits(trunk.states(rows, 2), [6, 8, 10])
    for row, prompt, ours in zip(rows, (6, 8, 10), logits, strict=True):
        whole = base.model(input_ids=torch.tensor([row])).logits[0, prompt - 1 : -1]
        torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-5)


class TestPacks:
    def test_every_row_can_be_read_back_and_nothing_stands_twice(self, rows) -> None:
        tokens = [r.tokens for r in rows]
        (pack,) = packs(tokens, limit=10_000)
        assert pack.rows == list(range(len(rows)))
        for row, path in zip(tokens, pack.paths, strict=True):
            assert tuple(pack.tokens[i] for i in path) == row
            assert [pack.positions[i] for i in path] == list(range(len(row)))
        prefixes = {row[: n + 1] for row in tokens for n in range(len(row))}
        assert len(pack.tokens) == len(prefixes)

    def test_the_limit_cuts_between_rows(self, rows) -> None:
        tokens = [r.tokens for r in rows]
        cut = list(packs(tokens, limit=300))
        assert len(cut) > 1
        assert [row for pack in cut for row in pack.rows] == list(range(len(rows)))
        assert all(len(pack.tokens) <= 300 for pack in cut)
        assert all(len(pack.rows) == 1 for pack in packs(tokens, limit=1))
        assert list(packs([])) == []

    def test_similar_rows_stand_together(self, rows) -> None:
        tokens = [r.tokens for r in rows]
        batches = list(batches_of_similar(tokens, 4))
        assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
        similar = sum(len(pack.tokens) for batch in batches for pack in packs([tokens[i] for i in batch]))
        as_given = sum(len(p.tokens) for n in range(0, len(rows), 4) for p in packs(tokens[n : n + 4]))
        assert similar <= as_given


@pytest.mark.parametrize("rows", [[(5,) * 30] * 6, [(1, 2)] * 5, [tuple(range(3, 3 + n)) for n in (25, 26, 40, 60)]])
def test_repeated_short_and_nested_rows_agree_too(tiny_bench, rows) -> None:
    decoder = tiny_bench.base.model.get_decoder()
    states = tiny_bench.trunk.states(rows, 4)
    with torch.no_grad():
        for row, state in zip(rows, states, strict=True):
            whole = decoder(input_ids=torch.tensor([row])).last_hidden_state
            torch.testing.assert_close(tiny_bench.trunk.outputs([state])[0], whole[0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_embedded_model_split_and_whole_agree_on_real_rows(take_example, tmp_path_factory) -> None:
    from components.model.workbench import Workbench

    home = Path(tmp_path_factory.getbasetemp()) / "models"
    settings = Settings(
        base_model=BaseModelSettings(device="cpu"),
        storage=Settings().storage.model_copy(update={"models": str(home)}),
    )
    bench = Workbench.load(settings)
    loud(bench.slot)
    examples = [row for name in TASKS for row in take_example(name, train=2).rows("train")]
    rows = [render(bench.base.tokenizer, bench.base.settings, e.instruction, e.input, e.output) for e in examples]
    assert len(rows) == 8
    with torch.no_grad():
        split = bench.trunk.answer_logits(
            bench.trunk.states([r.tokens for r in rows], 8), [len(r.prompt) for r in rows]
        )
    for row, ours in zip(rows, split, strict=True):
        theirs = whole_logits(bench.base, row)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-3)
        assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


@pytest.mark.slow
def test_the_embedded_model_is_split_in_bfloat16_too(tmp_path_factory) -> None:
    """Its bfloat16 is off by half on arbitrary tokens, by hundredths on text; a split may be told by text only."""
    from components.model.workbench import Workbench

    home = Path(tmp_path_factory.getbasetemp()) / "models"
    storage = Settings().storage.model_copy(update={"models": str(home)})
    settings = Settings(base_model=BaseModelSettings(device="cpu", dtype="bfloat16"), storage=storage)
    assert Workbench.load(settings).trunk.split
