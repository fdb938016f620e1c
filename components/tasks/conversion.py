"""One data set on its way into a package: first settle what holds for all of its rows, then read each row."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from components.tasks.columns import Columns, ColumnsUnclear, answer_and_options, answerless, as_task_row, suggestion
from components.tasks.decoding_defaults import decoding_defaults
from components.tasks.foreign import FileRows, read_table
from components.tasks.images import Album
from components.tasks.layouts import Fault, LayoutRefused
from components.tasks.options import AnswersUnclear, Way, way_of
from components.tasks.package import leaks, remarks_on
from components.tasks.problems import Findings, PackageError, Problem, show
from components.tasks.records import Record
from components.tasks.repair import Repair
from components.tasks.rows import SET_ASIDE_SHARE, Example, PlainRow, RowCheck, Rows, check_rows
from components.tasks.source_images import SourceImages
from components.tasks.sources import Source

MOST_LABELS, ROWS_A_LABEL = 20, 5
"""Answers are labels if there are at most so many different ones, and at least so many training rows for each."""


@dataclass(frozen=True)
class Reading:
    """Choices of the user about reading a data set, besides its columns."""

    splits: Mapping[str, str] = field(default_factory=dict)
    """Split -> its file, a pattern of files, or `none`; the other splits' files are found by their names."""
    header: tuple[str, ...] = ()
    """Names of the columns of CSV files without a header."""
    repair: bool = False
    """True mends texts that were decoded with the wrong code page."""
    set_aside: float = SET_ASIDE_SHARE
    """Largest share of a split's rows that may be faulty: these are left out, counted and named."""


NAMED_SPLITS = Reading()
"""Splits by their names, no repair, the usual share of faulty rows."""


class ImportRefused(PackageError):
    """A data set that can't become a package; nothing is left behind."""

    kind = "data set"
    advice = "Nothing was written."


@dataclass(frozen=True)
class SourceRow:
    """A row of the package, with its file and line in the data set."""

    file: str
    line: int
    fields: Record
    example: Example

    @property
    def images(self) -> list[str]:
        """Paths of its images in the package."""
        paths = self.fields.get("image") or []
        return paths if isinstance(paths, list) else [paths]


class Conversion:
    """One data set on its way into a package."""

    def __init__(
        self, source: Source, folder: Path, columns: Columns, reading: Reading, header: Mapping[str, Any]
    ) -> None:
        self.source, self.columns, self.reading, self.header = source, columns, reading, header
        self.images = SourceImages(source.root, folder)
        self.repair = Repair(active=reading.repair)
        self.labels: list[str] = []
        """Names of the classes of the answer."""
        self.set_aside = Findings()
        self._way: Way | None = None
        self._numbered = False  # answers are numbers from 0 on, so that -1 is none
        self._counts: Counter[str] = Counter()
        self._sentences: list[str] = []
        self._album = Album(folder, self.images.files)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about rows that were rewritten or left out."""
        sentences = [f"{count} rows: {words}" for words, count in sorted(self._counts.items())]
        return (*self._sentences, *sentences, *self.repair.remarks, *remarks_on(self.set_aside.problems))

    def read(self, split: str, paths: Sequence[Path]) -> list[SourceRow]:
        """The rows of a split; none if it has no answers and is not the training split.

        Raises:
            ImportRefused: too many rows are faulty.
        """
        tables = {self.source.name(path): self._table(path) for path in paths}
        records = [row for table in tables.values() for _, row in table.rows if not isinstance(row, Problem)]
        if split != "unlabelled" and records and all(answerless(record, self.columns) for record in records):
            column = self.columns.answer
            if split == "train":
                actual = f"no answer in any row; the columns are {', '.join(sorted(records[0]))}"
                raise self._refusal([Problem(next(iter(tables)), None, column, actual, suggestion(records[0]))])
            self._sentences.append(f"{split} is left out: none of its {len(records)} rows has an answer in {column}")
            return []
        if split == "train" and records:
            self._learn(records, tables)
        contents = {name: self._check(name, table, split) for name, table in tables.items()}
        faulty = Findings(problem for rows in contents.values() for problem in (*rows.problems, *rows.set_aside))
        self._set_aside(
            faulty.problems,
            sum(rows.faulty for rows in contents.values()),
            sum(len(rows.rows) + rows.faulty for rows in contents.values()),
            whole=any(rows.problems for rows in contents.values()),
        )
        for rows in contents.values():
            self._counts += rows.remarks
        return [
            SourceRow(name, line, row.fields, row.example) for name, rows in contents.items() for line, row in rows.rows
        ]

    def with_known_labels(self, splits: dict[str, list[SourceRow]]) -> dict[str, list[SourceRow]]:
        """The splits without rows whose label no training row has; a few such rows are set aside.

        Splits stay as they are if answers are free text.

        Raises:
            ImportRefused: too many rows have such a label.
        """
        counts = Counter(row.example.output for row in splits["train"] if row.example.choices is None)
        if not counts or len(counts) > MOST_LABELS or sum(counts.values()) < ROWS_A_LABEL * len(counts):
            return splits
        labels = ", ".join(sorted(map(show, counts)))
        out = dict(splits)
        for split in ("validation", "test"):
            rows = splits.get(split, [])
            strange = [row for row in rows if row.example.choices is None and row.example.output not in counts]
            problems = Findings(
                Problem(
                    row.file, row.line, "output", show(row.example.output), f"an answer of the training rows: {labels}"
                )
                for row in strange
            ).problems
            self._set_aside(problems, len(strange), len(rows))
            out[split] = [row for row in rows if row.example.choices is not None or row.example.output in counts]
        return {split: rows for split, rows in out.items() if rows}

    def without_leaks(self, splits: dict[str, list[SourceRow]]) -> dict[str, list[SourceRow]]:
        """The splits without test rows that ask a training row's question; a few such rows are set aside.

        Raises:
            ImportRefused: too many test rows do.
        """
        train, test = splits["train"], splits.get("test", [])
        leaking = leaks(_places(train), _places(test))
        if not leaking:
            return splits
        self._set_aside(leaking, sum(problem.count for problem in leaking), len(test))
        questions = {row.example.question for row in train}
        return {**splits, "test": [row for row in test if row.example.question not in questions]}

    def scoring(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Choices, metric and decoding for `task.yaml` that fit the rows; a remark gives the reason."""
        if any(example.choices for example in examples):
            self._sentences.append("scored by choice_accuracy: each row has its options, and the likeliest one counts")
            decoding = {"mode": "choose", "length_normalisation": "tokens"}
            return {"metric": "choice_accuracy", "decoding": decoding}
        choices = list(self.header.get("choices") or self.labels)
        answers = [example.output for example in examples if example.output]
        defaults = decoding_defaults(answers, choices)
        if not choices and 2 <= len(set(answers)) <= MOST_LABELS and len(answers) >= ROWS_A_LABEL * len(set(answers)):
            labels = " ".join(f"--choice {show(label)}" for label in sorted(set(answers)))
            self._sentences.append(f"{len(set(answers))} answers recur; to allow these alone, import with {labels}")
        self._sentences.append(
            f"scored by {defaults.metric}, answers of at most {defaults.max_new_tokens} tokens: {defaults.reason}"
        )
        limit: dict[str, Any] = {"mode": "generate", "max_new_tokens": defaults.max_new_tokens}
        return {**({"choices": choices} if choices else {}), "metric": defaults.metric, "decoding": limit}

    def _learn(self, records: Sequence[Record], tables: Mapping[str, FileRows]) -> None:
        """Settle from the training rows what holds for all splits: obvious columns, and how answers name options."""
        if self.columns.has_names and not self.columns.messages:
            own = {part: part for part in ("input", "output") if part in records[0]}
            in_use = self.columns.purposes.keys()
            names = {part: name for part, name in own.items() if name not in in_use} | dict(self.columns.names)
            self.columns = replace(self.columns, names=names)
        pairs = [pair for record in records if (pair := answer_and_options(record, self.columns)) is not None]
        if self.columns.answers is not None or not pairs:
            self._way = self.columns.answers
        elif any(self.columns.answer in table.labels for table in tables.values()):
            self._way = "0"  # a class label is its name's place, counted from 0
        else:
            try:
                self._way = way_of(pairs, self.reading.set_aside)
            except AnswersUnclear as why:
                file = next(iter(tables))
                raise self._refusal([Problem(file, None, self.columns.answer, why.seen, why.expected)]) from why
        answers = [value for record in records if isinstance(value := record.get(self.columns.answer), int | str)]
        self._numbered = any(str(value) != "-1" for value in answers) and all(
            str(value) == "-1" or str(value).isdigit() for value in answers
        )

    def _table(self, path: Path) -> FileRows:
        name = self.source.name(path)
        table = read_table(path, name, self.source.root, self.reading.header or None, self.repair)
        rows = [(line, row if isinstance(row, Problem) else self.repair.row(row)) for line, row in table.rows]
        return FileRows(rows, table.labels)

    def _check(self, name: str, table: FileRows, split: str) -> Rows[PlainRow]:
        needs_output = split != "unlabelled"
        names = {part: column for part, column in self.columns.names.items() if needs_output or part != "output"}
        columns = replace(self.columns, names=names)
        if needs_output and not self.labels:
            self.labels += table.labels.get(names.get("output", ""), [])
        choices = tuple(self.header.get("choices") or ()) or None
        check = RowCheck(choices, self._album, needs_output=needs_output)

        def plain(record: Record, remarks: Counter[str]) -> PlainRow | list[Fault]:
            if self._numbered and needs_output and str(record.get(columns.answer)) == "-1":
                return [(columns.answer, "-1, which says that there is no label", "an answer")]
            try:
                row, remarks_on_row = as_task_row(record, columns, table.labels, self._way)
                row = self.images.copy(row)
            except ColumnsUnclear as why:
                return [(why.column or "columns", why.seen, why.expected)]
            except LayoutRefused as why:
                return [why.fault]
            remarks.update(remarks_on_row)
            if not needs_output and answerless(record, self.columns):
                row.pop("output", None)
            return check.plain(row, remarks)

        return check_rows(table.rows, name, plain, share=1.0)

    def _set_aside(self, problems: Sequence[Problem], faulty: int, total: int, *, whole: bool = False) -> None:
        if whole or faulty > self.reading.set_aside * total:
            raise self._refusal(problems, faulty, total)
        for problem in problems:
            self.set_aside.add(problem)

    def _refusal(self, problems: Sequence[Problem], faulty: int = 0, total: int = 0) -> "ImportRefused":
        error = ImportRefused(str(self.source.path), list(problems))
        if 0 < faulty < total:
            share = min(1.0, faulty / total + 0.005)
            error.add_note(
                f"{faulty} of {total} rows have a fault; up to {self.reading.set_aside:.1%} would be left out. "
                f"`--set-aside {share:.2f}` leaves them out."
            )
        for remark in self.repair.remarks:
            error.add_note(remark)
        return error


def _places(rows: Sequence[SourceRow]) -> list[tuple[str, int, Example]]:
    return [(row.file, row.line, row.example) for row in rows]
