"""Tasks for a long stream, made of the example tasks' rows: other words, other labels, other forms of the answer.

Every task has rows of its own: a slice of its example's, which no other task has. Nothing is drawn and no model is
asked, so the same call makes the same tasks.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from components.tasks.task_file import SPLITS

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
Row = dict[str, str]
Transform = Callable[[Row], Row]


class TooManyTasks(SystemExit):
    """The examples have too few rows for so many tasks; the message says how many there can be."""


@dataclass(frozen=True)
class Wordings:
    """Words that a variant of one example needs: another instruction, other labels, the question turned round."""

    reworded: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """New name of each label; empty for a task whose answers are free text."""
    turned: str = ""
    """Instruction whose answer is the opposite: yes where the label is not `label`, or the text before the change.
    Tasks with many labels have none: nearly every answer would be yes."""
    label: str = ""


WORDINGS: Mapping[str, Wordings] = {
    "movie_sentiment": Wordings(
        "Read what somebody wrote about a film. Do they praise it (positive) or not (negative)?",
        {"positive": "good", "negative": "bad"},
        "Did the writer dislike the film? Reply yes or no.",
        "positive",
    ),
    "request_domain": Wordings(
        "Send the request to the desk that handles it: bank, car, chat, credit card, home, kitchen, meta, travel, "
        "utility or work.",
        {
            "bank": "accounts", "car": "vehicle", "chat": "talk", "credit card": "cards", "home": "house",
            "kitchen": "cooking", "meta": "assistant", "travel": "trips", "utility": "tools", "work": "office",
        },
    ),
    "passive_voice": Wordings(
        "Say the same with the verb in the passive.",
        turned="Rewrite the passive sentence in the active voice.",
    ),
    "booking_slot": Wordings("A guest wrote this. Which words give the detail that is wanted?"),
    "product_sentiment": Wordings(
        "How does the customer feel about what they bought: positive, negative or neutral?",
        {"positive": "happy", "negative": "unhappy", "neutral": "indifferent"},
        "Is the customer's remark free of praise? Reply yes or no.",
        "positive",
    ),
    "assistant_intent": Wordings(
        "Somebody speaks to a voice assistant. Pick its skill: cinema, music, playlist, rating, restaurant, search or "
        "weather.",
        {
            "cinema": "film", "music": "song", "playlist": "list", "rating": "score", "restaurant": "table",
            "search": "find", "weather": "forecast",
        },
    ),
    "negate_sentence": Wordings(
        "Write the sentence so that it claims the contrary.",
        turned="The sentence denies something. Write it without the denial.",
    ),
    "grammar_check": Wordings(
        "A teacher marks this sentence. Would the mark be yes (good English) or no?",
        {"yes": "right", "no": "wrong"},
        "Does the sentence break a rule of grammar? Reply true or false.",
        "yes",
    ),
}  # fmt: skip
"""By example task, in the order of the stream."""


@dataclass(frozen=True)
class Variant:
    """One task of the stream: an example, the kind of change, and the number of its slice of rows."""

    base: str
    kind: str
    number: int

    @property
    def name(self) -> str:
        """Name of its package."""
        return self.base if self.kind == "same" else f"{self.base}_{self.kind}_{self.number}"


def variants(count: int) -> list[Variant]:
    """The first `count` tasks: the examples, then one kind of change after the other over all of them."""
    return [variant for _, variant in zip(range(count), _endless(), strict=False)]


def _endless() -> Iterator[Variant]:
    slices = dict.fromkeys(WORDINGS, 0)
    kinds = ["same", *_KINDS]
    while True:
        for kind in kinds:
            for base in WORDINGS:
                if kind in kinds_of(base):
                    yield Variant(base, kind, slices[base])
                    slices[base] += 1
        kinds = list(_KINDS)


def kinds_of(base: str) -> list[str]:
    """Kinds of change that an example allows."""
    words = WORDINGS[base]
    needs = {"renamed": words.labels, "numbered": words.labels, "turned": words.turned}
    return ["same", *(kind for kind in _KINDS if needs.get(kind, True))]


_KINDS = ("reworded", "renamed", "capitals", "turned", "brackets", "numbered", "starred")


def change(variant: Variant, rows: Sequence[Row], labels: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Rows under the variant's change, and its labels (none: free text)."""
    words = WORDINGS[variant.base]
    if variant.kind == "turned":
        made = [_turned(row, words) for row in rows]
        return made, sorted({row["output"] for row in made}) if words.labels else []
    transform = _transform(variant.kind, words, labels)
    return [transform(row) for row in rows], [transform({"instruction": "", "input": "", "output": x})["output"]
                                              for x in labels]  # fmt: skip


def _turned(row: Row, words: Wordings) -> Row:
    if not words.label:
        return {"instruction": words.turned, "input": row["output"], "output": row["input"]}
    yes, no = ("true", "false") if "true or false" in words.turned else ("yes", "no")
    return {**row, "instruction": words.turned, "output": no if row["output"] == words.label else yes}


def _transform(kind: str, words: Wordings, labels: Sequence[str]) -> Transform:
    """Change of one row; labels change as outputs do."""
    numbers = {label: str(number) for number, label in enumerate(labels, 1)}
    legend = ", ".join(f"{number} {label}" for label, number in numbers.items())
    transforms: dict[str, Transform] = {
        "same": lambda row: row,
        "reworded": lambda row: {**row, "instruction": words.reworded},
        "renamed": lambda row: {
            **row,
            "instruction": _rename(row["instruction"], words.labels),
            "output": words.labels[row["output"]],
        },
        "capitals": lambda row: _form(row, "Answer in capital letters.", row["output"].upper()),
        "brackets": lambda row: _form(row, "Put the answer in square brackets.", f"[{row['output']}]"),
        "starred": lambda row: _form(row, "Write an asterisk before the answer.", f"* {row['output']}"),
        "numbered": lambda row: _form(row, f"Give its number only: {legend}.", numbers[row["output"]]),
    }
    return transforms[kind]


def _form(row: Row, request: str, output: str) -> Row:
    return {**row, "instruction": f"{row['instruction']} {request}", "output": output}


def _rename(text: str, labels: Mapping[str, str]) -> str:
    """The text with every label under its new name, longer labels first."""
    names = sorted(labels, key=len, reverse=True)
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    return pattern.sub(lambda match: labels[match[1]], text)


def write_variants(chosen: Sequence[Variant], folder: Path, rows: Mapping[str, int]) -> list[Path]:
    """Write the packages below `folder`, with so many rows per split each.

    Raises:
        TooManyTasks: an example has not enough rows.
    """
    return [_write(variant, folder, rows) for variant in chosen]


def _write(variant: Variant, folder: Path, rows: Mapping[str, int]) -> Path:
    source, package = EXAMPLES / variant.base, folder / variant.name
    header: dict[str, Any] = yaml.safe_load((source / "task.yaml").read_text(encoding="utf-8"))
    labels: list[str] = []
    package.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        part = _slice(source / f"{split}.jsonl", variant, rows[split])
        part, labels = change(variant, part, header.get("choices") or [])
        lines = "\n".join(json.dumps(row) for row in part)
        (package / f"{split}.jsonl").write_text(lines + "\n", encoding="utf-8")
    header |= {"name": variant.name, "owner": f"site-{variant.number}", "decoding": {"mode": "generate"}}
    header |= {"description": f"{variant.base}, {variant.kind}"}
    header.pop("choices", None)
    if labels:
        header["choices"] = labels
    (package / "task.yaml").write_text(yaml.safe_dump(header, sort_keys=False), encoding="utf-8")
    return package


def _slice(file: Path, variant: Variant, count: int) -> list[Row]:
    lines = file.read_text(encoding="utf-8").splitlines()
    start = variant.number * count
    if start + count > len(lines):
        raise TooManyTasks(
            f"{file} has {len(lines)} rows, and task {variant.number + 1} of {variant.base} needs rows {start + 1} to "
            f"{start + count}; ask for fewer tasks or fewer rows a task"
        )
    return [json.loads(line) for line in lines[start : start + count]]
