"""Rendering of examples into tokens, one for training, evaluation, `ask` and export."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from components.errors import LciaError
from components.model.chat import with_date
from components.model.control import ContentRefused, ControlTokens, Script, control_tokens
from components.model.reader import ImageReader
from components.settings import BaseModelSettings
from components.tasks.images import Picture

Reader: TypeAlias = PreTrainedTokenizerBase | ImageReader
"""Tokenizer, or the reader of a multimodal base model."""
Turn: TypeAlias = tuple[str, str]
"""Role (system, user or assistant) and content of one turn of a conversation."""


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


def control_of(reader: Reader) -> ControlTokens:
    """The control tokens of either reader."""
    return reader.control if isinstance(reader, ImageReader) else control_tokens(reader)


def answer_tokens(reader: Reader, output: str) -> tuple[int, ...]:
    """Token ids of an answer or a choice, read as text, and the end token.

    Raises:
        ContentRefused: the tokenizer can't take it as text.
    """
    control = control_of(reader)
    return (*control.content(output), control.ends[0])


def turns_of(settings: BaseModelSettings, instruction: str, text: str | None) -> list[Turn]:
    """Turns of an example: the system prompt of the settings, if there is one, and the user's turn."""
    system: list[Turn] = [("system", settings.system_prompt)] if settings.system_prompt else []
    return [*system, ("user", user_text(instruction, text))]


def layout(
    reader: Reader, settings: BaseModelSettings, turns: Sequence[Turn], images: int = 0
) -> tuple[str, tuple[str, ...]]:
    """The prompt by the chat template, with marks for the control strings in its content; and these strings.

    Raises:
        ContentRefused: the template refuses the turns, or does not write their content as it is.
    """
    script = control_of(reader).script([content for _, content in turns])
    messages = [{"role": role, "content": text} for (role, _), text in zip(turns, script.texts, strict=True)]
    try:
        if isinstance(reader, ImageReader):
            prompt = reader.text(messages, images, settings.date)
        else:
            prompt = _by_template(reader, messages, settings.date)
    except TemplateError as error:
        raise ContentRefused(
            f"the chat template of {settings.name} refuses the turns {', '.join(role for role, _ in turns)}: {error}; "
            'where it knows no system turn, set base_model.system_prompt to ""'
        ) from error
    _need_whole(settings, turns, script, prompt)
    return prompt, script.strings


def render_prompt(
    reader: Reader,
    settings: BaseModelSettings,
    instruction: str,
    text: str | None,
    images: Sequence[Picture] = (),
) -> tuple[int, ...]:
    """Token ids of an example's prompt; see `render_turns`."""
    return render_turns(reader, settings, turns_of(settings, instruction, text), images)


def render_turns(
    reader: Reader, settings: BaseModelSettings, turns: Sequence[Turn], images: Sequence[Picture] = ()
) -> tuple[int, ...]:
    """Token ids of a prompt, by the model's chat template (a plain layout if it has none); images come first.

    Raises:
        TooLong: it exceeds `base_model.max_tokens`.
        SeesNoImages: it has images, and the base model reads text only.
        ContentRefused: tokenizer or chat template can't take its texts as text.
        ProcessorUnusable: the base model's processor can't read it.
    """
    if images and not isinstance(reader, ImageReader):
        raise SeesNoImages(
            f"an example shows {len(images)} image(s), and {settings.name} reads text only; name a base model with an "
            "image processor in base_model.name"
        )
    prompt, strings = layout(reader, settings, turns, len(images))
    if isinstance(reader, ImageReader):
        ids = reader.prompt(prompt, images, strings)
    else:
        ids = control_of(reader).encode(prompt, strings, special=reader.chat_template is None)
    if len(ids) >= settings.longest:
        raise TooLong(
            f"a prompt has {len(ids)} tokens and base_model.max_tokens is {settings.longest}: "
            f"{turns[-1][1][:60]!r}...; shorten the example or raise the setting"
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
        SeesNoImages, ContentRefused, ProcessorUnusable: see `render_prompt`.
    """
    prompt, answer = render_prompt(reader, settings, instruction, text, images), answer_tokens(reader, output)
    if len(prompt) + len(answer) > settings.longest:
        raise TooLong(
            f"an example has {len(prompt) + len(answer)} tokens and base_model.max_tokens is "
            f"{settings.longest}: {user_text(instruction, text)[:60]!r}...; shorten it or raise the setting"
        )
    return Rendered(prompt, answer)


def _by_template(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, str]], day: date) -> str:
    if tokenizer.chat_template is None:
        return "\n\n".join(turn["content"] for turn in turns) + "\n\n### Answer:\n"
    template = with_date(tokenizer.get_chat_template(), day)
    return str(
        tokenizer.apply_chat_template(list(turns), chat_template=template, add_generation_prompt=True, tokenize=False)
    )


def _need_whole(settings: BaseModelSettings, turns: Sequence[Turn], script: Script, prompt: str) -> None:
    """Refuse turns that the template cut or rewrote; a system prompt without control strings may be left out."""
    for (role, content), script_text in zip(turns, script.texts, strict=True):
        if script_text.strip() not in prompt and (role != "system" or script_text != content):
            raise ContentRefused(
                f"the chat template of {settings.name} cuts or rewrites the {role} turn {content[:60]!r}..., expected "
                "to be written as it is; change the text, or name a base model whose template leaves content alone"
            )
