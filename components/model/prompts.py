"""How an example becomes tokens: one rendering for training, evaluation, `ask` and export."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from components.errors import LciaError
from components.settings import BaseModelSettings


class TooLong(LciaError):
    """An example that does not fit into the configured context."""


@dataclass(frozen=True)
class Rendered:
    """Token ids of one example; `answer` ends with the end-of-turn token."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        """Prompt and answer."""
        return self.prompt + self.answer


def user_text(instruction: str, text: str | None) -> str:
    """The user's turn: the instruction, then the input on a line of its own."""
    return f"{instruction}\n{text}" if text else instruction


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, settings: BaseModelSettings, instruction: str, text: str | None
) -> tuple[int, ...]:
    """Token ids of the prompt, by the model's chat template (a plain layout where it has none)."""
    turns = [{"role": "user", "content": user_text(instruction, text)}]
    if settings.system_prompt:
        turns.insert(0, {"role": "system", "content": settings.system_prompt})
    if tokenizer.chat_template is None:
        plain = "\n\n".join(turn["content"] for turn in turns) + "\n\n### Answer:\n"
        ids = tokenizer(plain)["input_ids"]
    else:
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    if len(ids) >= settings.max_tokens:
        raise TooLong(
            f"a prompt has {len(ids)} tokens and base_model.max_tokens is {settings.max_tokens}: "
            f"{user_text(instruction, text)[:60]!r}...; shorten the example or raise the setting"
        )
    return tuple(ids)


def render(
    tokenizer: PreTrainedTokenizerBase,
    settings: BaseModelSettings,
    instruction: str,
    text: str | None,
    output: str,
) -> Rendered:
    """Token ids of prompt and answer.

    Raises:
        TooLong: prompt and answer together exceed `base_model.max_tokens`.
    """
    prompt = render_prompt(tokenizer, settings, instruction, text)
    answer = tokenizer(output, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    if len(prompt) + len(answer) > settings.max_tokens:
        raise TooLong(
            f"an example has {len(prompt) + len(answer)} tokens and base_model.max_tokens is "
            f"{settings.max_tokens}: {user_text(instruction, text)[:60]!r}...; shorten it or raise the setting"
        )
    return Rendered(prompt, tuple(answer))
