"""SuperNI tasks in the form of SAPT's folder `CL_Benchmark/SuperNI`, and task packages that are made of them.

A task is a folder with train.json, dev.json and test.json, each with `Definition` (a text, or a list with one) and
`Instances`, whose `output` is a text or a list of texts. The data is the user's own copy: the repository has none of
it, since the licences of some tasks are unknown or allow no commercial use.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from components.tasks.problems import forbidden_character
from components.tasks.rows import even_text

ORDERS: dict[str, tuple[str, ...]] = {
    "1": (
        "task1572_samsum_summary",
        "task363_sst2_polarity_classification",
        "task1290_xsum_summarization",
        "task181_outcome_extraction",
        "task002_quoref_answer_generation",
        "task1510_evalution_relation_extraction",
        "task639_multi_woz_user_utterance_generation",
        "task1729_personachat_generate_next",
        "task073_commonsenseqa_answer_generation",
        "task1590_diplomacy_text_generation",
        "task748_glucose_reverse_cause_event_detection",
        "task511_reddit_tifu_long_text_summarization",
        "task591_sciq_answer_generation",
        "task1687_sentiment140_classification",
        "task875_emotion_classification",
    ),
    "2": (
        "task748_glucose_reverse_cause_event_detection",
        "task073_commonsenseqa_answer_generation",
        "task1590_diplomacy_text_generation",
        "task639_multi_woz_user_utterance_generation",
        "task1572_samsum_summary",
        "task1687_sentiment140_classification",
        "task591_sciq_answer_generation",
        "task363_sst2_polarity_classification",
        "task1510_evalution_relation_extraction",
        "task1729_personachat_generate_next",
        "task181_outcome_extraction",
        "task511_reddit_tifu_long_text_summarization",
        "task002_quoref_answer_generation",
        "task1290_xsum_summarization",
        "task875_emotion_classification",
    ),
}
"""Orders 1 and 2 of SAPT (arXiv 2401.08295), as `gen_script_superni_t5.py` of its repository has them."""

VALIDATION_SHARE, LEAST_VALIDATION = 0.1, 30
"""Validation rows that are cut from train: this share of it, and never fewer than this number."""


class FolderUnusable(SystemExit):
    """The folder is not in the form that is read here; the message names the file and the mend."""


@dataclass(frozen=True)
class Row:
    """One instance: an input and its references, the first of which is learnt."""

    input: str
    outputs: tuple[str, ...]

    @property
    def is_usable(self) -> bool:
        """False for a row that a package may not have: without an answer, or with control characters."""
        texts = (self.input, self.outputs[0])
        return bool(self.outputs[0].strip()) and not any(map(forbidden_character, texts))


@dataclass(frozen=True)
class Source:
    """A task as its folder has it, or as `cut` leaves it."""

    name: str
    definition: str
    licence: str
    train: tuple[Row, ...]
    test: tuple[Row, ...]
    dev: tuple[Row, ...] = ()
    """Rows of dev.json, or after `cut` those that validate."""
    notes: tuple[str, ...] = ()
    """Sentences about rows that are left out, for the report."""

    @property
    def dev_is_test(self) -> bool:
        """True if dev.json has the rows of test.json: to choose on them would be to choose on the test."""
        return bool(self.dev) and self.dev == self.test

    @property
    def words(self) -> int:
        """Median number of words of a training input."""
        return sorted(len(row.input.split()) for row in self.train)[len(self.train) // 2]

    @property
    def references(self) -> dict[str, tuple[str, ...]]:
        """All references of each test input."""
        return {even_text(row.input): row.outputs for row in self.test}


def read_tasks(folder: Path, names: Sequence[str]) -> list[Source]:
    """The named tasks of a folder, or of `CL_Benchmark/SuperNI` below it.

    Raises:
        FolderUnusable: a file is missing or has another form.
    """
    below = folder / "CL_Benchmark" / "SuperNI"
    folder = below if below.is_dir() else folder
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        raise FolderUnusable(
            f"{folder} has no folder {missing[0]} ({len(missing)} of {len(names)} tasks are missing); --data names "
            "the folder CL_Benchmark/SuperNI of a copy of the repository circle-hit/SAPT"
        )
    return [_read_task(folder / name) for name in names]


def _read_task(folder: Path) -> Source:
    files = {split: _read_file(folder / f"{split}.json") for split in ("train", "dev", "test")}
    rows = {split: _rows(folder / f"{split}.json", content) for split, content in files.items()}
    definition = _text(files["train"].get("Definition"))
    if not definition:
        raise FolderUnusable(f"{folder / 'train.json'} has no Definition, expected a text or a list with one")
    licence = _text(files["train"].get("Instance License")) or "unknown"
    return Source(folder.name, definition, licence, rows["train"], rows["test"], rows["dev"])


def _read_file(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FolderUnusable(f"{file} can't be read ({error}); expected the JSON file of a SuperNI task") from error
    if not isinstance(content, Mapping) or not isinstance(content.get("Instances"), list) or not content["Instances"]:
        raise FolderUnusable(f"{file} has no list Instances with rows, expected the JSON file of a SuperNI task")
    return content


def _rows(file: Path, content: Mapping[str, Any]) -> tuple[Row, ...]:
    rows = []
    for number, instance in enumerate(content["Instances"], 1):
        output = instance.get("output") if isinstance(instance, Mapping) else None
        outputs = (output,) if isinstance(output, str) else tuple(output or ())
        if not isinstance(instance.get("input"), str) or not outputs or not all(isinstance(o, str) for o in outputs):
            raise FolderUnusable(
                f"{file}, instance {number}: expected an input and an output, a text or a list of them"
            )
        rows.append(Row(_lines(instance["input"]), tuple(map(_lines, outputs))))
    return tuple(rows)


def _lines(text: str) -> str:
    """The text with line ends as the product reads them, so that a row is found again by its input."""
    return text.replace("\r\n", "\n")


def _text(value: Any) -> str:
    first = value[0] if isinstance(value, list) and value else value
    return first.strip() if isinstance(first, str) else ""


def cut(source: Source, seed: int, rows: int | None = None, test_rows: int | None = None) -> Source:
    """The task with validation rows cut from train; `rows` and `test_rows` limit what is left, drawn at random.

    Rows of train that repeat an input of train or test are left out, as are repetitions inside test: a validation
    row must be no training row, and a test row neither of them. So are rows that no package may have.

    Raises:
        FolderUnusable: train is too small to be cut.
    """
    notes = [f"{source.name}: dev.json equals test.json; validation rows are cut from train"] * source.dev_is_test
    test = _distinct(source.test, set())
    train = _distinct(source.train, {even_text(row.input) for row in test})
    absent = len(source.train) - len(train), len(source.test) - len(test)
    if any(absent):
        why = "repeat an input, have an empty answer or control characters"
        notes.append(f"{source.name}: {absent[0]} train and {absent[1]} test rows {why}, and are left out")
    draw = random.Random(f"{seed} {source.name}")  # by name, so that the order of tasks changes no row
    count = max(LEAST_VALIDATION, round(VALIDATION_SHARE * len(train)))
    if len(train) < 2 * count:
        raise FolderUnusable(f"{source.name} has {len(train)} different training rows, expected at least {2 * count}")
    chosen = set(draw.sample(range(len(train)), count))
    validation = tuple(row for i, row in enumerate(train) if i in chosen)
    train = [row for i, row in enumerate(train) if i not in chosen]
    return replace(
        source,
        train=_sample(train, rows, draw),
        dev=validation,
        test=_sample(test, test_rows, draw),
        notes=tuple(notes),
    )


def _distinct(rows: Sequence[Row], seen: set[str]) -> list[Row]:
    seen, kept = set(seen), []
    for row in rows:
        key = even_text(row.input)
        if key not in seen and row.is_usable:
            seen.add(key)
            kept.append(row)
    return kept


def _sample(rows: Sequence[Row], limit: int | None, draw: random.Random) -> tuple[Row, ...]:
    if limit is None or limit >= len(rows):
        return tuple(rows)
    return tuple(rows[i] for i in sorted(draw.sample(range(len(rows)), limit)))


def shortest(sources: Sequence[Source], count: int) -> list[Source]:
    """The `count` tasks with the shortest inputs, in the order in which they came."""
    ranked = sorted(range(len(sources)), key=lambda i: (sources[i].words, i))[:count]
    return [sources[i] for i in sorted(ranked)]


def write_package(source: Source, folder: Path, kept_share: float) -> Path:
    """Write the task as a package below `folder`; its owner lets `kept_share` of the training rows be kept.

    `decoding.max_new_tokens` is left to the product, which sets it by the longest answer.
    """
    package = folder / source.name
    package.mkdir(parents=True, exist_ok=True)
    header = {
        "name": source.name,
        "version": "1",
        "owner": "superni",
        "description": f"Super-NaturalInstructions, {source.name}",
        "metric": "rouge_l",
        "decoding": {"mode": "generate"},
        "retention": {"train_rows": kept_rows(source, kept_share), "evaluation_rows": True},
        "licence": source.licence,
    }
    (package / "task.yaml").write_text(yaml.safe_dump(header, sort_keys=False), encoding="utf-8")
    for split, rows in (("train", source.train), ("validation", source.dev), ("test", source.test)):
        lines = [
            json.dumps({"instruction": source.definition, "input": row.input, "output": row.outputs[0]}) for row in rows
        ]
        (package / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return package


def kept_rows(source: Source, share: float) -> int:
    """Training rows that may be kept: the share, rounded up from half a row, and at least one unless it is 0."""
    return max(1, round(share * len(source.train))) if share else 0
