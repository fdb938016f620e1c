"""What the drift check measures between a task's rows and those of another task, a group, or all earlier tasks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.proportions import Interval, wilson_interval
from components.quality.image_samples import image_measures
from components.quality.scripts import letters
from components.quality.two_samples import Numbers, bootstrap, ks_distance, stability_index, text_auc
from components.storage.objects import ObjectMissing
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot
from components.tasks.task_file import Split

Read = Callable[[Sequence[str]], Sequence[float]]
"""Bits a character that the base model needs for each text: how hard it is to read for it."""

MAX_ROWS = 300
"""Rows drawn per side for the classifier."""
SEEN_SCRIPT_SHARE = 1e-3
"""Share of the letters seen from which a script counts as seen."""


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
    """Rows of a task, or of several, as the measures see them."""

    label: str
    digest: str
    rows: tuple[Example, ...]
    instructions: tuple[str, ...]

    @classmethod
    def kept(cls, snapshot: Snapshot) -> "Sample | None":
        """Training rows of an earlier task, or its evaluation rows where only these are kept."""
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
        """Several tasks as one, an even number of rows of each."""
        least = max(min(len(sample.rows) for sample in samples), MAX_ROWS // len(samples))
        rows = tuple(row for sample in samples for row in sample.rows[:least])
        return cls(label, "", rows, tuple(sorted({row.instruction for row in rows})))

    def lengths(self) -> Numbers:
        """Characters of each row's subject."""
        return np.array([len(row.subject) for row in self.rows], dtype=np.float64)

    def inputs(self) -> list[str]:
        """Subject of each row."""
        return [row.subject for row in self.rows]

    def questions(self, rng: np.random.Generator, most: int = MAX_ROWS) -> tuple[list[str], list[str]]:
        """Full questions and inputs alone of at most `most` rows drawn at random."""
        picked = rng.permutation(len(self.rows))[:most]
        rows = [self.rows[index] for index in picked]
        return [row.words for row in rows], [row.subject for row in rows]


def compare(current: Sample, earlier: Sample, similarity: float | None, seed: int) -> dict[str, Effect]:
    """How far two samples can be told apart, by questions, inputs, lengths, labels and images.

    What shows images is told apart by its texts or by its images, whichever does it better.
    """
    rng = np.random.default_rng(seed)
    new_questions, new_inputs = current.questions(rng)
    old_questions, old_inputs = earlier.questions(rng)
    new_lengths, old_lengths = current.lengths(), earlier.lengths()
    outputs = {example.output for example in earlier.rows}
    shared = sum(example.output in outputs for example in current.rows)
    measured = {
        "question_auc": text_auc(old_questions, new_questions, seed),
        "input_auc": text_auc(old_inputs, new_inputs, seed),
        "length_ks": ks_distance(old_lengths, new_lengths, seed),
        "length_psi": stability_index(old_lengths, new_lengths, seed),
        "label_overlap": wilson_interval(shared, len(current.rows)),
    }
    images = image_measures(current.rows, earlier.rows, seed)
    if images:
        for name in ("question_auc", "input_auc"):
            measured[name] = max(measured[name], images["image_auc"], key=lambda interval: interval.value)
        measured |= images
    effects = {name: effect(name, interval, earlier.label) for name, interval in measured.items()}
    if similarity is not None:
        effects["instructions"] = Effect("instructions", round(similarity, 4), None, None, earlier.label)
    return effects


def reach(
    current: Sample, samples: Sequence[Sample], label: str, read: Read | None, rows: int, seed: int
) -> dict[str, Effect]:
    """How far the task's lengths, scripts and difficulty lie outside of what `samples` span together."""
    own = float(np.median(current.lengths()))
    medians = [float(np.median(sample.lengths())) for sample in samples]
    ratio = max(1.0, own / max(medians), min(medians) / own)
    scripts = letters(current.inputs())
    seen = {script for sample in samples for script in _scripts(sample)}
    foreign = sum(count for script, count in scripts.items() if script not in seen)
    effects = {
        "length_ratio": Effect("length_ratio", round(ratio, 4), None, None, label),
        "foreign_share": effect("foreign_share", wilson_interval(foreign, scripts.total()), label),
    }
    if read is not None and rows > 0:
        rng = np.random.default_rng(seed)
        pooled = Sample.together(label, samples)
        bits = [np.array(read(side.questions(rng, rows)[0]), np.float64) for side in (pooled, current)]
        effects["surprise"] = effect("surprise", bootstrap(bits[0], bits[1], seed, _median_ratio), label)
    return effects


def effect(name: str, interval: Interval, reference: str) -> Effect:
    """An interval as a record keeps it: four digits."""
    return Effect(name, round(interval.value, 4), round(interval.low, 4), round(interval.high, 4), reference)


def closeness(effects: Mapping[str, Effect]) -> float:
    """1 where questions, inputs or instructions cannot be told apart, 0 where all differ fully."""
    auc = min(effects["question_auc"].value, effects["input_auc"].value)
    return max(effects["instructions"].value, 2 * (1 - auc))


def _median_ratio(reference: Numbers, current: Numbers) -> float:
    return float(np.median(current) / max(float(np.median(reference)), 1e-9))


def _scripts(sample: Sample) -> set[str]:
    counts = letters(sample.inputs())
    return {script for script, count in counts.items() if count >= SEEN_SCRIPT_SHARE * counts.total()}
