from math import log

import pytest
import torch

from components.evaluation.champion_score import bits_per_character
from components.model.context import context_check, too_long
from components.model.prompts import TooLong, render
from components.tasks.rows import Example

TEXTS = ["Say yes or no.\nIs this a sentence?", "one", "Rewrite it: the judge thanked the lawyer for the letter."]


def test_bits_equal_the_models_own_loss(tiny_bench):
    base = tiny_bench.base
    with torch.no_grad():
        for parameter in tiny_bench.slot.parameters.values():
            parameter.normal_()  # an adapter that says something else; the base model alone is asked
    for text, bits in zip(TEXTS, bits_per_character(tiny_bench, TEXTS), strict=True):
        ids = torch.tensor([base.tokenizer(text, add_special_tokens=False)["input_ids"]])
        with tiny_bench.slot.switched_off(), torch.no_grad():
            loss = float(base.model(input_ids=ids, labels=ids).loss) if ids.shape[1] > 1 else 0.0
        assert bits == pytest.approx(loss * (ids.shape[1] - 1) / log(2) / len(text), rel=1e-3)


def test_rows_beyond_the_context_are_those_that_rendering_refuses(tiny_settings, tiny_base):
    settings = tiny_settings.base_model.model_copy(update={"max_tokens": 100})
    rows = [Example("Read it.", "word " * n, "yes") for n in range(1, 200, 5)]
    found = too_long(tiny_base.tokenizer, settings, rows)
    for row, tokens in zip(rows, found, strict=True):
        try:
            render(tiny_base.tokenizer, settings, row.instruction, row.input, row.output)
            assert tokens == 0
        except TooLong:
            assert tokens > 100
    assert 0 < sum(tokens > 0 for tokens in found) < len(rows)


def test_without_a_model_nothing_is_said_of_the_context(tiny_settings):
    models = tiny_settings.storage.models
    assert context_check(tiny_settings.base_model, models)([Example("a", "b", "c")]) == [0]
    absent = tiny_settings.base_model.model_copy(update={"name": "embedded:smollm2-135m-instruct"})
    assert context_check(absent, f"{models}/nowhere") is None
