"""Words of a text in any script, for measures and data checks.

White space separates the words of most languages. Chinese, Japanese, Thai, Lao, Khmer, Burmese and similar languages
write no space between words: there ICU's dictionaries cut the text between two spaces (UAX #29 as ICU's word break
iterator tailors it). A text without a letter of such a script is split at white space only.
"""

import unicodedata
from functools import cache

import regex  # type: ignore[import-untyped]

SEGMENTATION = 1
"""Goes up when the words of some text change: scores that count words compare only within one version."""

_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Tibetan}\p{Line_Break=Complex_Context}]"
)
"""Letters of scripts written without spaces; Unicode's line breaking class SA holds those of South East Asia."""
_COMPLEX = regex.compile(r"\p{Line_Break=Complex_Context}")
_GAP = regex.compile(rf"(?<={_UNSPACED.pattern})\s+|(?<!\s)\s++(?={_UNSPACED.pattern})")
"""White space beside such a letter; the possessive `++` reads each run once, so that long runs take linear time."""
_INVISIBLE = regex.compile(r"\p{Cf}+")
"""Zero-width spaces and the like, which some writers put between words."""


def is_unspaced(text: str) -> bool:
    """True if a text has letters of a script without spaces between words."""
    return not text.isascii() and _UNSPACED.search(text) is not None


def even_out(text: str) -> str:
    """Text with case and white space evened out; in unspaced scripts also widths, and without white space at letters.

    There full-width and half-width forms are the same characters (NFKC), and white space between words means nothing.
    """
    if not is_unspaced(text):
        return " ".join(text.casefold().split())
    caseless = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold()
    return " ".join(_GAP.sub("", caseless).split())


def letter_bytes(text: str) -> bytes:
    """UTF-8 bytes, but with one byte for each letter of the South East Asian alphabets.

    So a run of bytes holds as many letters of these alphabets as of others; UTF-8 gives each of them three bytes.
    """
    if not is_unspaced(text):
        return text.encode()
    return b"".join(bytes([ord(c) & 0xFF]) if _COMPLEX.match(c) else c.encode() for c in text)


def without_unspaced(text: str) -> str:
    """Text with a space for each letter of an unspaced script, and forms of other widths as plain ones.

    For patterns that need the edges of words.
    """
    if not is_unspaced(text):
        return text
    bare = _UNSPACED.sub(" ", text).replace("\N{FULLWIDTH COLON}", " ")
    return unicodedata.normalize("NFKC", bare)


def words(text: str) -> list[str]:
    """Words in order, unchanged; in unspaced scripts each punctuation mark is a word of its own."""
    parts = text.split()
    if not is_unspaced(text):
        return parts
    return [word for part in parts for word in (_segments(part) if is_unspaced(part) else [part])]


def _segments(part: str) -> list[str]:
    """Words of one piece without white space, cut by dictionary."""
    from icu4py.breakers import WordBreaker

    visible = _INVISIBLE.sub("", part)
    return [visible[start:end] for start, end in WordBreaker(visible, "en").segments()]


@cache
def segmentation() -> str:
    """Version of the segmentation with that of its dictionaries, as `1, ICU 78.3`."""
    from icu4py import icu_version

    return f"{SEGMENTATION}, ICU {icu_version}"
