"""Writing systems of texts: the scripts of a row's or a task's letters."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from components.tasks.rows import Example

MINORITY = 0.1
"""A script that leads in less than this share of a task's rows is in the minority there."""
OWN_LETTERS = 0.5
"""A script leads in a row when at least this share of its letters belong to it."""

LATIN = frozenset({"LATIN"})
WIDTHS = frozenset({"FULLWIDTH", "HALFWIDTH"})
JAPANESE = frozenset({"KANA", "CJK"})
"""Scripts of one language: either may lead in a Japanese row."""


@lru_cache(maxsize=65536)
def script_of(character: str) -> str:
    """Script of a letter by the first word of its Unicode name, e.g. LATIN; empty for anything else.

    Forms of another width belong to the script they are forms of, and hiragana and katakana to one, KANA.
    """
    if not character.isalpha():
        return ""
    script, *others = unicodedata.name(character, "UNNAMED").split()
    if script in WIDTHS and others:
        script = others[0]
    return "KANA" if script in {"HIRAGANA", "KATAKANA"} else script


def letters(texts: Iterable[str]) -> Counter[str]:
    """Number of letters per script."""
    characters: Counter[str] = Counter()
    for text in texts:
        characters.update(text)
    scripts: Counter[str] = Counter()
    for character, count in characters.items():
        script = script_of(character)
        if script:
            scripts[script] += count
    return scripts


def foreign_scripts(rows: Sequence[Example]) -> list[str]:
    """Per row the script that leads in its input or output and is in the minority in the task; else an empty text.

    A task in one language passes, and so does one in two: a translation task has both in nearly every row.
    """
    leading = [_leading_scripts(row) for row in rows]
    counts = Counter(script for scripts in leading for script in scripts)
    minority = {script for script, count in counts.items() if count < MINORITY * len(rows)}
    if minority & JAPANESE and sum(map(_has_kana, rows)) >= MINORITY * len(rows):
        minority -= JAPANESE
    return [min(scripts & minority, default="").lower() for scripts in leading]


def _leading_scripts(row: Example) -> frozenset[str]:
    texts = (row.subject, row.output)
    if all(text.isascii() for text in texts):
        return LATIN
    return frozenset(script for script in map(_leading, texts) if script)


def _has_kana(row: Example) -> bool:
    return "KANA" in letters([row.subject, row.output])


def _leading(text: str) -> str:
    counts = letters([text])
    if not counts:
        return ""
    script, count = counts.most_common(1)[0]
    return script if count >= OWN_LETTERS * counts.total() else ""
