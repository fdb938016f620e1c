"""How an example becomes tokens: one rendering for training, evaluation, `ask` and export."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from transformers import PreTrainedTokenizerBase

from components.errors import LciaError
from components.model.reader import ImageReader
from components.settings import BaseModelSettings
from components.tasks.images import Picture

Reader: TypeAlias = PreTrainedTokenizerBase | ImageReader
"""What turns an example into tokens: a tokenizer, or the reader of a multimodal base model."""


class TooLong(LciaError):
    """An example that does not fit into the configured context."""


class SeesNoImages(LciaError):
    """An example with images for a base model that reads text only."""


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


def tokenizer_of(reader: Reader) -> PreTrainedTokenizerBase:
    """The tokenizer, which reads answers in either case."""
    return reader.tokenizer if isinstance(reader, ImageReader) else reader


def render_prompt(
    reader: Reader,
    settings: BaseModelSettings,
    instruction: str,
    text: str | None,
    images: Sequence[Picture] = (),
) -> tuple[int, ...]:
    """Token ids of the prompt, by the model's chat template (a plain layout where it has none); images come first.

    Raises:
        TooLong: it exceeds `base_model.max_tokens`.
        SeesNoImages: it has images, and the base model reads text only.
        ProcessorUnusable: the base model's processor can't read it.
    """
    turns = [{"role": "user", "content": user_text(instruction, text)}]
    if settings.system_prompt:
        turns.insert(0, {"role": "system", "content": settings.system_prompt})
    if isinstance(reader, ImageReader):
        ids = reader.prompt(turns, images)
    elif images:
        raise SeesNoImages(
            f"an example shows {len(images)} image(s), and {settings.name} reads text only; name a base model with an "
            "image processor in base_model.name"
        )
    elif reader.chat_template is None:
        plain = "\n\n".join(turn["content"] for turn in turns) + "\n\n### Answer:\n"
        ids = reader(plain)["input_ids"]
    else:
        ids = reader.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    if len(ids) >= settings.max_tokens:
        raise TooLong(
            f"a prompt has {len(ids)} tokens and base_model.max_tokens is {settings.max_tokens}: "
            f"{user_text(instruction, text)[:60]!r}...; shorten the example or raise the setting"
        )
    return tuple(ids)


def render(
    reader: Reader,
    settings: BaseModelSettings,
    instruction: str,
    text: str | None,
    output: str,
    images: Sequence[Picture] = (),
) -> Rendered:
    """Token ids of prompt and answer.

    Raises:
        TooLong: prompt and answer together exceed `base_model.max_tokens`.
        SeesNoImages, ProcessorUnusable: see `render_prompt`.
    """
    tokenizer, prompt = tokenizer_of(reader), render_prompt(reader, settings, instruction, text, images)
    answer = tokenizer(output, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    if len(prompt) + len(answer) > settings.max_tokens:
        raise TooLong(
            f"an example has {len(prompt) + len(answer)} tokens and base_model.max_tokens is "
            f"{settings.max_tokens}: {user_text(instruction, text)[:60]!r}...; shorten it or raise the setting"
        )
    return Rendered(prompt, tuple(answer))
