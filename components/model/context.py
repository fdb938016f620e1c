"""Checks of a task's rows with the base model's tokenizer, before anything is trained."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from components.model.base import BaseModelError, load_reader, reader_and_settings
from components.model.control import ContentRefused
from components.model.prompts import (
    Reader,
    SeesNoImages,
    TooLong,
    answer_tokens,
    control_of,
    layout,
    render,
    turns_of,
    user_text,
)
from components.model.reachability import SURE_BYTES, out_of_reach
from components.model.reader import ImageReader
from components.quality.reachable import OutOfReach
from components.settings import BaseModelSettings
from components.storage.objects import ObjectMissing
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot
from components.tasks.task_file import SPLITS, Split, Task

JUDGES: tuple[Split, ...] = ("validation", "test")
"""Splits by which a candidate is judged."""


def too_long(
    reader: Reader, settings: BaseModelSettings, rows: Sequence[Example], answer: int = 0, context: int | None = None
) -> list[int]:
    """Per row its tokens, prompt and answer, if they exceed `base_model.max_tokens`; else 0.

    An answer may also be generated, of up to `answer` tokens, and must not go on beyond the base model's `context`.
    Exact: rows that could exceed either are rendered as training and evaluation render them.
    """
    most = max(settings.longest, context) if context else 2**31
    limitless = settings.model_copy(update={"max_tokens": 2**31})
    around = len(render(reader, limitless, "a", None, "a").tokens)
    room = min(settings.longest, most - answer) - around - SURE_BYTES
    out = []
    for row in rows:
        text = user_text(row.instruction, row.input)
        tokens = 0
        if row.images or len(text.encode()) + len(row.output.encode()) > room:
            rendering = render(reader, limitless, row.instruction, row.input, row.output, row.images)
            own, decoding = len(rendering.tokens), len(rendering.prompt) + answer
            tokens = own if own > settings.longest else decoding if decoding > most else 0
        out.append(tokens)
    return out


@dataclass(frozen=True)
class TokenChecks:
    """Checks of rows with the configured base model's tokenizer."""

    reader: Reader
    settings: BaseModelSettings
    context: int | None = None
    """Tokens that the base model was made to read; None if nobody knows."""

    def too_long(self, task: Task, rows: Sequence[Example]) -> list[int]:
        """See `too_long`."""
        answer = task.decoding.max_new_tokens if task.decoding.mode == "generate" else 0
        return too_long(self.reader, self.settings, rows, answer, self.context)

    def out_of_reach(self, task: Task, rows: Sequence[Example]) -> list[OutOfReach | None]:
        """See `out_of_reach`."""
        return out_of_reach(self.reader, self.settings, task, rows)

    def need_room(self, prior: Sequence[Snapshot]) -> None:
        """Refuse to learn where rows of earlier tasks, by which every candidate is judged, no longer fit.

        Raises:
            TooLong: one does not.
        """
        for snapshot in prior:
            with suppress(ObjectMissing):  # rows that are gone judge nothing
                rows = [row for split in JUDGES for row in snapshot.rows(split)]
                if longest := max(too_long(self.reader, self.settings, rows), default=0):
                    raise TooLong(
                        f"task {snapshot.task.label}, which was learnt before, has an example of {longest} tokens, and "
                        f"base_model.max_tokens is {self.settings.longest}: it could no longer be judged; raise the "
                        f"setting to {longest} or more"
                    )

    def need_text(self, snapshot: Snapshot) -> None:
        """See `need_text`."""
        need_text(self.reader, self.settings, snapshot)


def token_checks(settings: BaseModelSettings, models: str) -> TokenChecks:
    """Checks with the configured base model's tokenizer, which is converted first if need be.

    Raises:
        BaseModelError: there is no tokenizer to be had.
    """
    return TokenChecks(*reader_and_settings(settings, Path(models)))


def need_sight(settings: BaseModelSettings, models: str) -> None:
    """Refuse a task with images if the base model is known to read text only.

    Raises:
        SeesNoImages: it does.
    """
    try:
        sees = not settings.name.startswith("embedded:") and isinstance(
            load_reader(settings, Path(models)), ImageReader
        )
    except BaseModelError:  # nothing is known of it; tuning says what it lacks
        return
    if not sees:
        raise SeesNoImages(
            f"the task shows images, and base_model.name {settings.name} reads text only; name a base model with an "
            "image processor, then `lcia retry` the task"
        )


def need_text(reader: Reader, settings: BaseModelSettings, snapshot: Snapshot) -> None:
    """Refuse a task with a text that the base model can't take as text.

    Raises:
        ContentRefused: it spells a control token that can't be kept apart, or the chat template cuts or rewrites it.
    """
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
    prompt, strings = layout(
        reader, settings, turns_of(settings, example.instruction, example.input), len(example.images)
    )
    if strings:
        control.encode(prompt, strings, special=False)
    for answer in (example.output, *(example.choices or ())):
        if control.spells_control(answer):
            answer_tokens(reader, answer)


def _examples(snapshot: Snapshot) -> Iterator[tuple[str, Example]]:
    """Every row with its place, those without a label and one for the task's own choices among them."""
    for split in SPLITS:
        for number, example in enumerate(snapshot.rows(split), 1):
            yield f"{split} row {number}", example
    for number, row in enumerate(snapshot.unlabelled_rows(), 1):
        yield f"unlabelled row {number}", row.with_answer("")
    yield "the task's choices", Example("a", None, "a", choices=snapshot.task.choices)
