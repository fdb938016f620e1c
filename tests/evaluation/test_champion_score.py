from math import log

import pytest
import torch

from components.evaluation.champion_score import bits_per_character
from components.model.base import BaseModelError
from components.model.context import token_checks, too_long
from components.model.prompts import TooLong, render
from components.settings import BaseModelSettings
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


def test_the_embedded_models_tokenizer_is_made_ready_without_the_model(tmp_path):
    """A fresh installation checks its first task: nothing was converted before."""
    settings = BaseModelSettings(name="embedded:smollm2-135m-instruct")
    rows = [Example("Count.", "one two three " * 300, "yes"), Example("Count.", "one", "yes")]
    first = token_checks(settings, str(tmp_path)).too_long(rows)
    assert first[0] > settings.max_tokens
    assert first[1] == 0
    assert not list(tmp_path.rglob("*.safetensors"))
    assert token_checks(settings, str(tmp_path)).too_long(rows) == first


def test_a_base_model_without_a_tokenizer_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError, match=r"no \.safetensors weights"):
        token_checks(BaseModelSettings(name=str(tmp_path / "empty")), str(tmp_path))
