"""Answers that a task's decoding and metric can never give or count, told before anything is trained.

A generated answer is cut after `decoding.max_new_tokens` tokens, ends at the first end token, and is compared with the
reference as the tokenizer reads it back. A chosen one is the likeliest of the choices: of two that have the same tokens
only the first is ever chosen.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self, TypeAlias

from components.model.prompts import Reader, control_of, render, render_prompt, user_text
from components.quality.reachable import OutOfReach
from components.settings import BaseModelSettings
from components.tasks.rows import Example
from components.tasks.task_file import Task
from components.words import words

Tokens: TypeAlias = Callable[[str], tuple[int, ...]]
"""Token ids of an answer, its end token included."""
SURE_BYTES = 2
"""A row of this many bytes fewer than there are tokens left fits without being counted: a token is a byte or more."""
BINARY = frozenset({"exact_match", "choice_accuracy"})
"""Metrics that compare whole answers; the others compare words."""


def out_of_reach(
    reader: Reader, settings: BaseModelSettings, task: Task, rows: Sequence[Example]
) -> list[OutOfReach | None]:
    """Per row the reason for which no answer of the model can score as its reference should; None if one can.

    Exact: answers are rendered as training and evaluation render them.
    """
    limitless = settings.model_copy(update={"max_tokens": 2**31})

    @cache
    def tokens(answer: str) -> tuple[int, ...]:
        return render(reader, limitless, "a", None, answer).answer

    if task.decoding.mode == "choose":
        room = Room.of(reader, settings)
        return [_fault_of_choice(task, row, tokens, room) for row in rows]

    @cache
    def fault(answer: str) -> OutOfReach | None:
        return next(_fault_of_text(reader, task, answer, tokens(answer)), None)

    return [fault(row.output) for row in rows]


def _fault_of_text(reader: Reader, task: Task, answer: str, tokens: tuple[int, ...]) -> Iterator[OutOfReach]:
    control, limit, body = control_of(reader), task.decoding.max_new_tokens, tokens[:-1]
    tokenizer = control.tokenizer
    if len(body) > limit:
        yield OutOfReach(f"{len(body)} tokens, decoding.max_new_tokens is {limit}", len(body))
    place = next((place for place, token in enumerate(body) if token in control.ends), None)
    if place is not None:
        yield OutOfReach(f"the end token stands in it, after {place} tokens: an answer ends there")
    text = tokenizer.decode(list(body), skip_special_tokens=True)
    whole = task.metric in BINARY
    if text.strip() != answer.strip() if whole else words(text.lower()) != words(answer.lower()):
        unknown = body.count(tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0
        why = f"{unknown} of its tokens are unknown" if unknown else _difference(answer.strip(), text.strip())
        yield OutOfReach(f"the tokenizer does not give it back: {why}")


def _difference(answer: str, text: str) -> str:
    """The first character that comes back as another one, by its number: rows are shown to nobody."""
    place = next((i for i, (a, b) in enumerate(zip(answer, text, strict=False)) if a != b), min(len(answer), len(text)))
    given_character = f"U+{ord(answer[place]):04X}" if place < len(answer) else "its end"
    back = f"U+{ord(text[place]):04X}" if place < len(text) else "nothing"
    return f"{given_character} (character {place + 1}) comes back as {back}"


def _fault_of_choice(task: Task, row: Example, tokens: Tokens, room: "Room") -> OutOfReach | None:
    choices = row.choices or task.choices or ()
    first: dict[tuple[int, ...], str] = {}
    for choice in choices:
        same = first.setdefault(tokens(choice), choice)
        if choice == row.output and same.strip() != choice.strip():
            return OutOfReach(f"its tokens are those of an earlier choice, {same!r}")
    length = room.beyond(row, max((len(tokens(choice)) for choice in choices), default=0))
    return (
        OutOfReach(f"prompt and longest choice take {length} tokens, base_model.max_tokens is {room.limit}")
        if length
        else None
    )


@dataclass(frozen=True)
class Room:
    """The base model's context: `limit` tokens, of which an empty prompt takes `around`."""

    reader: Reader
    settings: BaseModelSettings
    around: int
    limit: int

    @classmethod
    def of(cls, reader: Reader, settings: BaseModelSettings) -> Self:
        """Of the configured base model."""
        limitless = settings.model_copy(update={"max_tokens": 2**31})
        around = len(render(reader, limitless, "a", None, "a").tokens)
        return cls(reader, limitless, around, settings.longest)

    def beyond(self, row: Example, answer: int) -> int:
        """Tokens of the prompt and `answer` tokens if they exceed the context, else 0."""
        text = user_text(row.instruction, row.input)
        if not row.images and len(text.encode()) + answer <= self.limit - self.around - SURE_BYTES:
            return 0
        length = len(render_prompt(self.reader, self.settings, row.instruction, row.input, row.images)) + answer
        return length if length > self.limit else 0
