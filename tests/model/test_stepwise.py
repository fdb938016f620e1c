"""Decoding token by token against the batched greedy decoding of evaluation."""

import pytest
import torch

from components.model.generation import generate_greedy
from components.model.prompts import render_prompt
from components.model.stepwise import decode


@pytest.fixture(scope="module")
def prompts(tiny_base):
    texts = ["The cat saw the dog.", "A dull, overlong mess.", "x"]
    return [render_prompt(tiny_base.tokenizer, tiny_base.settings, "Rewrite it.", text) for text in texts]


def test_greedy_tokens_are_those_of_evaluation(tiny_base, prompts):
    free = [each.tokens for each in generate_greedy(tiny_base.model, prompts, 12, (10**9,), 1)]
    for prompt, tokens in zip(prompts, free, strict=True):
        assert tuple(step.token for step in decode(tiny_base.model, prompt, 12, (10**9,))) == tokens
    end = free[0][5]
    ours = tuple(step.token for step in decode(tiny_base.model, prompts[0], 12, (end,)))
    assert ours == free[0][: free[0].index(end)], "the end token ends it and is left out"


def test_log_probabilities_are_those_of_one_pass(tiny_base, prompts):
    steps = list(decode(tiny_base.model, prompts[0], 6, (10**9,), alternatives=3))
    tokens = [step.token for step in steps]
    with torch.no_grad():
        ids = torch.tensor([[*prompts[0], *tokens]])
        values = tiny_base.model(input_ids=ids).logits[0, len(prompts[0]) - 1 : -1].log_softmax(-1)
    for step, row in zip(steps, values, strict=True):
        assert step.logprob == pytest.approx(float(row[step.token]), abs=1e-4)
        assert [token for token, _ in step.top] == row.topk(3).indices.tolist()


def test_a_seed_repeats_a_draw_and_draws_follow_the_distribution(tiny_base, prompts):
    def draw(seed, **options):
        return [
            s.token for s in decode(tiny_base.model, prompts[0], 8, (10**9,), temperature=1.0, seed=seed, **options)
        ]

    assert draw(3) == draw(3)
    assert len({tuple(draw(seed)) for seed in range(5)}) == 5
    greedy = [step.token for step in decode(tiny_base.model, prompts[0], 8, (10**9,))]
    assert draw(3, top_p=1e-9) == greedy, "the smallest set is the likeliest token alone"
    cold = decode(tiny_base.model, prompts[0], 8, (10**9,), temperature=5e-324, seed=3)
    assert [step.token for step in cold] == greedy, "however cold, a draw has a chance for each token"
    one = next(iter(decode(tiny_base.model, prompts[0], 1, (10**9,), alternatives=2)))
    (first, p), (second, q) = one.top
    counts = [
        next(iter(decode(tiny_base.model, prompts[0], 1, (10**9,), temperature=1.0, seed=s))).token for s in range(400)
    ]
    share, expected = counts.count(first) / 400, torch.tensor(p).exp().item()
    assert abs(share - expected) < 4 * (expected * (1 - expected) / 400) ** 0.5 + 1e-3
    assert q <= p
    assert first != second
