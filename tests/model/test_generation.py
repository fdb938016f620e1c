"""Own greedy decoding against transformers' `generate`."""

import pytest
import torch

from components.model.generation import Begun, continue_greedy, generate_greedy, shared_prefixes
from components.model.prompts import render_prompt


@pytest.fixture
def prompts(tiny_base, take_example):
    names = ("movie_sentiment", "passive_voice", "grammar_check")
    examples = [e for name in names for e in take_example(name, train=12).rows("train")]
    return [render_prompt(tiny_base.tokenizer, tiny_base.settings, e.instruction, e.input) for e in examples]


def reference(base, prompt, limit: int) -> tuple[int, ...]:
    ids = torch.tensor([list(prompt)])
    out = base.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=limit,
        pad_token_id=base.tokenizer.pad_token_id,
        eos_token_id=base.tokenizer.eos_token_id,
    )[0, len(prompt) :].tolist()
    end = base.tokenizer.eos_token_id
    return tuple(out[: out.index(end)] if end in out else out)


@pytest.mark.parametrize("batch_rows", [1, 5, 64])
def test_mixed_lengths_give_the_text_of_transformers(tiny_base, prompts, batch_rows) -> None:
    end = tiny_base.tokenizer.eos_token_id
    ours = generate_greedy(tiny_base.model, prompts, 10, (end,), batch_rows)
    for prompt, generated in zip(prompts, ours, strict=True):
        assert generated.tokens == reference(tiny_base, prompt, 10)
        assert generated.gap > 0


def test_rows_end_at_the_end_token_each_at_its_own_step(tiny_base, prompts) -> None:
    """Any frequent token can be the end token: rows of one batch then stop at different steps."""
    free = generate_greedy(tiny_base.model, prompts, 12, (10**9,), 64)
    counts = [token for generated in free for token in generated.tokens[1:]]
    end = max(set(counts), key=counts.count)
    stopped = generate_greedy(tiny_base.model, prompts, 12, (end,), 64)
    lengths = set()
    for whole, cut in zip(free, stopped, strict=True):
        tokens = whole.tokens
        assert cut.tokens == (tokens[: tokens.index(end)] if end in tokens else tokens)
        assert cut.gap >= whole.gap - 1e-4
        lengths.add(len(cut.tokens))
    assert len(lengths) > 1


def test_the_gap_is_the_smallest_on_the_way(tiny_base, prompts) -> None:
    prompt = prompts[0]
    (generated,) = generate_greedy(tiny_base.model, [prompt], 6, (10**9,), 1)
    with torch.no_grad():
        logits = tiny_base.model(input_ids=torch.tensor([[*prompt, *generated.tokens]])).logits[0, len(prompt) - 1 : -1]
    top = logits.topk(2, dim=-1).values
    assert generated.gap == pytest.approx((top[:, 0] - top[:, 1]).min().item(), abs=1e-4)


def test_the_limit_holds_and_progress_counts(tiny_base, prompts) -> None:
    done: list[int] = []
    ours = generate_greedy(tiny_base.model, prompts, 1, (10**9,), 7, done.append)
    assert {len(g.tokens) for g in ours} == {1}
    assert sum(done) == len(prompts)
    assert generate_greedy(tiny_base.model, [], 3, 2, 4) == []


def test_with_an_adapter_in_the_slot_too(tiny_bench, prompts) -> None:
    slot, base = tiny_bench.slot, tiny_bench.base
    slot.initialise(0)
    with torch.no_grad():
        for parameter in slot.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    ours = generate_greedy(base.model, prompts[:12], 6, base.ends, 5)
    assert [g.tokens for g in ours] == [reference(base, p, 6) for p in prompts[:12]]


@pytest.mark.parametrize("batch_rows", [1, 5, 64])
def test_going_on_from_a_pass_of_the_trunk_is_as_if_decoded_from_the_start(tiny_bench, prompts, batch_rows) -> None:
    slot, base, trunk = tiny_bench.slot, tiny_bench.base, tiny_bench.trunk
    slot.initialise(0)
    with torch.no_grad():
        for parameter in slot.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    end, limit = base.tokenizer.eos_token_id, 7
    whole = generate_greedy(base.model, prompts, limit, (10**9,), 8)
    for known in (1, 3):  # tokens that the pass has read or told already; their last is still to be read
        states = trunk.states([(*p, *g.tokens) for p, g in zip(prompts, whole, strict=True)], 9, keep_past=True)
        upper: list = []
        with torch.no_grad():
            trunk.outputs(states, upper)
        rows = [
            Begun(g.tokens[known - 1], len(p) + known - 1, (state.past, above), limit - known)
            for p, g, state, above in zip(prompts, whole, states, upper, strict=True)
        ]
        for stop in (10**9, end):
            done: list[int] = []
            made = continue_greedy(base.model, rows, (stop,), batch_rows, done.append)
            assert sum(done) == len(prompts)
            for generated, full in zip(made, whole, strict=True):
                rest = full.tokens[known:]
                assert generated.tokens == (rest[: rest.index(stop)] if stop in rest else rest)


class TestSharedPrefixes:
    def test_every_row_is_in_one_group_and_its_prefix_is_shared(self, prompts) -> None:
        tokens = prompts
        seen: list[int] = []
        for length, members in shared_prefixes(tokens):
            seen += members
            assert len({tokens[i][:length] for i in members}) == 1
            assert all(length < len(tokens[i]) for i in members)
        assert sorted(seen) == list(range(len(tokens)))
        assert any(length > 0 for length, _ in shared_prefixes(tokens))

    def test_equal_rows_and_rows_that_begin_others_keep_a_token_outside(self) -> None:
        long = tuple(range(40))
        for rows in ([long] * 5, [long[:25], long, long, long], [long[:n] for n in (24, 30, 35, 40)]):
            for length, members in shared_prefixes(rows):
                assert all(length < len(rows[i]) for i in members)

    def test_few_or_short_rows_share_nothing(self) -> None:
        assert list(shared_prefixes([tuple(range(30))] * 3)) == [(0, [0, 1, 2])]
        assert list(shared_prefixes([(1, 2, 3)] * 5)) == [(0, [0, 1, 2, 3, 4])]
        assert list(shared_prefixes([])) == []
