"""Rows of a task that the base model can't read as they are, named before anything is trained."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from components.model.base import BaseModelError, is_available, load_reader
from components.model.control import ContentRefused
from components.model.prompts import Reader, SeesNoImages, answer_tokens, control_of, layout, render, user_text
from components.model.reader import ImageReader
from components.settings import BaseModelSettings
from components.tasks.package import SPLITS
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot

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


def need_text(settings: BaseModelSettings, models: str, snapshot: Snapshot) -> None:
    """Refuse a task with a text that the base model can't take as text; nothing where it is not on this machine.

    Raises:
        ContentRefused: it spells a control token that can't be kept apart, or the chat template cuts or rewrites it.
    """
    reader = _reader(settings, models)
    if reader is None:
        return
    for place, example in _examples(snapshot):
        try:
            refuse_unreadable(reader, settings, example)
        except ContentRefused as error:
            raise ContentRefused(f"{place}: {error}") from error


def refuse_unreadable(reader: Reader, settings: BaseModelSettings, example: Example) -> None:
    """Refuse an example whose texts the base model can't take as text.

    Raises:
        ContentRefused: see `need_text`.
    """
    control = control_of(reader)
    prompt, strings = layout(reader, settings, example.instruction, example.input, len(example.images))
    if strings:
        control.encode(prompt, strings, special=False)
    for answer in (example.output, *(example.choices or ())):
        if control.spelled(answer):
            answer_tokens(reader, answer)


def _examples(snapshot: Snapshot) -> Iterator[tuple[str, Example]]:
    """Every row with where it stands, those without a label and one for the task's own choices among them."""
    for split in SPLITS:
        for number, example in enumerate(snapshot.rows(split), 1):
            yield f"{split} row {number}", example
    for number, row in enumerate(snapshot.unlabelled(), 1):
        yield f"unlabelled row {number}", row.labelled("")
    yield "the task's choices", Example("a", None, "a", choices=snapshot.task.choices)


def _reader(settings: BaseModelSettings, models: str) -> Reader | None:
    if not is_available(settings, Path(models)):
        return None
    try:
        return load_reader(settings, Path(models))
    except BaseModelError:
        return None
