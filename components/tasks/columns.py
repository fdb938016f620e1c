"""Rows of a data set as rows of a task: columns by what they hold, values as text, labels and options by name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.tasks import layouts, records
from components.tasks.foreign import Labels
from components.tasks.options import Options, Way, option_columns, options_of
from components.tasks.problems import show
from components.tasks.records import Record
from components.tasks.values import NoColumn, as_text, kind_of, value_of

UNLABELLED = (None, "", -1, "-1")
"""Values in the answer's column that stand for "no answer": hubs write -1 for a missing class label."""
QUESTIONS = ("question", "prompt", "query", "instruction", "problem")
"""Names of columns that hold a whole question, for a suggestion."""
TEXTS = ("text", "sentence", "input", "context", "review", "content", "document", "tweet", "utterance", "passage")
ANSWERS = (
    "output", "answer", "response", "completion", "label", "target", "labels", "intent", "summary", "answers",
    "answerKey", "chosen",
)  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """Columns by what they hold; rows in a layout of their own (`instruction`, `messages`, `prompt`) need none."""

    instruction: str | None = None
    """Text of the instruction, the same for all rows; None where a column holds it."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Our field -> the data set's column, for `instruction`, `input`, `output`, `image`; several as `a,b`."""
    messages: str | None = None
    """Column with a list of messages."""
    choices: tuple[str, ...] = ()
    """The column with a row's list of options, or several columns with one option each."""
    answers: Way | None = None
    """The way in which answers name options; None: the one that fits."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out although they may change what a row means."""

    @property
    def has_names(self) -> bool:
        """True if any column is named."""
        return bool(self.instruction is not None or self.names or self.messages)

    @property
    def answer(self) -> str:
        """The column of the answer."""
        return self.names.get("output", "output")

    @property
    def purposes(self) -> dict[str, str]:
        """Column -> the field it fills."""
        purposes = {column: part for part, names in self.names.items() for column in names.split(",")}
        purposes |= dict.fromkeys(self.choices, "choices")
        return purposes | ({self.messages: "messages"} if self.messages else {})


class ColumnsUnclear(Exception):
    """A row lacks a named column, or has a layout for which no columns are named."""

    def __init__(self, column: str | None, actual: str, rule: str) -> None:
        super().__init__(actual)
        self.column, self.seen, self.expected = column, actual, rule


def known_layout(row: Mapping[str, Any]) -> bool:
    """True if a row says by its own fields what is asked and what the answer is."""
    layout = layouts.layout_of(row)
    if layout == "prompt":
        return "completion" in row or isinstance(row["prompt"], list)
    return layout is not None or {"instruction", "output"} <= row.keys()


def as_task_row(row: Record, columns: Columns, labels: Labels, way: Way | None) -> tuple[Record, set[str]]:
    """The row with our fields, and remarks on what was left out or rewritten.

    `way` is the way in which the answer names one of the row's options, if it has options.

    Raises:
        ColumnsUnclear: a named column is missing, or no column is named and the layout is unknown.
        LayoutRefused: a field that nothing reads changes the meaning of the row.
    """
    if not columns.has_names:
        return _own_layout(row, columns.ignore)
    if columns.answer in [columns.names.get(part) for part in ("instruction", "input")]:
        raise ColumnsUnclear(columns.answer, "the column of the question as that of the answer", "another column")
    try:
        remarks: set[str] = set(_left_out(row, columns))
        if columns.messages:
            fields = _messages(row, columns)
        else:
            fields = {"instruction": columns.instruction} if columns.instruction is not None else {}
            fields |= {part: _field(row, part, names, labels, remarks) for part, names in columns.names.items()}
        options = options_of(row, columns.choices)
        if options is not None:
            fields["choices"] = list(options.texts)
            if "output" in columns.names:
                fields["output"] = _option(row, columns, options, way, remarks)
    except NoColumn as missing:
        column = str(missing.args[0])
        rule = f"a column for {columns.purposes[column]}: one of {', '.join(sorted(row))}"
        raise ColumnsUnclear(column, "no such column", rule) from missing
    return _with_texts({part: value for part, value in fields.items() if value is not None}, remarks)


def answer_and_options(row: Record, columns: Columns) -> tuple[object, Options] | None:
    """The answer and the options of a row, or None if one is missing."""
    try:
        options, answer = options_of(row, columns.choices), value_of(row, columns.answer)
    except NoColumn:
        return None
    return None if options is None or isinstance(answer, list | dict) or answer in UNLABELLED else (answer, options)


def answerless(row: Mapping[str, Any], columns: Columns) -> bool:
    """True if a row has no answer where the columns say it should be, though it has all the rest."""
    rest = columns.purposes.keys() - {columns.answer} if columns.has_names else {"instruction"}
    if columns.messages or (not columns.has_names and layouts.layout_of(row) is not None):
        return False
    try:
        for column in rest:
            value_of(dict(row), column)
        value = value_of(dict(row), columns.answer)
    except NoColumn as missing:
        return str(missing.args[0]) == columns.answer
    return not isinstance(value, list | dict) and value in UNLABELLED


def suggestion(row: Mapping[str, Any]) -> str:
    """Options of the command line that fit rows with these columns."""
    lower = {name.lower(): name for name in row}
    question, text = (next((lower[n] for n in order if n in lower), None) for order in (QUESTIONS, TEXTS))
    answer = next((lower[n.lower()] for n in ANSWERS if n.lower() in lower), None)
    inner = row.get(answer) if answer else None
    path = f"{answer}.text" if isinstance(inner, dict) and "text" in inner else answer
    options = f" --choices {','.join(columns)}" if (columns := option_columns(row)) else ""
    if question and answer and question != answer:
        beside = f" --input {text}" if text and text not in (question, answer) else ""
        return f"for example `--instruction-column {question}{beside} --output {path}{options}`"
    if text and answer and text != answer:
        return (
            f'for example `--instruction "..." --input {text} --output {path}{options}`, with the instruction in words'
        )
    return (
        "--instruction TEXT or --instruction-column, --input and --output, or --messages, to say which column is which"
    )


def _own_layout(row: Record, ignore: Sequence[str]) -> tuple[Record, set[str]]:
    row = {name: value for name, value in row.items() if name not in ignore}
    if not known_layout(row):
        raise ColumnsUnclear(None, f"columns {', '.join(sorted(row))}", suggestion(row))
    if layouts.layout_of(row) is not None:
        return row, set()
    fields = {*layouts.OWN, "choices", "image"}
    remarks = {f"a field `{name}` that nothing reads: left out" for name in layouts.without_meaning(row, fields)}
    return _with_texts({part: value for part, value in row.items() if part in fields}, remarks)


def _left_out(row: Record, columns: Columns) -> Iterator[str]:
    """Remarks on the columns that nothing reads.

    Options, and fields that change a row's meaning, are refused instead: only the user may drop them.
    """
    in_use = {column.split(".")[0] for column in columns.purposes} | set(columns.ignore)
    in_use |= {"system"} if columns.messages else set()
    unread = option_columns({name: value for name, value in row.items() if name not in in_use})
    if unread and not columns.choices and not columns.messages:
        names = ",".join(unread)
        raise ColumnsUnclear(names, "options that nothing reads", f"`--choices {names}`, or `--ignore {names}`")
    for name in layouts.without_meaning(row, in_use):
        yield f"a column `{name}` that nothing reads: left out"


def _messages(row: Record, columns: Columns) -> Record:
    """The row in the chat layout; a list of messages may also stand there as JSON text."""
    turns = value_of(row, str(columns.messages))
    if isinstance(turns, str):
        try:
            turns = records.load(turns)
        except records.NotJson as error:
            raise ColumnsUnclear(columns.messages, f"{error.seen} in {show(turns)}", "a list of messages") from error
    image = {"image": value_of(row, columns.names["image"])} if "image" in columns.names else {}
    system = {} if layouts.empty(row.get("system")) else {"system": row["system"]}
    return {"messages": turns, **system, **image}


def _field(row: Record, part: str, names: str, labels: Labels, remarks: set[str]) -> Any:  # noqa: ANN401 - any value
    """The value for one of our fields, from its column or from several, each with its name in front."""
    if names in row or "," not in names:
        value = _class_name(value_of(row, names), labels.get(names))
        if part == "image" or not isinstance(value, list) or not value:
            return value
        if len(value) > 1:
            remarks.add(f"{names} holds several texts: the first is taken")
        return value[0]
    return "\n".join(f"{name}: {as_text(value_of(row, name))}" for name in names.split(","))


def _option(row: Record, columns: Columns, options: Options, way: Way | None, remarks: set[str]) -> Any:  # noqa: ANN401
    """The option that the answer means, or the answer itself if it means none."""
    answer = value_of(row, columns.answer)
    index = options.position(way, answer) if way is not None else None
    if index is None:
        return as_text(answer)
    if way != "text":
        remarks.add(f"{columns.answer} names an option otherwise than by its text: written as the option")
    return options.texts[index]


def _class_name(value: Any, classes: list[str] | None) -> Any:  # noqa: ANN401 - any value of a column
    """The name of a class label; -1 is no label."""
    if classes is None or not isinstance(value, int) or isinstance(value, bool):
        return value
    return classes[value] if 0 <= value < len(classes) else None


def _with_texts(row: Record, remarks: set[str]) -> tuple[Record, set[str]]:
    """The row with numbers, truth values, dates and times as text where a text belongs."""
    texts = {
        part: as_text(value) if part == "output" or (part in layouts.OWN and not isinstance(value, bool)) else value
        for part, value in row.items()
    }
    rewrites = [part for part, text in texts.items() if text is not row[part]]
    return texts, remarks | {f"{part} is no text but a {kind_of(row[part])}: written as text" for part in rewrites}
