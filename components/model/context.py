"""Which rows of a task do not fit into the base model's context, told before anything is trained."""

from collections.abc import Callable, Sequence
from pathlib import Path

from components.model.base import BaseModelError, is_available, load_reader
from components.model.prompts import Reader, SeesNoImages, render, user_text
from components.model.reader import ImageReader
from components.settings import BaseModelSettings
from components.tasks.rows import Example

SURE_BYTES = 2
"""A row of this many bytes fewer than there are tokens left fits without being counted: a token is a byte or more."""


def too_long(reader: Reader, settings: BaseModelSettings, rows: Sequence[Example]) -> list[int]:
    """Per row its tokens, prompt and answer, where they exceed `base_model.max_tokens`; else 0.

    Exact: rows that could exceed it are rendered as training and evaluation render them.
    """
    unbounded = settings.model_copy(update={"max_tokens": 2**31})
    around = len(render(reader, unbounded, "a", None, "a").tokens)
    room = settings.max_tokens - around - SURE_BYTES
    out = []
    for row in rows:
        text = user_text(row.instruction, row.input)
        tokens = 0
        if row.images or len(text.encode()) + len(row.output.encode()) > room:
            tokens = len(render(reader, unbounded, row.instruction, row.input, row.output, row.images).tokens)
        out.append(tokens if tokens > settings.max_tokens else 0)
    return out


def context_check(settings: BaseModelSettings, models: str) -> Callable[[Sequence[Example]], list[int]] | None:
    """`too_long` of the configured base model, or None where it is not on this machine (yet).

    The embedded model is not converted for it: that takes long, and tuning does it.
    """
    reader = _reader(settings, models)
    return None if reader is None else lambda rows: too_long(reader, settings, rows)


def need_sight(settings: BaseModelSettings, models: str) -> None:
    """Refuse a task with images where the base model is known to read text only.

    Raises:
        SeesNoImages: it does.
    """
    reader = _reader(settings, models)
    if settings.name.startswith("embedded:") or not (reader is None or isinstance(reader, ImageReader)):
        raise SeesNoImages(
            f"the task shows images, and base_model.name {settings.name} reads text only; name a base model with an "
            "image processor, then `lcia retry` the task"
        )


def _reader(settings: BaseModelSettings, models: str) -> Reader | None:
    if not is_available(settings, Path(models)):
        return None
    try:
        return load_reader(settings, Path(models))
    except BaseModelError:
        return None
