"""Drift of a new task against all earlier ones: is it known, related, new, or so unlike that a person must look?

Effect sizes with intervals, not p-values: with enough rows any two tasks differ "significantly". A task is
`known` when a classifier cannot tell its questions from an earlier task's, `related` when its inputs or its
instructions are close to one, else `new`. `extreme` holds it: lengths or scripts unlike everything seen.
"""

import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np

from components.pages import PageRow, PageTable, verdict_page
from components.proportions import Interval, wilson_interval
from components.quality.two_samples import (
    Numbers,
    instruction_similarities,
    ks_distance,
    stability_index,
    text_auc,
)
from components.settings import DriftSettings
from components.storage.objects import ObjectMissing
from components.tasks.package import Split
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot

Verdict: TypeAlias = Literal["known", "related", "new", "extreme"]

EVERYTHING = "all earlier tasks"
MAX_ROWS = 300
"""Rows drawn per task for the classifier."""
MAX_COMPARED = 8
"""Earlier tasks the classifier is run against, the most similar ones first."""
SEEN_SCRIPT_SHARE = 1e-3
"""Share of an earlier task's letters from which a script counts as seen."""


@dataclass(frozen=True)
class Effect:
    """One measure against `reference` (`name@version`, or all earlier tasks), with its 95 % interval if it has one."""

    name: str
    value: float
    low: float | None
    high: float | None
    reference: str


@dataclass(frozen=True)
class DriftResult:
    """What the check says and why."""

    task: str
    name: str
    verdict: Verdict
    nearest: str | None
    """`name@version` of the closest earlier task."""
    nearest_task: str | None
    """Its task digest."""
    effects: tuple[Effect, ...]
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A canonical JSON object."""
        value = asdict(self)
        value["effects"] = list(value["effects"])
        value["reasons"] = list(value["reasons"])
        return {"kind": "drift", "schema": 1, **value}


@dataclass(frozen=True)
class _Sample:
    """Rows of a task as the measures see them."""

    label: str
    digest: str
    rows: tuple[Example, ...]
    instructions: tuple[str, ...]

    def lengths(self) -> Numbers:
        """Characters of each input, or of the instruction where there is none."""
        return np.array([len(example.input or example.instruction) for example in self.rows], dtype=np.float64)

    def questions(self, rng: np.random.Generator) -> tuple[list[str], list[str]]:
        """Full questions and inputs alone of at most MAX_ROWS rows drawn at random."""
        picked = rng.permutation(len(self.rows))[:MAX_ROWS]
        rows = [self.rows[index] for index in picked]
        return ["\n".join(row.question) for row in rows], [row.input or row.instruction for row in rows]


def check_drift(snapshot: Snapshot, prior: Sequence[Snapshot], settings: DriftSettings, seed: int = 0) -> DriftResult:
    """Compare a task's training rows with those of every earlier task whose rows are kept.

    Raises:
        ObjectMissing, ObjectCorrupt: rows of this task are gone or damaged.
    """
    current = _Sample(snapshot.task.label, snapshot.digest, snapshot.rows("train"), snapshot.instructions())
    samples, reasons = [], []
    for earlier in prior:
        if earlier.digest == snapshot.digest:
            continue
        sample = _kept(earlier)
        if sample is None:
            reasons.append(f"no rows of {earlier.task.label} are kept: it cannot be compared")
        else:
            samples.append(sample)
    if not samples:
        reasons.insert(0, "no earlier task to compare with: everything is new to an empty assistant")
        return DriftResult(current.digest, current.label, "new", None, None, (), tuple(reasons))
    similar = instruction_similarities(current.instructions, [sample.instructions for sample in samples])
    order = sorted(range(len(samples)), key=lambda index: (-similar[index], samples[index].label))
    compared = [_compare(current, samples[index], similar[index], seed) for index in order[:MAX_COMPARED]]
    nearest = max(compared, key=_closeness)
    label = nearest["question_auc"].reference
    digest = next(sample.digest for sample in samples if sample.label == label)
    against_all = _against_all(current, samples)
    verdict, words = _decide(nearest, against_all, settings)
    effects = [*nearest.values(), *against_all.values()]
    for other in compared:
        if other is not nearest:
            effects += [other["question_auc"], other["instructions"]]
    return DriftResult(
        task=current.digest,
        name=current.label,
        verdict=verdict,
        nearest=label,
        nearest_task=digest,
        effects=tuple(effects),
        reasons=(*words, *reasons),
    )


def to_html(result: DriftResult) -> str:
    """A small self-contained page for people."""
    near = [effect for effect in result.effects if effect.reference in (result.nearest, EVERYTHING)]
    measures = [
        PageRow((MEASURES[effect.name], effect.reference, f"{effect.value:.3f}", _interval(effect))) for effect in near
    ]
    others: dict[str, dict[str, Effect]] = {}
    for effect in result.effects:
        if effect not in near:
            others.setdefault(effect.reference, {})[effect.name] = effect
    compared = [
        PageRow((label, f"{found['question_auc'].value:.3f}", f"{found['instructions'].value:.3f}"))
        for label, found in others.items()
    ]
    tables = [PageTable("Measures", ("measure", "against", "value", "95 % interval"), measures)]
    if compared:
        head = ("task", "telling the questions apart", "similarity of the instructions")
        tables.append(PageTable("Other earlier tasks", head, compared))
    words = [f"{reason[:1].upper()}{reason[1:]}." for reason in result.reasons]
    return verdict_page(f"Drift of {result.name}", result.verdict, words, tables if near else [])


def _interval(effect: Effect) -> str:
    return "" if effect.low is None or effect.high is None else f"{effect.low:.3f} to {effect.high:.3f}"


def evidently_report(snapshot: Snapshot, prior: Sequence[Snapshot]) -> str:
    """Evidently's page on lengths and labels against earlier tasks (all together); some 4 MB of HTML.

    `[nearest]` says most. Where no rows of earlier tasks are kept, it summarises this task alone. Texts are left
    out: Evidently's text test is slow and fails on templated rows, and ours decides. Self-contained.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        samples = [_kept(earlier) for earlier in prior if earlier.digest != snapshot.digest]
        return _evidently_page(snapshot, [row for sample in samples if sample for row in sample.rows])


def _evidently_page(snapshot: Snapshot, earlier: Sequence[Example]) -> str:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset, DataSummaryPreset

    choices = snapshot.task.choices
    labels = {choice: f"{index} {_harmless(choice)}" for index, choice in enumerate(choices or (), start=1)}
    definition = DataDefinition(numerical_columns=list(_COUNTS), categorical_columns=["output"] if labels else None)

    def dataset(rows: Sequence[Example]) -> Any:  # noqa: ANN401  (the library is untyped here)
        import pandas as pd

        columns: dict[str, list[Any]] = {name: [count(row) for row in rows] for name, count in _COUNTS.items()}
        if labels:
            columns["output"] = [labels.get(row.output, "another output") for row in rows]
        return Dataset.from_pandas(pd.DataFrame(columns), data_definition=definition)

    current = dataset(snapshot.rows("train"))
    reference = dataset(earlier) if earlier else None
    preset = DataSummaryPreset() if reference is None else DataDriftPreset()
    return _without_chance(Report([preset]).run(current, reference).get_html_str(as_iframe=False))


_RANDOM_IDS = re.compile(r'(?<=metric_)[0-9a-f]{32}\b|(?<="id": ")[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=")')


def _without_chance(page: str) -> str:
    """Evidently's random ids, numbered as they appear, so that two pages on equal data can be compared.

    Its summary (no earlier task) still lists labels in the order of Python's hashes, which differs between processes.
    """
    numbers = {found: f"{number:032d}" for number, found in enumerate(dict.fromkeys(_RANDOM_IDS.findall(page)))}
    return re.sub("|".join(numbers), lambda found: numbers[found[0]], page) if numbers else page


_COUNTS: dict[str, Callable[[Example], int]] = {
    "instruction characters": lambda row: len(row.instruction),
    "input characters": lambda row: len(row.input or ""),
    "input words": lambda row: len((row.input or "").split()),
    "output characters": lambda row: len(row.output),
}

MEASURES = {
    "question_auc": "telling the questions apart (0.5 = alike, 1 = always told apart)",
    "input_auc": "telling the inputs apart, instructions left out",
    "instructions": "similarity of the instructions (1 = the same)",
    "length_ks": "Kolmogorov-Smirnov distance of input lengths",
    "length_psi": "population stability index of input lengths",
    "label_overlap": "share of outputs that the other task has too",
    "length_ratio": "median input length, times longer or shorter than all seen",
    "foreign_share": "share of letters in scripts not seen before",
}


def _kept(snapshot: Snapshot) -> _Sample | None:
    """Training rows of an earlier task, or its evaluation rows where only these are kept."""
    choices: tuple[tuple[Split, ...], ...] = (("train",), ("validation", "test"))
    for splits in choices:
        try:
            rows = tuple(example for split in splits for example in snapshot.rows(split))
        except ObjectMissing:
            continue
        instructions = tuple(sorted({example.instruction for example in rows}))
        return _Sample(snapshot.task.label, snapshot.digest, rows, instructions)
    return None


def _compare(current: _Sample, earlier: _Sample, similarity: float, seed: int) -> dict[str, Effect]:
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
    effects = {name: _effect(name, interval, earlier.label) for name, interval in measured.items()}
    effects["instructions"] = Effect("instructions", round(similarity, 4), None, None, earlier.label)
    return effects


def _closeness(effects: dict[str, Effect]) -> float:
    """1 where questions, inputs or instructions cannot be told apart, 0 where all differ fully."""
    auc = min(effects["question_auc"].value, effects["input_auc"].value)
    return max(effects["instructions"].value, 2 * (1 - auc))


def _against_all(current: _Sample, samples: Sequence[_Sample]) -> dict[str, Effect]:
    own = float(np.median(current.lengths()))
    medians = [float(np.median(sample.lengths())) for sample in samples]
    ratio = max(1.0, own / max(medians), min(medians) / own)
    seen = {script for sample in samples for script in _scripts(sample)}
    scripts = _letters(current)
    letters = sum(scripts.values())
    foreign = wilson_interval(sum(count for script, count in scripts.items() if script not in seen), letters)
    return {
        "length_ratio": Effect("length_ratio", round(ratio, 4), None, None, EVERYTHING),
        "foreign_share": _effect("foreign_share", foreign, EVERYTHING),
    }


def _decide(
    nearest: dict[str, Effect], against_all: dict[str, Effect], settings: DriftSettings
) -> tuple[Verdict, list[str]]:
    ratio, foreign = against_all["length_ratio"].value, against_all["foreign_share"].value
    words = []
    if ratio >= settings.extreme_length_ratio:
        limit = settings.extreme_length_ratio
        words.append(f"the median input is {ratio:.1f} times longer or shorter than all seen (limit {limit:g})")
    if foreign >= settings.extreme_foreign_share:
        limit = settings.extreme_foreign_share
        words.append(f"{foreign:.0%} of the letters are in scripts not seen before (limit {limit:.0%})")
    if words:
        return "extreme", words
    question, inputs = nearest["question_auc"], nearest["input_auc"]
    similarity = nearest["instructions"].value
    label = question.reference
    apart = f"ROC area {question.value:.3f}, with confidence below {settings.known_auc:g}"
    if _below(question, settings.known_auc):
        return "known", [f"its questions cannot be told from those of {label}: {apart}"]
    if similarity >= settings.related_similarity:
        close = f"similarity {similarity:.2f}, from {settings.related_similarity:g} on"
        words.append(f"its instructions resemble those of {label}: {close}")
    if _below(inputs, settings.related_auc):
        apart = f"ROC area {inputs.value:.3f}, with confidence below {settings.related_auc:g}"
        words.append(f"its inputs overlap with those of {label}: {apart}")
    if words:
        return "related", words
    apart = f"inputs told apart with ROC area {inputs.value:.3f}, instructions similar by {similarity:.2f}"
    return "new", [f"closest is {label}, and it is not close: {apart}"]


def _below(effect: Effect, limit: float) -> bool:
    return effect.high is not None and effect.high < limit


def _effect(name: str, interval: Interval, reference: str) -> Effect:
    return Effect(name, round(interval.value, 4), round(interval.low, 4), round(interval.high, 4), reference)


def _harmless(label: str) -> str:
    """A label fit for a page that escapes nothing: letters, digits and plain marks, cut."""
    return re.sub(r"[^\w .,'-]", "?", label)[:40]


def _scripts(sample: _Sample) -> set[str]:
    letters = _letters(sample)
    total = sum(letters.values())
    return {script for script, count in letters.items() if count >= SEEN_SCRIPT_SHARE * total}


def _letters(sample: _Sample) -> dict[str, int]:
    counts: dict[str, int] = {}
    for example in sample.rows:
        for character in example.input or example.instruction:
            script = _script(character)
            if script:
                counts[script] = counts.get(script, 0) + 1
    return counts


@lru_cache(maxsize=65536)
def _script(character: str) -> str:
    """Script of a letter by the first word of its Unicode name, e.g. LATIN; empty for anything else."""
    if not character.isalpha():
        return ""
    return unicodedata.name(character, "UNNAMED").split()[0]
