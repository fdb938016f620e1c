"""Words of a text in any script, as measures and data checks count them.

White space separates the words of most languages. Chinese, Japanese, Thai, Lao, Khmer, Burmese and their like write
none between words: there ICU's dictionaries cut the text between two spaces (UAX #29 as ICU's word break iterator
tailors it). A text without a letter of such a script is split at white space and nothing else.
"""

import unicodedata
from functools import cache

import regex  # type: ignore[import-untyped]

SEGMENTATION = 1
"""Raised when the words of some text change: scores that rest on words compare only within one."""

_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Tibetan}\p{Line_Break=Complex_Context}]"
)
"""Letters of scripts written without spaces; Unicode's line breaking class SA holds those of South East Asia."""
_COMPLEX = regex.compile(r"\p{Line_Break=Complex_Context}")
_GAP = regex.compile(rf"(?<={_UNSPACED.pattern})\s+|(?<!\s)\s++(?={_UNSPACED.pattern})")
"""White space beside a letter; each run of it is looked at once, however long it is."""
_INVISIBLE = regex.compile(r"\p{Cf}+")
"""Zero-width spaces and the like, which some writers set between words."""


def unspaced(text: str) -> bool:
    """True if a text has letters of a script that sets no spaces between words."""
    return not text.isascii() and _UNSPACED.search(text) is not None


def evened(text: str) -> str:
    """Text with case and white space evened out; in unspaced scripts also widths, and without the space at letters.

    Full-width and half-width forms are the same characters there (NFKC), and a space between two words is chance.
    """
    if not unspaced(text):
        return " ".join(text.casefold().split())
    folded = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold()
    return " ".join(_GAP.sub("", folded).split())


def letter_bytes(text: str) -> bytes:
    """UTF-8 bytes, but one byte for each letter of the South East Asian alphabets.

    A run of some bytes then holds as many letters of these alphabets as of others; UTF-8 gives each three bytes.
    """
    if not unspaced(text):
        return text.encode()
    return b"".join(bytes([ord(c) & 0xFF]) if _COMPLEX.match(c) else c.encode() for c in text)


def without_unspaced(text: str) -> str:
    """Text with a space for each letter of an unspaced script, forms of other widths as plain ones.

    For patterns that look at the edges of words.
    """
    if not unspaced(text):
        return text
    bare = _UNSPACED.sub(" ", text).replace("\N{FULLWIDTH COLON}", " ")
    return unicodedata.normalize("NFKC", bare)


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
