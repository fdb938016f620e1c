"""Text from packages and people, made safe to show: invisible characters are spelt out.

Control characters move a terminal's cursor, end lines and change colours; direction marks reorder a line; zero-width
characters make two names look alike. Stored text stays as it is; only text on its way to a reader passes through here.
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
"""A variation selector; behind an emoji it is part of a visible character."""
_HIDDEN = regex.compile(f"[{''.join(_RANGES)}]|{_VARIANT}")
_HIDDEN_IN_LINES = regex.compile(f"(?![\\n\\t])[{''.join(_RANGES)}]|{_VARIANT}")


def visible(text: str, *, lines: bool = False) -> str:
    r"""Spell out hidden characters as Python does (`\n`, `\x1b`, `\u202e`); with `lines`, newlines and tabs stay."""
    out: str = (_HIDDEN_IN_LINES if lines else _HIDDEN).sub(_spell, text)
    return out


def visible_json(text: str) -> str:
    """The same JSON with the hidden characters of its strings as JSON's own escapes."""
    out: str = _HIDDEN_IN_LINES.sub(_escape, text)
    return out


def is_plain(name: str) -> bool:
    """True if a name shows all of itself: no hidden character, no space around it, something to see."""
    return bool(name) and name == name.strip() and visible(name) == name


def is_blank(text: str) -> bool:
    """True if a text shows nothing: only white space and hidden characters."""
    return not _HIDDEN.sub("", text).strip()


def _spell(match: "regex.Match[str]") -> str:
    return str(match[0]).encode("unicode_escape").decode("ascii")


def _escape(match: "regex.Match[str]") -> str:
    character: str = match[0]
    # JSON need not escape DEL, so `json.dumps` leaves it as it is
    return f"\\u{ord(character):04x}" if character == "\x7f" else json.dumps(character)[1:-1]


def indent(message: str) -> str:
    """A message with its further lines indented, so that nobody takes them for messages of their own."""
    first, *rest = message.splitlines() or [""]
    return "\n".join([first, *(line if line.startswith("  ") else f"  {line}" for line in rest)])
