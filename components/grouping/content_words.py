"""Content words of a text, by which it is compared without a model."""

import re

from components.words import is_unspaced
from components.words import words as dictionary_words

_WORD = re.compile(r"\w+", re.UNICODE)
_STOP_TEXT = """
a about an and any are as at be been being but by can could did do does each either every for from had has
have he her his how i if in into is it its may me might more most must my no nor not of off on one only or
other our out over own shall she should so some such than that the their them then there these they this
those through to too under up upon us very was we were what whether when where which while who whom whose
why will with within without would yes you your
"""
_STOP_WORDS = frozenset(_STOP_TEXT.split())


def words(text: str, *, dictionary: bool = False) -> list[str]:
    """Content words of a text, lower case, in order; `dictionary` cuts them in scripts that write no spaces.

    A text of stop words only keeps them all, and a text without any letter or digit is one token of its
    own, so every text has at least one token.
    """
    parts = dictionary_words(text.lower()) if dictionary and is_unspaced(text) else [text.lower()]
    tokens = [token for part in parts for token in ([part] if is_unspaced(part) else _WORD.findall(part))]
    content = [token for token in tokens if token not in _STOP_WORDS]
    return content or tokens or [f"\0{text.strip()}"]
