"""The rules of the data checks, as Great Expectations expectations over a small frame.

Leaks, contradictions and choices become columns of the frame here; the expectations judge the columns.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from components.quality.fingerprints import Fingerprints
from components.quality.leaks import SeenBefore, contradictions, occurrences, rewordings, shown_again, shown_before
from components.quality.near_duplicates import near_duplicates, not_compared, rare_shingles
from components.quality.personal import personal_data
from components.quality.reachable import Reach, compared_words, reach_column, whole_answer_rule
from components.quality.rule import Rule, Severity
from components.quality.scripts import foreign_scripts
from components.settings import ValidationSettings
from components.tasks.rows import Example
from components.tasks.task_file import Split, Task

if TYPE_CHECKING:
    import pandas as pd

VISIBLE = "[^\\s\u00a0\u2000-\u200b\u3000]"
CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"
INVISIBLE = "[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
"""Invisible characters that change how a text is shown or split. The patterns hold the characters themselves: Python or
Arrow's RE2 reads them, and RE2 knows no \\u escapes."""
COLUMNS = (
    "row", "id", "instruction", "input", "output", "allowed", "answers", "leak", "reworded", "contradicts", "near",
    "script", "personal", "too_long", "unreachable", "compared_words",
)  # fmt: skip
IMAGE_COLUMNS = ("bad_image", "shown_again", "shown_in_train")
"""Further columns of tasks with images."""
SUITE = "lcia-task-rows"
SUITE_VERSION = 3
"""Goes up with every change of a rule or of a column's meaning; two results compare only within one version."""


TooLong: TypeAlias = Callable[[Task, Sequence[Example]], Sequence[int]]
"""Per row its tokens if prompt and answer exceed the base model's context, else 0."""


BadImages: TypeAlias = Callable[[Sequence[Example]], Sequence[str]]
"""Per row the fault of its stored images, or an empty text."""


@dataclass(frozen=True)
class Surroundings:
    """Context of a split's rows: everything that they are compared with beside each other."""

    before: SeenBefore
    own_hashes: Fingerprints | None
    """The task's own keyed hashes, row by row, in case earlier rows are gone."""
    near: Mapping[Split, Sequence[str]]
    """The places of `near_places`."""
    too_long: TooLong | None
    """None without a tokenizer: nothing is too long then."""
    reach: Reach | None = None
    """None without a tokenizer: nothing is out of reach then."""
    bad_images: "BadImages | None" = None
    """None in a task without images."""


def split_frame(
    split: Split,
    rows: Mapping[Split, Sequence[Example]],
    around: Surroundings,
    task: Task,
) -> "pd.DataFrame":
    """One row per example: its texts, and a column for each kind of fault."""
    import pandas as pd

    examples, before, choices = rows[split], around.before, task.choices
    answers: dict[tuple[str, ...], set[str]] = {}
    for example in examples:
        answers.setdefault(example.question, set()).add(example.output)
    own: dict[tuple[str, ...], str] = {}
    if split != "train":
        own = {example.question: "train of this task" for example in rows["train"]}
    earlier = before.evaluation if split == "train" else before.training
    places = occurrences(examples, earlier, around.own_hashes, split)
    again = [False] * len(examples) if split == "train" else rewordings(examples, rows["train"])
    fitting = [
        (example.choices is None and choices is None) or example.output in (example.choices or choices or ())
        for example in examples
    ]
    columns = {
        "row": range(1, len(examples) + 1),
        "id": [example.id for example in examples],
        "instruction": [example.instruction for example in examples],
        "input": [example.input or "" for example in examples],
        "output": [example.output for example in examples],
        "allowed": ["yes" if fits else "no" for fits in fitting],
        "answers": [len(answers[example.question]) for example in examples],
        "leak": [own.get(example.question) or there for example, there in zip(examples, places, strict=True)],
        "reworded": ["yes" if loose else "no" for loose in again],
        "contradicts": contradictions(examples, before.training, before.evaluation),
        "near": around.near[split],
        "script": foreign_scripts(examples),
        "personal": [_personal(example) for example in examples],
        "too_long": list(around.too_long(task, examples)) if around.too_long else [0] * len(examples),
        "unreachable": reach_column(around.reach, task, examples),
        "compared_words": compared_words(task, examples),
    }
    if around.bad_images is not None:
        in_train = shown_before(examples, () if split == "train" else rows["train"])
        columns["bad_image"] = around.bad_images(examples)
        columns["shown_again"] = ["yes" if again else "no" for again in shown_again(examples)]
        columns["shown_in_train"] = ["yes" if again else "no" for again in in_train]
    return pd.DataFrame(columns)


def near_places(rows: Mapping[Split, Sequence[Example]]) -> tuple[dict[Split, list[str]], int]:
    """Per split and row the place of an earlier row that it nearly repeats, such as `train 12`, or an empty text.

    Beside it, the number of rows that were compared with no other.
    """
    names = [f"{split} {row}" for split in rows for row in range(1, len(rows[split]) + 1)]
    everything = [example for examples in rows.values() for example in examples]
    rare = rare_shingles(everything)
    matches = iter(near_duplicates(everything, rare))
    places = {
        split: ["" if place is None else names[place] for place in islice(matches, len(examples))]
        for split, examples in rows.items()
    }
    return places, not_compared(rare)


def _personal(example: Example) -> str:
    texts = (example.instruction, example.input or "", example.output)
    return ", ".join(dict.fromkeys(finding for text in texts for finding in personal_data(text)))


def split_rules(split: Split, settings: ValidationSettings, *, images: bool = False) -> Iterator[Rule]:
    """All rules of a split but the balance of labels; `images`: True if the task has any."""
    from great_expectations import expectations as gxe

    columns = [*COLUMNS, *(IMAGE_COLUMNS if images else ())]
    yield Rule(
        "columns",
        "hard",
        "instruction, input and output",
        gxe.ExpectTableColumnsToMatchSet(column_set=columns, exact_match=True),
    )
    yield Rule(
        "row_count",
        "hard",
        f"at least {settings.min_rows} rows",
        gxe.ExpectTableRowCountToBeBetween(min_value=settings.min_rows),
    )
    for column in ("instruction", "output"):
        yield Rule(f"{column}_present", "hard", "a value", gxe.ExpectColumnValuesToNotBeNull(column=column))
        yield Rule(
            f"{column}_not_blank",
            "hard",
            "visible text",
            gxe.ExpectColumnValuesToMatchRegex(column=column, regex=VISIBLE),
        )
    for column in ("instruction", "input", "output"):
        longest = settings.max_characters
        yield Rule(
            f"{column}_length",
            "hard",
            f"at most {longest} characters",
            gxe.ExpectColumnValueLengthsToBeBetween(column=column, max_value=longest),
        )
        yield Rule(
            f"{column}_control_characters",
            "hard",
            "none",
            gxe.ExpectColumnValuesToNotMatchRegex(column=column, regex=CONTROL),
        )
        yield Rule(
            f"{column}_invisible_characters",
            "soft",
            "no zero-width or direction marks",
            gxe.ExpectColumnValuesToNotMatchRegex(column=column, regex=INVISIBLE),
        )
    yield Rule(
        "choices",
        "hard",
        "an output among the choices",
        gxe.ExpectColumnValuesToBeInSet(column="allowed", value_set=["yes"]),
    )
    yield Rule(
        "duplicates",
        "soft",
        f"at most {settings.max_duplicates:.1%} rows that occur twice",
        gxe.ExpectColumnValuesToBeUnique(column="id", mostly=1 - settings.max_duplicates),
    )
    yield Rule(
        "conflicts",
        "soft",
        "one answer per question",
        gxe.ExpectColumnValuesToBeBetween(column="answers", max_value=1),
    )
    yield from _softer_rules(settings)
    yield whole_answer_rule()
    yield from _leak_rules(split, settings)
    if images:
        yield from _image_rules(split, settings)


def _image_rules(split: Split, settings: ValidationSettings) -> Iterator[Rule]:
    from great_expectations import expectations as gxe

    yield Rule(
        "images",
        "hard",
        "images that are stored and can be read",
        gxe.ExpectColumnValuesToBeInSet(column="bad_image", value_set=[""]),
        shows="bad_image",
    )
    yield Rule(
        "image_duplicates",
        "soft",
        f"at most {settings.max_duplicates:.1%} rows that show an image again under the same instruction",
        gxe.ExpectColumnValuesToBeInSet(column="shown_again", value_set=["no"], mostly=1 - settings.max_duplicates),
    )
    if split != "train":
        yield Rule(
            "image_leaks",
            "soft",
            f"at most {settings.max_leak:.1%} of the rows with an image that train shows under the same instruction",
            gxe.ExpectColumnValuesToBeInSet(column="shown_in_train", value_set=["no"], mostly=1 - settings.max_leak),
        )


def _softer_rules(settings: ValidationSettings) -> Iterator[Rule]:
    """Rules on rows that a person should look at, and on rows beyond the context, which are set aside."""
    from great_expectations import expectations as gxe

    few, long = settings.max_near_duplicates, settings.max_too_long
    yield Rule(
        "near_duplicates",
        "soft",
        f"at most {few:.1%} rows that nearly repeat another row of the task",
        gxe.ExpectColumnValuesToBeInSet(column="near", value_set=[""], mostly=1 - few),
        shows="near",
    )
    nothing = (
        (
            "earlier_conflicts",
            "contradicts",
            "no input that an earlier task of the same instruction type answers differently",
        ),
        ("scripts", "script", "no rows in a script that few others use"),
        ("personal_data", "personal", "no e-mail address, phone or card number"),
    )
    for name, column, words in nothing:
        expectation = gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[""])
        yield Rule(name, "soft", words, expectation, shows=column)
    yield Rule(
        "context",
        "hard",
        f"at most {long:.1%} of the rows beyond base_model.max_tokens (prompt and output)",
        gxe.ExpectColumnValuesToBeInSet(column="too_long", value_set=[0], mostly=1 - long),
        shows="too_long",
    )


def _leak_rules(split: Split, settings: ValidationSettings) -> Iterator[Rule]:
    from great_expectations import expectations as gxe

    where = "an earlier task's evaluation rows" if split == "train" else "training rows, now or earlier"
    severity: Severity = "soft" if split == "validation" else "hard"
    yield Rule(
        "leaks",
        severity,
        f"at most {settings.max_leak:.1%} of the rows in {where}",
        gxe.ExpectColumnValuesToBeInSet(column="leak", value_set=[""], mostly=1 - settings.max_leak),
        shows="leak",
    )
    if split == "test":
        yield Rule(
            "own_leaks",
            "hard",
            "no row of this task's train",
            gxe.ExpectColumnValuesToNotBeInSet(column="leak", value_set=["train of this task"]),
        )
    if split != "train":
        yield Rule(
            "reworded",
            "soft",
            "no input of this task's train under another instruction",
            gxe.ExpectColumnValuesToBeInSet(column="reworded", value_set=["no"]),
        )


def label_shares(rows: Sequence[Example], choices: tuple[str, ...] | None) -> "pd.DataFrame | None":
    """Per label its training share relative to an even split; None for free text."""
    import pandas as pd

    if choices is None:
        return None
    counts = Counter(example.output for example in rows)
    shares = [counts[choice] * len(choices) / max(len(rows), 1) for choice in choices]
    return pd.DataFrame({"row": range(1, len(choices) + 1), "label": list(choices), "share": shares})


def balance_rule(settings: ValidationSettings) -> Rule:
    """The rule on the shares of `label_shares`."""
    from great_expectations import expectations as gxe

    least = settings.min_label_share
    return Rule(
        "label_balance",
        "soft",
        f"each label at least {least:.0%} of an even share",
        gxe.ExpectColumnValuesToBeBetween(column="share", min_value=least),
    )
