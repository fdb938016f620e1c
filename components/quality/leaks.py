"""Rows that occur where they must not: evaluation rows that were trained on, now or by an earlier task.

Two rows are the same when instruction, input and images are equal; in tasks of the same instruction type (the group
that the task would join) also when input, images and output are, whatever the wording of the instruction. Where an
earlier task's rows are gone, keyed hashes of them are compared (`fingerprints.py`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from components.quality.fingerprints import Fingerprints, answer_of, asked_of
from components.storage.objects import ObjectMissing
from components.tasks.images import Picture
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot
from components.tasks.task_file import Split

Key: TypeAlias = tuple[str, ...]


@dataclass
class Places:
    """Where rows of earlier tasks are: a key, or its keyed hash, -> `name@version split`."""

    questions: dict[Key | str, str] = field(default_factory=dict)
    """By instruction, input and images."""
    answers: dict[Key | str, str] = field(default_factory=dict)
    """By input and output, of tasks of the same instruction type."""
    inputs: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By input alone, of tasks of the same instruction type: place and evened output."""


@dataclass(frozen=True)
class SeenBefore:
    """Rows of earlier tasks by their use."""

    trained: Places
    evaluated: Places
    by_hash: tuple[str, ...]
    """`name@version split` of rows that are gone and of which only hashes are compared."""
    unknown: tuple[str, ...]
    """`name@version split` of rows that are gone and of which nothing is known."""


def seen_before(
    priors: Iterable[Snapshot],
    same_type: Collection[str] = (),
    kept_hashes: Mapping[str, Fingerprints] | None = None,
) -> SeenBefore:
    """Index the rows of all earlier tasks.

    `same_type` holds the digests of the tasks whose instructions are of the new task's type; `kept_hashes` the
    fingerprints of earlier tasks by digest.
    """
    trained, evaluated = Places(), Places()
    by_hash: list[str] = []
    unknown: list[str] = []
    uses: tuple[tuple[Split, Places], ...] = (("train", trained), ("validation", evaluated), ("test", evaluated))
    for prior in priors:
        alike = prior.digest in same_type
        hashes = (kept_hashes or {}).get(prior.digest)
        for split, places in uses:
            place = f"{prior.task.label} {split}"
            try:
                rows = prior.rows(split)
            except ObjectMissing:
                (unknown if hashes is None else by_hash).append(place)
                if hashes is not None:
                    answers = [*hashes.answers[split], *hashes.spaced[split]] if alike else ()
                    _add_hashes(places, place, hashes.questions[split], answers)
                continue
            _add_rows(places, place, rows, alike=alike)
    return SeenBefore(trained, evaluated, tuple(by_hash), tuple(unknown))


def occurrences(rows: Sequence[Example], places: Places, hashes: Fingerprints | None, split: Split) -> list[str]:
    """Per row, the place it was seen at, or an empty text; `hashes` are those of the task itself."""
    found = [_place(places, example.question, answer_of(example)) for example in rows]
    if hashes is None:
        return found
    own = (hashes.questions[split], hashes.answers[split], hashes.asked[split], hashes.spaced[split])
    return [
        seen or _place(places, question, said) or _place(places, asked, spaced)
        for seen, question, said, asked, spaced in zip(found, *own, strict=True)
    ]


def _place(places: Places, question: Key | str, answer: Key | str) -> str:
    if question in places.questions:
        return places.questions[question]
    return f"{places.answers[answer]}, in other words" if answer in places.answers else ""


def contradictions(rows: Sequence[Example], *earlier: Places) -> list[str]:
    """Per row, the place of the same input with another output in an earlier task of the same instruction type."""
    out = []
    for example in rows:
        asked, said = answer_of(example)
        found = [places.inputs[asked] for places in earlier if asked in places.inputs]
        out.append(next((place for place, output in found if output != said), ""))
    return out


def reworded(rows: Sequence[Example], trained: Sequence[Example]) -> list[bool]:
    """Per row, whether its input was trained on under another instruction of the same task."""
    exact = {example.question for example in trained}
    inputs = {asked_of(example) for example in trained}
    return [example.question not in exact and asked_of(example) in inputs for example in rows]


def shown_before(rows: Sequence[Example], earlier: Sequence[Example]) -> list[bool]:
    """Per row, whether an earlier row shows its images under its instruction."""
    shown = {(example.instruction, example.images) for example in earlier}
    return [bool(example.images) and (example.instruction, example.images) in shown for example in rows]


def shown_again(rows: Sequence[Example]) -> list[bool]:
    """Per row, whether a row before it shows its images under its instruction."""
    shown: set[tuple[str, tuple[Picture, ...]]] = set()
    out = []
    for example in rows:
        key = example.instruction, example.images
        out.append(bool(example.images) and key in shown)
        shown.add(key)
    return out


def _add_rows(places: Places, place: str, rows: Sequence[Example], *, alike: bool) -> None:
    for example in rows:
        places.questions.setdefault(example.question, place)
        if alike:
            asked, said = answer_of(example)
            places.answers.setdefault((asked, said), place)
            places.inputs.setdefault(asked, (place, said))


def _add_hashes(places: Places, place: str, questions: Iterable[str], answers: Iterable[str]) -> None:
    for asked in questions:
        places.questions.setdefault(asked, place)
    for said in answers:
        places.answers.setdefault(said, place)
