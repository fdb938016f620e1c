"""Text from packages and people as readers can trust it: signs that don't show themselves are spelt out.

Control characters move a terminal's cursor, end lines and change colours; direction marks reorder a line; zero-width
signs make two names look alike. What is stored stays as it was said; only what is shown passes through here.
"""

import json

import regex  # type: ignore[import-untyped]

_RANGES = (
    "\x00-\x1f",  # C0, with newline, tab and escape
    "\x7f-\x9f",  # DEL and C1
    "\u00ad",  # soft hyphen
    "\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0",  # joiners, fillers, a direction mark: blank
    "\u200b-\u200f",  # zero width, direction marks
    "\u2028-\u202e",  # ends of line and paragraph, embeddings and overrides of direction
    "\u2060-\u206f",  # word joiner, invisible operators, isolates
    "\ufeff",  # byte order mark
    "\ufff9-\ufffb",  # annotations
    "\ud800-\udfff",  # halves of surrogate pairs: bytes of file names that are no UTF-8
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a",  # controls of shorthand and music
    "\U000e0000-\U000e0fff",  # tags and further variation selectors
)
_VARIANT = r"(?<!\p{Extended_Pictographic})[\ufe00-\ufe0f]"
"""A variation selector; behind an emoji it is part of a sign that people see."""
_HIDDEN = regex.compile(f"[{''.join(_RANGES)}]|{_VARIANT}")
_HIDDEN_IN_LINES = regex.compile(f"(?![\\n\\t])[{''.join(_RANGES)}]|{_VARIANT}")


def visible(text: str, *, lines: bool = False) -> str:
    r"""Spell out hidden signs as Python does (`\n`, `\x1b`, `\u202e`); with `lines`, newlines and tabs stay."""
    shown: str = (_HIDDEN_IN_LINES if lines else _HIDDEN).sub(_spelt, text)
    return shown


def visible_json(text: str) -> str:
    """JSON text whose strings hold hidden signs as JSON's own escapes; it means the same."""
    shown: str = _HIDDEN_IN_LINES.sub(_escaped, text)
    return shown


def is_plain(name: str) -> bool:
    """True if a name shows all that it holds: no hidden sign, no space around it, something to see."""
    return bool(name) and name == name.strip() and visible(name) == name


def is_blank(text: str) -> bool:
    """True if a text shows nothing: white space and hidden signs alone."""
    return not _HIDDEN.sub("", text).strip()


def _spelt(match: "regex.Match[str]") -> str:
    return str(match[0]).encode("unicode_escape").decode("ascii")


def _escaped(match: "regex.Match[str]") -> str:
    sign: str = match[0]
    return f"\\u{ord(sign):04x}" if sign == "\x7f" else json.dumps(sign)[1:-1]


def indented(message: str) -> str:
    """A message whose further lines can't be taken for messages of their own."""
    first, *rest = message.splitlines() or [""]
    return "\n".join([first, *(line if line.startswith("  ") else f"  {line}" for line in rest)])
