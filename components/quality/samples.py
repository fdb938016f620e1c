"""Measures of the drift check between a task's rows and those of another task, a group, or all earlier tasks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.proportions import Interval, wilson_interval
from components.quality.image_samples import image_measures
from components.quality.scripts import letters
from components.quality.two_samples import Numbers, bootstrap, ks_distance, stability_index, text_auc
from components.storage.objects import ObjectMissing
from components.tasks.rows import Example
from components.tasks.sampling import sample_rows
from components.tasks.snapshot import Snapshot
from components.tasks.task_file import Split

Read = Callable[[Sequence[str]], Sequence[float]]
"""Bits a character that the base model needs for each text: its difficulty for the model."""

MAX_ROWS = 300
"""Rows drawn per side for the classifier."""
SEEN_SCRIPT_SHARE = 1e-3
"""Share of a sample's letters from which a script counts as familiar."""


@dataclass(frozen=True)
class Effect:
    """One measure against `reference` (a task, a group, all earlier tasks), with its 95 % interval if it has one."""

    name: str
    value: float
    low: float | None
    high: float | None
    reference: str


@dataclass(frozen=True)
class Sample:
    """Rows of a task, or of several, for the measures."""

    label: str
    digest: str
    rows: tuple[Example, ...]
    instructions: tuple[str, ...]

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Sample | None":
        """Training rows of an earlier task, or its evaluation rows if only these are kept; None if none are."""
        choices: tuple[tuple[Split, ...], ...] = (("train",), ("validation", "test"))
        for splits in choices:
            try:
                rows = tuple(example for split in splits for example in snapshot.rows(split))
            except ObjectMissing:
                continue
            instructions = tuple(sorted({example.instruction for example in rows}))
            return cls(snapshot.task.label, snapshot.digest, rows, instructions)
        return None

    @classmethod
    def together(cls, label: str, samples: Sequence["Sample"]) -> "Sample":
        """Several tasks as one, with about as many rows of each."""
        least = max(min(len(sample.rows) for sample in samples), MAX_ROWS // len(samples))
        rows = tuple(row for sample in samples for row in sample_rows(sample.rows, least, sample.digest))
        return cls(label, "", rows, tuple(sorted({row.instruction for row in rows})))

    def lengths(self) -> Numbers:
        """Characters of each row's subject."""
        return np.array([len(row.subject) for row in self.rows], dtype=np.float64)

    def inputs(self) -> list[str]:
        """Subject of each row."""
        return [row.subject for row in self.rows]

    def questions(self, rng: np.random.Generator, most: int = MAX_ROWS) -> tuple[list[str], list[str]]:
        """Full questions and inputs alone of at most `most` rows drawn at random."""
        order = rng.permutation(len(self.rows))[:most]
        rows = [self.rows[index] for index in order]
        return [row.words for row in rows], [row.subject for row in rows]


def compare(current: Sample, earlier: Sample, similarity: float | None, seed: int) -> dict[str, Effect]:
    """Measures that tell two samples apart: questions, inputs, lengths, labels and images.

    Rows with images are told apart by their texts or by their images, whichever works better.
    """
    rng = np.random.default_rng(seed)
    new_questions, new_inputs = current.questions(rng)
    old_questions, old_inputs = earlier.questions(rng)
    new_lengths, old_lengths = current.lengths(), earlier.lengths()
    outputs = {example.output for example in earlier.rows}
    common = sum(example.output in outputs for example in current.rows)
    intervals = {
        "question_auc": text_auc(old_questions, new_questions, seed),
        "input_auc": text_auc(old_inputs, new_inputs, seed),
        "length_ks": ks_distance(old_lengths, new_lengths, seed),
        "length_psi": stability_index(old_lengths, new_lengths, seed),
        "label_overlap": wilson_interval(common, len(current.rows)),
    }
    images = image_measures(current.rows, earlier.rows, seed)
    if images:
        for name in ("question_auc", "input_auc"):
            intervals[name] = max(intervals[name], images["image_auc"], key=lambda interval: interval.value)
        intervals |= images
    effects = {name: effect(name, interval, earlier.label) for name, interval in intervals.items()}
    if similarity is not None:
        effects["instructions"] = Effect("instructions", round(similarity, 4), None, None, earlier.label)
    return effects


def reach(
    current: Sample, samples: Sequence[Sample], label: str, read: Read | None, rows: int, seed: int
) -> dict[str, Effect]:
    """Distance of the task's lengths, scripts and difficulty from the range that `samples` span together."""
    own = float(np.median(current.lengths()))
    medians = [float(np.median(sample.lengths())) for sample in samples]
    ratio = max(1.0, own / max(medians), min(medians) / own)
    scripts = letters(current.inputs())
    familiar = {script for sample in samples for script in _scripts(sample)}
    foreign = sum(count for script, count in scripts.items() if script not in familiar)
    effects = {
        "length_ratio": Effect("length_ratio", round(ratio, 4), None, None, label),
        "foreign_share": effect("foreign_share", wilson_interval(foreign, scripts.total()), label),
    }
    if read is not None and rows > 0:
        rng = np.random.default_rng(seed)
        together = Sample.together(label, samples)
        bits = [np.array(read(side.questions(rng, rows)[0]), np.float64) for side in (together, current)]
        effects["surprise"] = effect("surprise", bootstrap(bits[0], bits[1], seed, _median_ratio), label)
    return effects


def effect(name: str, interval: Interval, reference: str) -> Effect:
    """An interval in the form for records: four digits."""
    return Effect(name, round(interval.value, 4), round(interval.low, 4), round(interval.high, 4), reference)


def closeness(effects: Mapping[str, Effect]) -> float:
    """1 if questions, inputs or instructions can't be told apart, 0 if all differ fully."""
    auc = min(effects["question_auc"].value, effects["input_auc"].value)
    return max(effects["instructions"].value, 2 * (1 - auc))


def _median_ratio(reference: Numbers, current: Numbers) -> float:
    return float(np.median(current) / max(float(np.median(reference)), 1e-9))


def _scripts(sample: Sample) -> set[str]:
    counts = letters(sample.inputs())
    return {script for script, count in counts.items() if count >= SEEN_SCRIPT_SHARE * counts.total()}
