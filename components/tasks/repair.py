"""Texts that were decoded with the wrong code page (mojibake): detected, and mended if people ask for it.

Both by ftfy (Speer, doi:10.5281/zenodo.2591652), which mends only text that its heuristic finds in no language.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

from components.tasks.problems import Problem, decode, printable
from components.tasks.records import Record, mapped_texts

_MOJIBAKE = ("likely mojibake; `--repair` mends it", "mojibake mended")
"""Remarks about rows left as they were, and about rows that were mended."""


class Repair:
    """Mends the texts of rows if `active`; else counts the rows that would be mended."""

    def __init__(self, *, active: bool) -> None:
        self.active = active
        self._rows: Counter[str] = Counter()
        self._example: tuple[str, str] | None = None

    def decode(self, content: bytes, name: str) -> str | Problem:
        """The text of some bytes: UTF-8, or, if active, the code page that fits them best."""
        text = decode(content, name)
        if isinstance(text, str):
            return text
        if not self.active:
            return replace(text, expected=f"{text.expected}, or let `--repair` read it")
        from ftfy import guess_bytes

        guess, encoding = guess_bytes(content)
        self._rows[f"read as {encoding.removeprefix('sloppy-')}: it is not UTF-8"] += 1
        return guess

    def row(self, record: Record) -> Record:
        """The row, mended if active."""
        better: Record = mapped_texts(record, self._text)
        if better is record:
            return record
        words = "mojibake mended" if self.active else "likely mojibake; `--repair` mends it"
        self._rows[words] += 1
        return better if self.active else record

    def _text(self, text: str) -> str:
        if text.isascii():
            return text
        from ftfy import fix_encoding
        from ftfy.badness import is_bad

        if not is_bad(text):
            return text
        better = fix_encoding(text)
        if better != text and self._example is None:
            self._example = _difference(text, better)
        return better if better != text else text

    @property
    def remarks(self) -> list[str]:
        """Sentences for people."""
        example = f", such as {self._example[0]} for {self._example[1]}" if self._example else ""
        return [f"{count} rows: {words}{example if 'mojibake' in words else ''}" for words, count in self._rows.items()]


def _difference(text: str, better: str) -> tuple[str, str]:
    """The first word that differs, as it is and as it would be."""
    pairs: Any = zip(text.split(), better.split(), strict=False)
    words = next(((ours, theirs) for ours, theirs in pairs if ours != theirs), (text, better))
    return printable(words[0][:40]), printable(words[1][:40])
