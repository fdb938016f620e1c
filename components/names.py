"""Names: different spellings of one name mean one person; and words for what the version of a task did."""

import unicodedata


def fold(name: str) -> str:
    """A name without letter case, character width and outer blanks, which don't make it another person's."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def same_person(first: str, second: str) -> bool:
    """True if two names mean one person."""
    return fold(first) == fold(second)


def version_deed(task_name: str) -> str:
    """The words for what a version did, by its `task_name`: `learnt NAME@VERSION`, or what it changed instead."""
    label, _, change = task_name.partition("+")
    if change.startswith("revert."):
        return f"takes {label} out"
    return f"changes the wordings of {label}" if change else f"learnt {task_name}"
