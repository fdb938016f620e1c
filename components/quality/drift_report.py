"""Pages of a drift check for people: ours with every measure, and Evidently's on lengths and labels."""

import os
import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unicodedata import category

import numpy as np

from components.pages import PageRow, PageTable, verdict_page
from components.quality.drift import DriftResult
from components.quality.image_samples import STATISTICS
from components.quality.samples import Effect, Sample
from components.tasks.images import Picture
from components.tasks.rows import Example
from components.tasks.sampling import sample_rows
from components.tasks.snapshot import Snapshot
from components.words import words

MEASURES = {
    "question_auc": "telling the questions apart (0.5 = alike, 1 = always told apart)",
    "input_auc": "telling the inputs apart, instructions left out",
    "instructions": "similarity of the instructions (1 = the same)",
    "length_ks": "Kolmogorov-Smirnov distance of input lengths",
    "length_psi": "population stability index of input lengths",
    "label_overlap": "share of outputs that the other task has too",
    "length_ratio": "median input length, times longer or shorter than all seen",
    "foreign_share": "share of letters in scripts not seen before",
    "surprise": "bits a character the base model needs to read it, relative to what it is compared with",
    "image_auc": "telling the images apart, by size, brightness and a thumbnail",
    **{
        f"image_{name}_{test}": f"{words} of image {name}"
        for name in STATISTICS
        for test, words in (("ks", "Kolmogorov-Smirnov distance"), ("psi", "population stability index"))
    },
    "unlike_rows": "share of training rows that are unlike the rest, beyond chance (98 % interval)",
}


def drift_html(result: DriftResult) -> str:
    """A small self-contained page for people."""
    per_task = {"question_auc", "instructions"}
    main = [measure for measure in result.effects if measure.name not in per_task or _is_main(measure, result)]
    others: dict[str, dict[str, Effect]] = {}
    for measure in result.effects:
        if measure not in main:
            others.setdefault(measure.reference, {})[measure.name] = measure
    tables = []
    if main:
        rows = [PageRow((MEASURES[e.name], e.reference, f"{e.value:.3f}", _interval(e))) for e in main]
        tables.append(PageTable("Measures", ("measure", "against", "value", "interval"), rows))
    if result.unlike_rows:
        note = f"Most unlike first: {', '.join(map(str, result.unlike_rows))}."
        tables.append(PageTable("Training rows to look at", (), (), note))
    if others:
        head = ("task", "telling the questions apart", "similarity of the instructions")
        rows = [
            PageRow((label, f"{measures['question_auc'].value:.3f}", f"{measures['instructions'].value:.3f}"))
            for label, measures in others.items()
        ]
        tables.append(PageTable("Other earlier tasks", head, rows))
    words = [f"{reason[:1].upper()}{reason[1:]}." for reason in _words(result)]
    return verdict_page(f"Drift of {result.name}", result.verdict, words, tables)


def _words(result: DriftResult) -> list[str]:
    return [*result.reasons, *map(str, result.not_checked), f"what to do: {result.advice}"]


def _is_main(measure: Effect, result: DriftResult) -> bool:
    return measure.reference == result.nearest or "@" not in measure.reference


def _interval(effect: Effect) -> str:
    return "" if effect.low is None or effect.high is None else f"{effect.low:.3f} to {effect.high:.3f}"


def evidently_report(snapshot: Snapshot, prior: Sequence[Snapshot]) -> str:
    """Evidently's page on lengths and labels against all earlier tasks together; a self-contained page of some 4 MB.

    If no rows of earlier tasks are kept, it summarises this task alone. Texts are left out: Evidently's text test is
    slow and fails on templated rows, and ours decides.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        samples = [Sample.of(earlier) for earlier in prior if earlier.digest != snapshot.digest]
        return _evidently_page(snapshot, [row for sample in samples if sample for row in sample.rows])


def _evidently_page(snapshot: Snapshot, earlier: Sequence[Example]) -> str:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset, DataSummaryPreset

    choices, rows = snapshot.task.choices, snapshot.rows("train")
    counts = dict(_COUNTS)
    if any(row.images for row in rows) and (not earlier or any(row.images for row in earlier)):
        rows = tuple(sample_rows(rows, MAX_IMAGE_ROWS, snapshot.digest))
        earlier = sample_rows(earlier, MAX_IMAGE_ROWS, snapshot.digest)
        counts |= {f"image {name}": partial(_of_image, statistic) for name, statistic in STATISTICS.items()}
    labels = {choice: f"{index} {_harmless(choice)}" for index, choice in enumerate(choices or (), start=1)}
    definition = DataDefinition(numerical_columns=list(counts), categorical_columns=["output"] if labels else None)

    def dataset(rows: Sequence[Example]) -> Any:  # noqa: ANN401  (the library is untyped here)
        import pandas as pd

        columns: dict[str, list[Any]] = {name: [count(row) for row in rows] for name, count in counts.items()}
        if labels:
            columns["output"] = [labels.get(row.output, "another output") for row in rows]
        return Dataset.from_pandas(pd.DataFrame(columns), data_definition=definition)

    current = dataset(rows)
    reference = dataset(earlier) if earlier else None
    preset = DataSummaryPreset() if reference is None else DataDriftPreset()
    return _without_chance(Report([preset]).run(current, reference).get_html_str(as_iframe=False))


_RANDOM_IDS = re.compile(r'(?<=metric_)[0-9a-f]{32}\b|(?<="id": ")[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=")')


def _without_chance(page: str) -> str:
    """Evidently's random ids, numbered as they appear, so that two pages on equal data can be compared.

    Its summary (without earlier tasks) still lists labels in the order of Python's hashes, which differs between
    processes.
    """
    numbers = {match: f"{number:032d}" for number, match in enumerate(dict.fromkeys(_RANDOM_IDS.findall(page)))}
    return re.sub("|".join(numbers), lambda match: numbers[match[0]], page) if numbers else page


def _of_image(statistic: Callable[[Picture], float], row: Example) -> float:
    return statistic(row.images[0]) if row.images else float("nan")


MAX_IMAGE_ROWS = 1000
"""Most rows a side on Evidently's page of a task with images, as each image is read."""
_COUNTS: dict[str, Callable[[Example], float]] = {
    "instruction characters": lambda row: len(row.instruction),
    "input characters": lambda row: len(row.input or ""),
    "input words": lambda row: len(words(row.input or "")),
    "output characters": lambda row: len(row.output),
}


def _harmless(label: str) -> str:
    """A label for a page that escapes nothing: letters with their accents, digits and plain marks, at most 40."""
    return "".join(c if c.isalnum() or c in "_ .,'-" or category(c).startswith("M") else "?" for c in label)[:40]
