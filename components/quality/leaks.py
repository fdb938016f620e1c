"""Rows in places where they must not be: evaluation rows among training rows, of this task or an earlier one.

Two rows are the same if instruction, input and images are equal; in tasks of the same instruction type (the group that
the task would join) also if input, images and output are equal, in any wording of the instruction. If an earlier task's
rows are gone, their keyed hashes are compared (`fingerprints.py`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from components.quality.fingerprints import Fingerprints, answer_of, subject_of
from components.storage.objects import ObjectMissing
from components.tasks.images import Picture
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot
from components.tasks.task_file import Split

Key: TypeAlias = tuple[str, ...]


@dataclass
class Places:
    """Index of rows of earlier tasks: a key, or its keyed hash, -> `name@version split`."""

    questions: dict[Key | str, str] = field(default_factory=dict)
    """By instruction, input and images."""
    answers: dict[Key | str, str] = field(default_factory=dict)
    """By input and output, of tasks of the same instruction type."""
    inputs: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By input alone, of tasks of the same instruction type: place and evened output."""


@dataclass(frozen=True)
class SeenBefore:
    """Rows of earlier tasks by their use."""

    training: Places
    evaluation: Places
    by_hash: tuple[str, ...]
    """`name@version split` of rows that are gone, and known by their hashes only."""
    unknown: tuple[str, ...]
    """`name@version split` of rows that are gone without hashes: leaks of them can't show."""


def seen_before(
    priors: Iterable[Snapshot],
    same_type: Collection[str] = (),
    kept_hashes: Mapping[str, Fingerprints] | None = None,
) -> SeenBefore:
    """Index the rows of all earlier tasks.

    `same_type` holds the digests of the tasks whose instructions are of the new task's type; `kept_hashes` the
    fingerprints of earlier tasks by digest.
    """
    training, evaluation = Places(), Places()
    by_hash: list[str] = []
    unknown: list[str] = []
    uses: tuple[tuple[Split, Places], ...] = (("train", training), ("validation", evaluation), ("test", evaluation))
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
                    answers = [*hashes.answers[split], *hashes.old_answers[split]] if alike else ()
                    _add_hashes(places, place, hashes.questions[split], answers)
                continue
            _add_rows(places, place, rows, alike=alike)
    return SeenBefore(training, evaluation, tuple(by_hash), tuple(unknown))


def occurrences(rows: Sequence[Example], places: Places, hashes: Fingerprints | None, split: Split) -> list[str]:
    """Per row the place of the same row in an earlier task, or an empty text; `hashes` are the task's own."""
    direct = [_place(places, example.question, answer_of(example)) for example in rows]
    if hashes is None:
        return direct
    own = (hashes.questions[split], hashes.answers[split], hashes.stems[split], hashes.old_answers[split])
    return [
        place or _place(places, question, answer) or _place(places, stem, old_answer)
        for place, question, answer, stem, old_answer in zip(direct, *own, strict=True)
    ]


def _place(places: Places, question: Key | str, answer: Key | str) -> str:
    if question in places.questions:
        return places.questions[question]
    return f"{places.answers[answer]}, in other words" if answer in places.answers else ""


def contradictions(rows: Sequence[Example], *earlier: Places) -> list[str]:
    """Per row the place of the same input with another output, in an earlier task of the same instruction type."""
    out = []
    for example in rows:
        subject, answer = answer_of(example)
        matches = [places.inputs[subject] for places in earlier if subject in places.inputs]
        out.append(next((place for place, output in matches if output != answer), ""))
    return out


def rewordings(rows: Sequence[Example], training: Sequence[Example]) -> list[bool]:
    """Per row: True if `training` has its input under another instruction."""
    exact = {example.question for example in training}
    inputs = {subject_of(example) for example in training}
    return [example.question not in exact and subject_of(example) in inputs for example in rows]


def shown_before(rows: Sequence[Example], earlier: Sequence[Example]) -> list[bool]:
    """Per row: True if one of `earlier` shows its images under its instruction."""
    pairs = {(example.instruction, example.images) for example in earlier}
    return [bool(example.images) and (example.instruction, example.images) in pairs for example in rows]


def shown_again(rows: Sequence[Example]) -> list[bool]:
    """Per row: True if a row before it shows its images under its instruction."""
    pairs: set[tuple[str, tuple[Picture, ...]]] = set()
    out = []
    for example in rows:
        key = example.instruction, example.images
        out.append(bool(example.images) and key in pairs)
        pairs.add(key)
    return out


def _add_rows(places: Places, place: str, rows: Sequence[Example], *, alike: bool) -> None:
    for example in rows:
        places.questions.setdefault(example.question, place)
        if alike:
            subject, answer = answer_of(example)
            places.answers.setdefault((subject, answer), place)
            places.inputs.setdefault(subject, (place, answer))


def _add_hashes(places: Places, place: str, questions: Iterable[str], answers: Iterable[str]) -> None:
    for question in questions:
        places.questions.setdefault(question, place)
    for answer in answers:
        places.answers.setdefault(answer, place)
