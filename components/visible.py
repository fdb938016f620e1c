"""Text from packages and people as readers can trust it: signs that don't show themselves are spelt out.

Control characters move a terminal's cursor, end lines and change colours; direction marks reorder a line; zero-width
signs make two names look alike. What is stored stays as it was said; only what is shown passes through here.
"""

import json
import re

_RANGES = (
    "\x00-\x1f",  # C0, with newline, tab and escape
    "\x7f-\x9f",  # DEL and C1
    "\u00ad",  # soft hyphen
    "\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u3164\uffa0",  # joiners, fillers and a direction mark, all blank
    "\u200b-\u200f",  # zero width, direction marks
    "\u2028-\u202e",  # ends of line and paragraph, embeddings and overrides of direction
    "\u2060-\u206f",  # word joiner, invisible operators, isolates
    "\ufeff",  # byte order mark
    "\ufff9-\ufffb",  # annotations
    "\ud800-\udfff",  # halves of surrogate pairs: bytes of file names that are no UTF-8
    "\U000e0000-\U000e007f",  # tags
)
_HIDDEN = re.compile(f"[{''.join(_RANGES)}]")
_HIDDEN_IN_LINES = re.compile(f"(?![\\n\\t])[{''.join(_RANGES)}]")


def visible(text: str, *, lines: bool = False) -> str:
    r"""Spell out hidden signs as Python does (`\n`, `\x1b`, `\u202e`); with `lines`, newlines and tabs stay."""
    return (_HIDDEN_IN_LINES if lines else _HIDDEN).sub(_spelt, text)


def visible_json(text: str) -> str:
    """JSON text whose strings hold hidden signs as JSON's own escapes; it means the same."""
    return _HIDDEN_IN_LINES.sub(_escaped, text)


def _spelt(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _escaped(match: re.Match[str]) -> str:
    sign = match[0]
    return f"\\u{ord(sign):04x}" if sign == "\x7f" else json.dumps(sign)[1:-1]
