"""Names of people: which of them mean one person."""

import unicodedata


def folded(name: str) -> str:
    """A name without letter case, width and outer blanks, which don't make another person."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def same_person(left: str, right: str) -> bool:
    """Whether two names mean one person."""
    return folded(left) == folded(right)
