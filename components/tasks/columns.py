"""Rows of a data set become rows of a task: which column holds what, values as text, options and labels by name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from components.tasks import layouts
from components.tasks.foreign import Labels
from components.tasks.records import Record

FIELDS = ("instruction", "input", "output", "image")
UNLABELLED = (None, "", -1, "-1")
"""Values in the answer's column that say there is no answer."""
QUESTIONS = ("question", "prompt", "query", "instruction", "problem")
"""Names of columns that hold a whole question, for a suggestion."""
TEXTS = ("text", "sentence", "input", "context", "review", "content", "document", "tweet", "utterance", "passage")
ANSWERS = ("output", "answer", "response", "completion", "label", "target", "labels", "intent", "summary", "answers")


@dataclass(frozen=True)
class Columns:
    """Columns by what they hold; rows in a layout of their own (`instruction`, `messages`, `prompt`) need none."""

    instruction: str | None = None
    """Text of the instruction, the same for all rows; null where a column has it."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Our field -> the data set's column, for `instruction`, `input`, `output`, `image`."""
    messages: str | None = None
    """Column with a list of messages."""
    choices: tuple[str, ...] = ()
    """The column with a row's list of options, or several columns with one option each."""

    @property
    def named(self) -> bool:
        """True if any column is named."""
        return bool(self.instruction is not None or self.names or self.messages)

    @property
    def asked(self) -> dict[str, str]:
        """Column -> what it is for."""
        asked = {column: part for part, column in self.names.items()} | dict.fromkeys(self.choices, "choices")
        return asked | ({self.messages: "messages"} if self.messages else {})


class ColumnsUnclear(Exception):
    """A row without a column that is named, or of a layout that nobody named columns for."""

    def __init__(self, column: str | None, seen: str, expected: str) -> None:
        super().__init__(seen)
        self.column, self.seen, self.expected = column, seen, expected


def known_layout(row: Mapping[str, Any]) -> bool:
    """True if a row says by its own fields what is asked and what the answer is."""
    layout = layouts.layout_of(row)
    if layout == "prompt":
        return "completion" in row or isinstance(row["prompt"], list)
    return layout is not None or {"instruction", "output"} <= row.keys()


def as_task_row(row: Record, columns: Columns, labels: Labels) -> tuple[Record, set[str]]:
    """The row with our fields, and remarks on what was left out or written otherwise.

    Raises:
        ColumnsUnclear: a named column is not there, or none is named and the layout is not known.
        LayoutRefused: a field that nothing reads changes what the row means.
    """
    if not columns.named:
        return _own_layout(row)
    if missing := next((column for column in columns.asked if column not in row), None):
        expected = f"a column for {columns.asked[missing]}: one of {', '.join(sorted(row))}"
        raise ColumnsUnclear(missing, "no such column", expected)
    if columns.messages:
        image = {"image": row[columns.names["image"]]} if "image" in columns.names else {}
        made = {"messages": row[columns.messages], **({"system": row["system"]} if row.get("system") else {}), **image}
    else:
        made = {"instruction": columns.instruction} if columns.instruction is not None else {}
        made |= {part: _named(row[column], labels.get(column)) for part, column in columns.names.items()}
    remarks: set[str] = set()
    options = _options(row, columns.choices)
    if options:
        made["choices"] = options
        if (column := columns.names.get("output")) is not None:
            answer = made["output"]
            made["output"] = _option(answer, row[column], options)
            if made["output"] is not answer:
                remarks.add(f"{column} names an option by its place or letter: written as the option")
    return _with_texts({part: value for part, value in made.items() if value is not None}, remarks)


def answerless(row: Mapping[str, Any], columns: Columns) -> bool:
    """True if a row has no answer where the columns say it should be."""
    column = columns.names.get("output", "output")
    rest = columns.asked.keys() - {column} if columns.named else {"instruction"}
    if columns.messages or not rest <= row.keys() or (not columns.named and layouts.layout_of(row) is not None):
        return False
    value = row.get(column)
    return not isinstance(value, list | dict) and value in UNLABELLED


def suggestion(names: Sequence[str]) -> str:
    """Options of the command line that fit rows with these columns."""
    lower = {name.lower(): name for name in names}
    asked, text, answer = (next((lower[n] for n in order if n in lower), None) for order in (QUESTIONS, TEXTS, ANSWERS))
    options = " --choices choices" if "choices" in lower else ""
    if asked and answer and asked != answer:
        beside = f" --input {text}" if text and text not in (asked, answer) else ""
        return f"for example `--instruction-column {asked}{beside} --output {answer}{options}`"
    if text and answer and text != answer:
        return f'for example `--instruction "what is to be done" --input {text} --output {answer}{options}`'
    return (
        "--instruction TEXT or --instruction-column, --input and --output, or --messages, to say which column is which"
    )


def as_text(value: Any) -> Any:  # noqa: ANN401 - whatever a column holds; what is no text is refused later
    """Numbers, dates and times as text, as they are usually written; anything else as it is."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else value
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value


def _own_layout(row: Record) -> tuple[Record, set[str]]:
    if not known_layout(row):
        raise ColumnsUnclear(None, f"columns {', '.join(sorted(row))}", suggestion(list(row)))
    if layouts.layout_of(row) is not None:
        return row, set()
    used = {*layouts.OWN, "choices", "image"}
    remarks = {f"a field `{field}` that nothing reads: left out" for field in layouts.without_meaning(row, used)}
    return _with_texts({part: value for part, value in row.items() if part in used}, remarks)


def _kind(value: object) -> str:
    return "number" if isinstance(value, int | float | Decimal) else "date or time"


def _with_texts(row: Record, remarks: set[str]) -> tuple[Record, set[str]]:
    """The row with numbers, dates and times as text where a text belongs."""
    texts = {part: as_text(value) if part in layouts.OWN else value for part, value in row.items()}
    return texts, remarks | {
        f"{part} is no text but a {_kind(row[part])}: written as text" for part in row if texts[part] is not row[part]
    }


def _named(value: Any, classes: list[str] | None) -> Any:  # noqa: ANN401 - any value of a column
    """The name of a class label; -1 is no label."""
    if classes is None or not isinstance(value, int) or isinstance(value, bool):
        return value
    return classes[value] if 0 <= value < len(classes) else None


def _options(row: Record, names: Sequence[str]) -> Any:  # noqa: ANN401 - what stands there is checked later
    """A row's options: a list, the `text` of ARC's pair of lists, or one column each."""
    if len(names) > 1:
        return [as_text(row[name]) for name in names]
    value = row[names[0]] if names else None
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        return value["text"]
    return [as_text(option) for option in value] if isinstance(value, list) else value


def _option(named: Any, raw: Any, options: Any) -> Any:  # noqa: ANN401 - any value of a column
    """The option that an answer means: its text, its place from 0, or its letter."""
    if not isinstance(options, list) or as_text(named) in options:
        return named
    if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < len(options):
        return options[raw]
    if isinstance(named, str) and len(named) == 1 and 0 <= ord(named.upper()) - ord("A") < len(options):
        return options[ord(named.upper()) - ord("A")]
    return named
