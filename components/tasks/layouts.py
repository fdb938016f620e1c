"""Other ways to write a row: chat messages, and prompt with completion, as TRL and Hugging Face data sets have them.

A row becomes `instruction`, `input` and `output` without losing anything that was said: the last assistant turn is the
output; a system turn is the instruction and the user's turn its input; without one the user's turn is the instruction.
Turns before the last user's are written out in front of it, each with its speaker.

A turn's content may be a list of parts, texts and images. Images come before all text in a prompt, so they may only
stand at the beginning or the end of the first user turn; between two texts they would mean something that is lost.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from components.tasks.problems import show

Fault: TypeAlias = tuple[str, str, str]
"""Field, what was seen, what was expected."""

SPEAKERS = {"user": "User", "assistant": "Assistant"}
"""How earlier turns are introduced in the prompt."""
CHAT, PAIR, BESIDE = {"messages"}, {"prompt", "completion"}, {"choices", "image"}


class LayoutRefused(Exception):
    """A row in a known layout that does not hold what it should."""

    def __init__(self, *fault: str) -> None:
        field, seen, expected = fault
        self.fault: Fault = (field, seen, expected)


def plain(row: dict[str, Any], *, labelled: bool) -> dict[str, Any]:
    """The row with `instruction`, `input` and `output`; one that has them already is returned as it is.

    Raises:
        LayoutRefused: turns of another order, speaker or content than described.
    """
    if CHAT & row.keys():
        if others := row.keys() - CHAT - BESIDE:
            raise LayoutRefused(show(min(others)), "a field beside messages", "messages alone, or with choices, image")
        return _fields(list(_turns(row["messages"], "messages")), row, labelled=labelled)
    if PAIR & row.keys():
        if others := row.keys() - PAIR - BESIDE:
            raise LayoutRefused(
                show(min(others)), "a field beside prompt", "prompt, completion, or with choices, image"
            )
        return _fields(_pair(row), row, labelled=labelled)
    return row


Turn: TypeAlias = tuple[str, str, list[Any]]
"""Role, text, and the turn's images: paths, or None for one that the row's own `image` names."""


def _pair(row: dict[str, Any]) -> list[Turn]:
    """The turns of a prompt and its completion, each a text or a list of messages."""
    turns: list[Turn] = []
    for field, role in (("prompt", "user"), ("completion", "assistant")):
        value = row.get(field)
        if isinstance(value, list):
            turns += _turns(value, field)
        elif value is not None:
            turns.append((role, _text(value, field), []))
        elif field == "prompt":
            raise LayoutRefused("prompt", "no such field", "a text or a list of messages")
    return turns


def _turns(messages: object, field: str) -> Iterator[Turn]:
    if not isinstance(messages, list) or not messages:
        raise LayoutRefused(field, show(messages), "a list of messages")
    for number, message in enumerate(messages):
        place = f"{field}[{number}]"
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise LayoutRefused(place, show(message), "an object with role and content")
        if others := {key for key in message.keys() - {"role", "content"} if message[key] is not None}:
            raise LayoutRefused(f"{place}.{show(min(others))}", "an unknown field", "only role and content")
        role = message["role"]
        if role not in ("system", *SPEAKERS):
            raise LayoutRefused(f"{place}.role", show(role), "system, user or assistant")
        content = message["content"]
        text, images = _parts(content, f"{place}.content") if isinstance(content, list) else (content, [])
        if images and role != "user":
            raise LayoutRefused(f"{place}.content", f"an image said by {role}", "images in the first user turn")
        yield role, _text(text, f"{place}.content"), images


def _parts(parts: list[Any], place: str) -> tuple[str, list[Any]]:
    """Text and images of a turn written in parts."""
    kinds, texts, images = "", [], []
    for number, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        told = {key for key in part if part[key] is not None} - {"type"} if isinstance(part, dict) else set()
        if kind == "text" and told == {"text"}:
            texts.append(_text(part["text"], f"{place}[{number}].text"))
        elif kind == "image" and (not told or told in ({"image"}, {"path"})):
            images.append(part[told.pop()] if told else None)
        else:
            expected = "a part of type text with text, or of type image with image or path, or with neither"
            raise LayoutRefused(f"{place}[{number}]", show(part), expected)
        kinds += kind[0]
    if "ti" in kinds and "it" in kinds:
        raise LayoutRefused(place, "an image between texts", "images before the text or after it")
    return "\n".join(texts), images


def _text(value: object, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise LayoutRefused(place, show(value), "a non-empty string")
    return value


def _images(turns: Sequence[Turn], row: dict[str, Any]) -> dict[str, Any]:
    """The row's `image`: its own, as many as its parts leave open, or those that its parts name."""
    first = next((images for role, _, images in turns if role == "user"), [])
    shown = [image for _, _, images in turns for image in images]
    if len(shown) > len(first):
        raise LayoutRefused("messages", "an image in a later turn", "images in the first user turn")
    if row.get("image") is None:
        return {"image": shown} if shown else {}
    own = row["image"] if isinstance(row["image"], list) else [row["image"]]
    if shown and shown != [None] * len(own):
        seen = f"{len(own)} images beside parts of type image for {show(shown)}"
        raise LayoutRefused("image", seen, "as many parts without a path, or none")
    return {"image": row["image"]}


def _fields(turns: Sequence[Turn], row: dict[str, Any], *, labelled: bool) -> dict[str, Any]:
    system = [text for role, text, _ in turns[:1] if role == "system"]
    spoken = list(turns[len(system) :])
    for number, (role, _, _) in enumerate(spoken):
        if role != ("user", "assistant")[number % 2]:
            raise LayoutRefused("messages", f"{role} as turn {number + 1}", "user and assistant in turn, after system")
    answer: dict[str, Any] = {}
    if labelled:
        if not spoken or spoken[-1][0] != "assistant":
            raise LayoutRefused("messages", "no answer at the end", "an assistant turn last")
        answer = {"output": spoken.pop()[1]}
    if not spoken or spoken[-1][0] != "user":
        expected = "a user turn before the answer" if labelled else "a user turn last: this split has no answers"
        raise LayoutRefused("messages", "no question at the end", expected)
    asked = spoken[-1][1]
    if len(spoken) > 1:
        asked = "\n".join(f"{SPEAKERS[role]}: {text}" for role, text, _ in spoken)
    question = {"instruction": system[0], "input": asked} if system else {"instruction": asked}
    kept = {"choices": row["choices"]} if row.get("choices") is not None else {}
    return {**question, **answer, **kept, **_images(turns, row)}
