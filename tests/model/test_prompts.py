import pytest

from components.model.prompts import TooLong, render, render_prompt, user_text


def test_the_chat_template_renders_system_user_and_assistant(tiny_base) -> None:
    row = render(tiny_base.tokenizer, tiny_base.settings, "Judge it.", "Fine.", "positive")
    assert tiny_base.tokenizer.decode(row.tokens) == (
        "<|im_start|>system\nAnswer with the result only.<|im_end|>\n<|im_start|>user\nJudge it.\nFine.<|im_end|>\n"
        "<|im_start|>assistant\npositive<|im_end|>"
    )
    assert row.tokens == row.prompt + row.answer
    assert row.answer[-1] == tiny_base.tokenizer.eos_token_id
    assert row.prompt == render_prompt(tiny_base.tokenizer, tiny_base.settings, "Judge it.", "Fine.")


def test_without_a_system_prompt_there_is_no_system_turn(load_tiny) -> None:
    base = load_tiny(system_prompt="")
    text = base.tokenizer.decode(render_prompt(base.tokenizer, base.settings, "Judge it.", None))
    assert text == "<|im_start|>user\nJudge it.<|im_end|>\n<|im_start|>assistant\n"


def test_without_a_chat_template_a_plain_layout_is_used(load_tiny) -> None:
    base = load_tiny()
    base.tokenizer.chat_template = None
    row = render(base.tokenizer, base.settings, "Judge it.", "Fine.", "positive")
    assert base.tokenizer.decode(row.tokens) == (
        "Answer with the result only.\n\nJudge it.\nFine.\n\n### Answer:\npositive<|im_end|>"
    )


@pytest.mark.parametrize("text", [None, ""])
def test_an_empty_input_is_no_input(text) -> None:
    assert user_text("Judge it.", text) == "Judge it."


@pytest.mark.parametrize("output", ["positive", "two  spaces", "tab\tand\nline", "naïve 日本 🙂", "x" * 50])
def test_answers_survive_the_round_trip(tiny_base, output) -> None:
    row = render(tiny_base.tokenizer, tiny_base.settings, "Say it.", None, output)
    assert tiny_base.tokenizer.decode(row.answer, skip_special_tokens=True) == output


def test_what_does_not_fit_is_refused_at_exactly_the_limit(tiny_base) -> None:
    tokenizer, settings = tiny_base.tokenizer, tiny_base.settings
    row = render(tokenizer, settings, "Judge it.", "Fine.", "positive")
    fits = settings.model_copy(update={"max_tokens": len(row.tokens)})
    assert render(tokenizer, fits, "Judge it.", "Fine.", "positive") == row
    tight = settings.model_copy(update={"max_tokens": len(row.tokens) - 1})
    with pytest.raises(TooLong, match=f"{len(row.tokens)} tokens and base_model.max_tokens is {len(row.tokens) - 1}"):
        render(tokenizer, tight, "Judge it.", "Fine.", "positive")
    with pytest.raises(TooLong, match="a prompt has"):
        render_prompt(tokenizer, settings.model_copy(update={"max_tokens": 16}), "Judge it.", "Fine.")
