"""Rows that occur where they must not: evaluation rows that were trained on, now or by an earlier task.

Two rows are the same when instruction and input are equal. A looser comparison (input alone, ignoring case
and white space) finds questions that come back under another wording of the instruction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from components.storage.objects import ObjectMissing
from components.tasks.package import Split
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot


@dataclass(frozen=True)
class SeenBefore:
    """Where questions of earlier tasks were used: question -> `name@version split`."""

    trained: dict[tuple[str, str], str]
    evaluated: dict[tuple[str, str], str]
    unknown: tuple[str, ...]
    """`name@version split` of rows that are no longer kept, so nothing can be said about them."""


def seen_before(priors: Iterable[Snapshot]) -> SeenBefore:
    """Index the questions of all earlier tasks."""
    trained: dict[tuple[str, str], str] = {}
    evaluated: dict[tuple[str, str], str] = {}
    unknown: list[str] = []
    for prior in priors:
        for split, index in _indexes(trained, evaluated):
            place = f"{prior.task.label} {split}"
            try:
                rows = prior.rows(split)
            except ObjectMissing:
                unknown.append(place)
                continue
            for example in rows:
                index.setdefault(example.question, place)
    return SeenBefore(trained, evaluated, tuple(unknown))


def occurrences(rows: Sequence[Example], index: dict[tuple[str, str], str]) -> list[str]:
    """Per row, the place its question was seen at, or an empty text."""
    return [index.get(example.question, "") for example in rows]


def reworded(rows: Sequence[Example], trained: Sequence[Example]) -> list[bool]:
    """Per row, whether its input was trained on under another instruction of the same task."""
    exact = {example.question for example in trained}
    loose = {_loose(example) for example in trained}
    return [example.question not in exact and _loose(example) in loose for example in rows]


def _indexes(
    trained: dict[tuple[str, str], str], evaluated: dict[tuple[str, str], str]
) -> tuple[tuple[Split, dict[tuple[str, str], str]], ...]:
    return ("train", trained), ("validation", evaluated), ("test", evaluated)


def _loose(example: Example) -> str:
    return " ".join((example.input or example.instruction).casefold().split())
