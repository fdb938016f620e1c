from math import log

import pytest
import torch

from components.evaluation.champion_score import bits_per_character
from components.model.base import BaseModelError
from components.model.context import TokenChecks, token_checks, too_long
from components.model.prompts import TooLong, render
from components.quality.validation import Background, validate
from components.settings import BaseModelSettings, ValidationSettings
from components.tasks.rows import Example
from components.tasks.task_file import Decoding, Task

TASK = Task(name="count", version="1", owner="school", description="Counts.", licence="MIT")
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
    rows = [Example("Count.", "one two three " * 800, "yes"), Example("Count.", "one", "yes")]
    checks = token_checks(settings, str(tmp_path))
    assert (checks.settings.max_tokens, checks.context) == (2048, 8192), "by the model's configuration"
    first = checks.too_long(TASK, rows)
    assert first[0] > 2048
    assert first[1] == 0
    assert not list(tmp_path.rglob("*.safetensors"))
    assert token_checks(settings, str(tmp_path)).too_long(TASK, rows) == first


def test_a_first_task_with_a_prompt_that_is_too_long_is_refused_before_it_is_tuned(take_example, tmp_path):
    checks = token_checks(BaseModelSettings(max_tokens=64), str(tmp_path))
    background = Background(too_long=checks.too_long, reach=checks.out_of_reach)
    result = validate(take_example("movie_sentiment"), [], ValidationSettings(min_rows=1), background)
    assert result.verdict == "refuse"
    assert "context" in {check.name for check in result.checks if not check.success}
    assert all("more than the context" in row.reason for row in result.quarantined_rows)
    assert result.quarantined_rows


def test_an_answer_that_could_go_on_beyond_the_models_context_is_too_long(tiny_settings, tiny_base):
    settings = tiny_settings.base_model.model_copy(update={"max_tokens": 100})
    row = Example("Read it.", "word " * 15, "yes")
    prompt = len(render(tiny_base.tokenizer, settings, row.instruction, row.input, row.output).prompt)
    for answer, context, expected in (
        (500, None, 0),
        (512 - prompt, 512, 0),
        (513 - prompt, 512, 513),
        (100 - prompt, 60, 0),  # more tokens than the model was made for: the settings asked for them
    ):
        assert too_long(tiny_base.tokenizer, settings, [row], answer, context) == [expected]
    decoding = {"mode": "generate", "max_new_tokens": 500}
    free, chosen = (TASK.model_copy(update={"decoding": Decoding(**each)}) for each in (decoding, {"mode": "choose"}))
    checks = TokenChecks(tiny_base.tokenizer, settings, 512)
    assert (checks.too_long(free, [row]), checks.too_long(chosen, [row])) == ([prompt + 500], [0])


def test_rows_of_earlier_tasks_that_no_longer_fit_stop_the_run_before_it_learns(tiny_settings, tiny_base, take_example):
    prior = [take_example("grammar_check"), take_example("movie_sentiment")]
    TokenChecks(tiny_base.tokenizer, tiny_settings.base_model).need_room(prior)
    short = tiny_settings.base_model.model_copy(update={"max_tokens": 60})
    with pytest.raises(TooLong, match=r"has an example of \d+ tokens, and base_model.max_tokens is 60: .* raise the"):
        TokenChecks(tiny_base.tokenizer, short).need_room(prior)


def test_a_base_model_without_a_tokenizer_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError, match=r"no \.safetensors weights"):
        token_checks(BaseModelSettings(name=str(tmp_path / "empty")), str(tmp_path))
