"""Names of people, compared: different spellings of one name mean one person."""

import unicodedata


def fold(name: str) -> str:
    """A name without letter case, character width and outer blanks, which don't make it another person's."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def same_person(first: str, second: str) -> bool:
    """True if two names mean one person."""
    return fold(first) == fold(second)
