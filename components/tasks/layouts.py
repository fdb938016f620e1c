"""Other ways to write a row: chat messages, a prompt with its completion, and ShareGPT's conversations.

A row becomes `instruction`, `input` and `output` and loses nothing: the last assistant turn is the output; a system
turn is the instruction and the user's turn its input; without a system turn the user's turn is the instruction. Turns
before the last user turn are written out in front of it, each with its speaker.

Rows of these layouts come from other programs, which add fields of their own (`prompt_id`, `category`, a message's
`id`): they are left out, and `Plain.extras` names them. A field that changes the meaning of a row (tools, weights) is a
fault unless it is empty.

A turn's content may be a list of parts, texts and images. In our prompts images come before all text, so they may stand
only at the beginning or the end of the first user turn; between two texts their position would carry meaning that is
lost.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from components.tasks.problems import show

Fault: TypeAlias = tuple[str, str, str]
"""Field, what was seen, what was expected."""

SPEAKERS = {"user": "User", "assistant": "Assistant"}
"""Names that introduce earlier turns in the prompt."""
ROLES = {
    **{role: role for role in ("system", *SPEAKERS)},
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
}
"""Names of speakers in other programs -> ours."""
EXPECTED_ROLE = "system, user or assistant (human and gpt in ShareGPT); tool calls are not learnt"
OWN, BESIDE = frozenset({"instruction", "input", "output"}), frozenset({"choices", "image", "system"})
"""Fields of a row in our own layout, and fields that may stand beside turns."""
TOOLS = frozenset({"tools", "functions", "tool_calls", "function_call", "tool_call_id", "tool_choice"})
FOREIGN = TOOLS | {"system", "images", "history", "reasoning_content", "reasoning", "thinking", "audio", "refusal"}
"""Fields of other layouts that are part of the question or the answer, and have no counterpart in ours."""


class LayoutRefused(Exception):
    """A row in a known layout with content that doesn't fit it."""

    def __init__(self, *fault: str) -> None:
        field, actual, rule = fault
        self.fault: Fault = (field, actual, rule)


@dataclass(frozen=True)
class Plain:
    """A row with `instruction`, `input` and `output`."""

    row: dict[str, Any]
    extras: frozenset[str] = frozenset()
    """Names of the fields that were left out."""


def layout_of(row: Mapping[str, Any]) -> str | None:
    """The field that marks a row of another layout: `messages`, `conversations`, `prompt`, or None."""
    return next((field for field in ("messages", "conversations", "prompt") if field in row), None)


def plain(row: dict[str, Any], *, needs_output: bool) -> Plain:
    """The row with `instruction`, `input` and `output`; a row in our layout only loses empty foreign fields.

    Raises:
        LayoutRefused: turns in another order, of another speaker, or with other content than described above.
    """
    layout = layout_of(row)
    if layout is None:
        if "completion" in row:
            raise LayoutRefused("prompt", "no such field", "a text or a list of messages")
        return Plain({field: value for field, value in row.items() if field not in FOREIGN or not empty(value)})
    if own := OWN & row.keys():
        raise LayoutRefused(show(min(own)), f"a field beside {layout}", f"{layout} alone, or with choices, image")
    in_use = {layout, *BESIDE, *({"completion"} if layout == "prompt" else ())}
    extras = set(without_meaning(row, in_use))
    turns = _pair(row, extras) if layout == "prompt" else list(_turns(row[layout], layout, extras))
    return Plain(_fields(_with_system(row, turns), row, layout, needs_output=needs_output), frozenset(extras))


Turn: TypeAlias = tuple[str, str, list[Any]]
"""Role, text, and the turn's images: paths, or None for one that the row's own `image` names."""


def without_meaning(row: Mapping[str, Any], in_use: Collection[str], at: str = "", of: str = "") -> Iterator[str]:
    """Names of the fields that nothing reads, with `of` in front; empty fields are skipped.

    Raises:
        LayoutRefused: one of them changes the meaning of the row; the fault names it with `at` in front.
    """
    for field in sorted(row.keys() - set(in_use), key=str):
        value = row[field]
        if empty(value):
            continue
        if field in TOOLS:
            raise LayoutRefused(f"{at}{field}", show(value), "none: tool calls are not learnt")
        if field in FOREIGN or (field == "label" and value is False):
            rule = f"no such field: it changes what is asked (`lcia import --ignore {field}` leaves it out)"
            raise LayoutRefused(f"{at}{field}", show(value), rule)
        yield f"{of}{field}"


def empty(value: object) -> bool:
    """True for the values by which some programs write an absent field."""
    return value is None or value in ("", "[]", "{}", "null", [], {})


def _with_system(row: Mapping[str, Any], turns: list[Turn]) -> list[Turn]:
    """The turns, with the row's own `system` in front if they have no system turn."""
    if empty(row.get("system")):
        return turns
    if turns and turns[0][0] == "system":
        raise LayoutRefused("system", show(row["system"]), "one system text: this row has a system turn as well")
    return [("system", _text(row["system"], "system"), []), *turns]


def _pair(row: dict[str, Any], extras: set[str]) -> list[Turn]:
    """The turns of a prompt and its completion, each a text or a list of messages."""
    turns: list[Turn] = []
    for field, role in (("prompt", "user"), ("completion", "assistant")):
        value = row.get(field)
        if isinstance(value, list):
            turns += _turns(value, field, extras)
        elif value is not None:
            turns.append((role, _text(value, field), []))
        elif field == "prompt":
            raise LayoutRefused("prompt", "no such field", "a text or a list of messages")
    return turns


def _turns(messages: object, field: str, extras: set[str]) -> Iterator[Turn]:
    """The turns of a list of messages, as OpenAI (`role`, `content`) or as ShareGPT (`from`, `value`) writes them."""
    if not isinstance(messages, list) or not messages:
        raise LayoutRefused(field, show(messages), "a list of messages")
    for number, message in enumerate(messages):
        at = f"{field}[{number}]"
        keys = next((pair for pair in (("role", "content"), ("from", "value")) if _has(message, pair)), None)
        if keys is None:
            raise LayoutRefused(at, show(message), "an object with role and content, or with from and value")
        extras.update(without_meaning(message, keys, f"{at}.", f"{field}."))
        said_by, content = (message[key] for key in keys)
        role = ROLES.get(said_by) if isinstance(said_by, str) else None
        if role is None:
            raise LayoutRefused(f"{at}.{keys[0]}", show(said_by), EXPECTED_ROLE)
        if role == "system" and empty(content):
            continue
        if role == "assistant" and number == len(messages) - 1 and message.get("weight") == 0:
            raise LayoutRefused(f"{at}.weight", "0 on the answer", "an answer that is to be learnt")
        text, images = _parts(content, f"{at}.{keys[1]}") if isinstance(content, list) else (content, [])
        if images and role != "user":
            raise LayoutRefused(f"{at}.{keys[1]}", f"an image said by {said_by}", "images in the first user turn")
        yield role, _text(text, f"{at}.{keys[1]}"), images


def _has(message: object, keys: tuple[str, str]) -> bool:
    return isinstance(message, dict) and all(key in message for key in keys)


def _parts(parts: list[Any], at: str) -> tuple[str, list[Any]]:
    """Text and images of a turn written in parts."""
    kinds, texts, images = "", [], []
    for number, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        keys = {key for key in part if part[key] is not None} - {"type"} if isinstance(part, dict) else set()
        if kind == "text" and keys == {"text"}:
            texts.append(_text(part["text"], f"{at}[{number}].text"))
        elif kind == "image" and (not keys or keys in ({"image"}, {"path"})):
            images.append(part[keys.pop()] if keys else None)
        else:
            rule = "a part of type text with text, or of type image with image or path, or with neither"
            if kind == "image_url":
                rule = "a part of type image with the path of a file in the package: addresses are not fetched"
            raise LayoutRefused(f"{at}[{number}]", show(part), rule)
        kinds += kind[0]
    if "ti" in kinds and "it" in kinds:
        raise LayoutRefused(at, "an image between texts", "images before the text or after it")
    return "\n".join(texts), images


def _text(value: object, at: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise LayoutRefused(at, show(value), "a non-empty string")
    return value


def _images(turns: Sequence[Turn], row: dict[str, Any]) -> dict[str, Any]:
    """The row's `image`: its own, as many as its parts leave open, or the images that its parts name."""
    first = next((images for role, _, images in turns if role == "user"), [])
    in_parts = [image for _, _, images in turns for image in images]
    if len(in_parts) > len(first):
        raise LayoutRefused("messages", "an image in a later turn", "images in the first user turn")
    if row.get("image") is None:
        return {"image": in_parts} if in_parts else {}
    own = row["image"] if isinstance(row["image"], list) else [row["image"]]
    if in_parts and in_parts != [None] * len(own):
        actual = f"{len(own)} images beside parts of type image for {show(in_parts)}"
        raise LayoutRefused("image", actual, "as many parts without a path, or none")
    return {"image": row["image"]}


def _fields(turns: Sequence[Turn], row: dict[str, Any], layout: str, *, needs_output: bool) -> dict[str, Any]:
    field = "messages" if layout == "prompt" else layout
    system = [text for role, text, _ in turns[:1] if role == "system"]
    spoken = list(turns[len(system) :])
    for number, (role, _, _) in enumerate(spoken):
        if role != ("user", "assistant")[number % 2]:
            raise LayoutRefused(field, f"{role} as turn {number + 1}", "user and assistant in turn, after system")
    answer: dict[str, Any] = {}
    if needs_output:
        if not spoken or spoken[-1][0] != "assistant":
            raise LayoutRefused(field, "no answer at the end", "an assistant turn last")
        answer = {"output": spoken.pop()[1]}
    if not spoken or spoken[-1][0] != "user":
        rule = "a user turn before the answer" if needs_output else "a user turn last: this split has no answers"
        raise LayoutRefused(field, "no question at the end", rule)
    request = spoken[-1][1]
    if len(spoken) > 1:
        request = "\n".join(f"{SPEAKERS[role]}: {text}" for role, text, _ in spoken)
    question = {"instruction": system[0], "input": request} if system else {"instruction": request}
    choices = {"choices": row["choices"]} if row.get("choices") is not None else {}
    return {**question, **answer, **choices, **_images(turns, row)}
