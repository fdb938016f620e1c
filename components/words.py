"""Words of a text in any script, as measures and data checks count them.

White space separates the words of most languages. Chinese, Japanese, Thai, Lao, Khmer, Burmese and their like write
none between words: there ICU's dictionaries cut the text between two spaces (UAX #29 as ICU's word break iterator
tailors it). A text without a letter of such a script is split at white space and nothing else.
"""

from functools import cache

import regex  # type: ignore[import-untyped]

SEGMENTATION = 1
"""Raised when the words of some text change: scores that rest on words compare only within one."""

_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Tibetan}\p{Line_Break=Complex_Context}]"
)
"""Letters of scripts written without spaces; Unicode's line breaking class SA holds those of South East Asia."""
_INVISIBLE = regex.compile(r"\p{Cf}+")
"""Zero-width spaces and the like, which some writers set between words."""


def unspaced(text: str) -> bool:
    """Whether a text has letters of a script that sets no spaces between words."""
    return not text.isascii() and _UNSPACED.search(text) is not None


def words(text: str) -> list[str]:
    """Words in order, as they are written; in unspaced scripts each punctuation mark is one of its own."""
    parts = text.split()
    if not unspaced(text):
        return parts
    return [word for part in parts for word in (_segments(part) if unspaced(part) else [part])]


def _segments(part: str) -> list[str]:
    """One piece without white space, cut by dictionary."""
    from icu4py.breakers import WordBreaker

    visible = _INVISIBLE.sub("", part)
    return [visible[start:end] for start, end in WordBreaker(visible, "en").segments()]


@cache
def segmentation() -> str:
    """The segmentation with the version of its dictionaries, as `1, ICU 78.3`."""
    from icu4py import icu_version

    return f"{SEGMENTATION}, ICU {icu_version}"
