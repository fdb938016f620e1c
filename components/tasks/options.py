"""Options of a row, and the option its answer means: by text, place, letter or label, one way for a whole data set.

An answer `3` may be the option "3", the fourth option or the third. Decided row by row, some rows of a set would be
read one way and some another. So one way has to fit all rows; if several fit and mean different options, people decide.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from components.tasks.problems import show
from components.tasks.records import Record
from components.tasks.rows import even_text
from components.tasks.values import as_text, value_of

Way: TypeAlias = Literal["label", "text", "letter", "0", "1"]
"""An answer is an option's label, its text, its letter, or its place counted from 0 or from 1."""
WAYS: tuple[Way, ...] = get_args(Way)
WORDS: Mapping[Way, str] = {
    "label": "its label",
    "text": "its text",
    "letter": "its letter",
    "0": "its place, counted from 0",
    "1": "its place, counted from 1",
}
LISTS = ("choices", "options", "endings")
"""Columns that usually hold a list of options."""


class AnswersUnclear(Exception):
    """Answers that name no option, or name one in an unclear way."""

    def __init__(self, actual: str, rule: str) -> None:
        super().__init__(actual)
        self.seen, self.expected = actual, rule


@dataclass(frozen=True)
class Options:
    """The options of one row."""

    texts: tuple[Any, ...]
    """In the row's order; values that are no text are refused later."""
    labels: tuple[str, ...] = ()
    """Names of the options, as ARC has them beside the texts."""

    def position(self, way: Way, answer: object) -> int | None:
        """The place of the option that an answer means, from 0, or None."""
        return _PLACES[way](self, answer)


def options_of(row: Record, names: Sequence[str]) -> Options | None:
    """A row's options: one column each, a list, texts with labels (ARC), or texts by label; None if it has none."""
    if len(names) > 1:
        return Options(tuple(as_text(value_of(row, name)) for name in names), tuple(names))
    value = value_of(row, names[0]) if names else None
    if isinstance(value, Mapping):
        texts, labels = value.get("text"), value.get("label")
        if isinstance(texts, list) and isinstance(labels, list) and len(texts) == len(labels):
            return Options(tuple(map(as_text, texts)), tuple(map(str, labels)))
        return Options(tuple(map(as_text, value.values())), tuple(map(str, value))) if value else None
    return Options(tuple(map(as_text, value))) if isinstance(value, list) else None


def option_columns(row: Mapping[str, Any]) -> list[str]:
    """Columns that look like options: a list of them, or one column each for A, B and so on."""
    if lists := [name for name in LISTS if isinstance(row.get(name), list | dict)]:
        return lists[:1]
    letters = [letter for letter in "ABCDEFGHIJ" if letter in row]
    return letters if letters[:2] == ["A", "B"] else []


def way_of(pairs: Sequence[tuple[object, Options]], share: float) -> Way:
    """The way in which the answers of a data set name their options; up to `share` of the rows may not fit.

    Raises:
        AnswersUnclear: no way fits, or several fit and mean different options.
    """
    places = {way: [options.position(way, answer) for answer, options in pairs] for way in WAYS}
    fitting = [way for way in WAYS if sum(place is None for place in places[way]) <= share * len(pairs)]
    if not fitting:
        odd = [answer for answer, options in pairs if all(options.position(way, answer) is None for way in WAYS)]
        actual = f"answers such as {show((odd or [answer for answer, _ in pairs])[0])}"
        raise AnswersUnclear(
            actual, "answers that all name an option of their row in one way: by text, letter or place"
        )
    for way in fitting[1:]:
        row = next((n for n, place in enumerate(places[way]) if place != places[fitting[0]][n]), None)
        if row is not None:
            answer, options = pairs[row]
            meanings = [
                f"{show(options.texts[place])} by {WORDS[w]}" for w in fitting if (place := places[w][row]) is not None
            ]
            ways = " or ".join(f"`--answers {each}`" for each in fitting)
            raise AnswersUnclear(f"an answer {show(answer)} that may mean {', or '.join(meanings)}", ways)
    return fitting[0]


def _by_label(options: Options, answer: object) -> int | None:
    text = even_text(str(as_text(answer)))
    return options.labels.index(text) if text in options.labels else None


def _by_text(options: Options, answer: object) -> int | None:
    text = even_text(str(as_text(answer)))
    return next(
        (n for n, option in enumerate(options.texts) if isinstance(option, str) and even_text(option) == text), None
    )


def _by_letter(options: Options, answer: object) -> int | None:
    place = ord(answer.strip().upper()) - ord("A") if isinstance(answer, str) and len(answer.strip()) == 1 else -1
    return place if 0 <= place < len(options.texts) else None


def _by_place(first: int) -> Callable[[Options, object], int | None]:
    def place_of(options: Options, answer: object) -> int | None:
        text = str(answer).strip()
        whole = not isinstance(answer, bool) and text.isascii() and text.isdigit()
        place = int(text) - first if whole and len(text) < 4 else -1
        return place if 0 <= place < len(options.texts) else None

    return place_of


_PLACES: Mapping[Way, Callable[[Options, object], int | None]] = {
    "label": _by_label,
    "text": _by_text,
    "letter": _by_letter,
    "0": _by_place(0),
    "1": _by_place(1),
}
