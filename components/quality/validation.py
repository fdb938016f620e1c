"""Data checks of a task snapshot with Great Expectations: hard rules refuse, soft rules warn.

The package reader already refuses what is malformed; this says whether the rows are fit to learn from and to
judge by: enough of them, answers inside the choices, no contradictions, no leaks into or out of the training
rows of this and every earlier task. Great Expectations evaluates every rule; its own page is not used, for it
fetches from outside and breaks on numpy scalars.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from components.errors import LciaError
from components.pages import PageRow, PageTable, verdict_page
from components.quality.leaks import SeenBefore, seen_before
from components.quality.rules import Rule, Severity, balance_rule, label_shares, split_frame, split_rules
from components.settings import ValidationSettings
from components.tasks.package import SPLITS, Split
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot

if TYPE_CHECKING:
    import pandas as pd

Verdict: TypeAlias = Literal["pass", "warn", "refuse"]

MAX_ROWS_SHOWN = 20


class ValidationError(LciaError):
    """Great Expectations could not evaluate a rule; nothing is known about the data."""


@dataclass(frozen=True)
class Check:
    """One rule on one split and what was seen."""

    name: str
    split: str
    severity: Severity
    success: bool
    seen: str
    expected: str
    rows: tuple[int, ...] = ()
    """Row numbers (from 1) that break it, the first 20."""


@dataclass(frozen=True)
class Quarantined:
    """A row that is set aside: neither trained on nor judged by."""

    split: str
    row: int
    id: str
    reason: str


@dataclass(frozen=True)
class ValidationResult:
    """What was found; `refuse` means that nothing is to be learnt from this task."""

    task: str
    name: str
    verdict: Verdict
    checks: tuple[Check, ...]
    quarantined_rows: tuple[Quarantined, ...] = ()
    statistics: dict[str, Any] = field(default_factory=dict)

    def excluded(self, split: Split) -> frozenset[str]:
        """Row ids of a split that are set aside."""
        return frozenset(row.id for row in self.quarantined_rows if row.split == split)

    def to_json(self) -> dict[str, Any]:
        """A canonical JSON object."""
        value = asdict(self)
        value["checks"] = [{**check, "rows": list(check["rows"])} for check in value["checks"]]
        return {
            "kind": "validation",
            "schema": 1,
            **value,
            "quarantined_rows": list(value["quarantined_rows"]),
        }


def validate(snapshot: Snapshot, prior_snapshots: Sequence[Snapshot], settings: ValidationSettings) -> ValidationResult:
    """Check a task's rows, also against the rows of all earlier tasks.

    Raises:
        ValidationError: Great Expectations failed to evaluate a rule.
        ObjectMissing, ObjectCorrupt: rows of this task are gone or damaged.
    """
    before = seen_before(prior for prior in prior_snapshots if prior.digest != snapshot.digest)
    rows: dict[Split, tuple[Example, ...]] = {split: snapshot.rows(split) for split in SPLITS}
    frames = {split: split_frame(split, rows, before, snapshot.task.choices) for split in SPLITS}
    expectations = _quiet_expectations()
    checks: list[Check] = []
    for split in SPLITS:
        checks += expectations.run(split, frames[split], list(split_rules(split, settings)))
    shares = label_shares(rows["train"], snapshot.task.choices)
    if shares is not None:
        checks += expectations.run("train", shares, [balance_rule(settings)])
    quarantined = tuple(_quarantined(frames))
    statistics = _statistics(rows, snapshot, before)
    return ValidationResult(
        task=snapshot.digest,
        name=snapshot.task.label,
        verdict=_verdict(checks, quarantined),
        checks=tuple(checks),
        quarantined_rows=quarantined,
        statistics=statistics,
    )


def to_html(result: ValidationResult) -> str:
    """A small self-contained page for people."""
    failed = [check for check in result.checks if not check.success]
    words = [_summary(result, failed)]
    note = "Per split: in how many rows a rule does not hold, and the first of them."
    checks = PageTable("Checks", ("rule", "expected", *SPLITS), _check_rows(result.checks), note)
    aside = PageTable(
        "Rows set aside",
        ("split", "row", "why"),
        [PageRow((row.split, str(row.row), row.reason)) for row in result.quarantined_rows[:100]],
        f"{len(result.quarantined_rows)} rows are neither trained on nor judged by.",
    )
    numbers = PageTable(
        "Numbers",
        ("what", "value"),
        [PageRow((key.replace("_", " "), _words(value))) for key, value in result.statistics.items()],
    )
    tables = [checks, aside, numbers] if result.quarantined_rows else [checks, numbers]
    return verdict_page(f"Data checks of {result.name}", result.verdict, words, tables)


class _Expectations:
    """One ephemeral Great Expectations context."""

    def __init__(self, context: Any) -> None:  # noqa: ANN401  (the library is untyped here)
        self._source = context.data_sources.add_pandas("rows")

    def run(self, split: str, frame: "pd.DataFrame", rules: Sequence[Rule]) -> list[Check]:
        """Evaluate rules on a frame; checks come in the order of the rules."""
        import great_expectations as gx

        name = f"{split}-{len(self._source.assets)}"
        definition = self._source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        batch = definition.get_batch(batch_parameters={"dataframe": frame})
        for index, rule in enumerate(rules):
            rule.expectation.meta = {"rule": index}
        suite = gx.ExpectationSuite(name=name, expectations=[rule.expectation for rule in rules])
        outcome = batch.validate(
            suite,
            result_format={
                "result_format": "SUMMARY",
                "unexpected_index_column_names": ["row"],
                "partial_unexpected_count": MAX_ROWS_SHOWN,
            },
        ).to_json_dict()
        found = {entry["expectation_config"]["meta"]["rule"]: entry for entry in outcome["results"]}
        return [_check(split, rule, found[index]) for index, rule in enumerate(rules)]


def _quiet_expectations() -> _Expectations:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    _hush()
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    _hush()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    context.variables.analytics_enabled = False
    return _Expectations(context)


def _hush() -> None:
    """Before the import, which logs some 200 lines, and after it, as one module sets its own level."""
    for name in ("great_expectations", "great_expectations.data_context.types.base"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _check(split: str, rule: Rule, entry: dict[str, Any]) -> Check:
    exception = entry["exception_info"]
    if exception.get("raised_exception", True):
        inner = exception.values() if "raised_exception" not in exception else [exception]
        reasons = "; ".join(str(each["exception_message"]) for each in inner)
        raise ValidationError(
            f"Great Expectations could not evaluate {rule.name} on {split}: {reasons}; "
            "run `make test` to see whether the installed version fits"
        )
    result = entry["result"]
    if "observed_value" in result:
        observed = result["observed_value"]
        seen = f"{observed} rows" if isinstance(observed, int) else "all present" if entry["success"] else "others"
        return Check(rule.name, split, rule.severity, entry["success"], seen, rule.expected)
    places = result.get("partial_unexpected_index_list") or []
    rows = tuple(item["row"] for item in places[:MAX_ROWS_SHOWN])
    seen = f"{result['unexpected_count']} of {result['element_count']}"
    return Check(rule.name, split, rule.severity, entry["success"], seen, rule.expected, rows[:MAX_ROWS_SHOWN])


def _quarantined(frames: "dict[Split, pd.DataFrame]") -> Iterator[Quarantined]:
    for split, frame in frames.items():
        for row, row_id, leak in zip(frame["row"], frame["id"], frame["leak"], strict=True):
            if leak:
                yield Quarantined(split, int(row), row_id, f"the same question is in {leak}")


def _verdict(checks: Sequence[Check], quarantined: Sequence[Quarantined]) -> Verdict:
    failed = {check.severity for check in checks if not check.success}
    if "hard" in failed:
        return "refuse"
    return "warn" if failed or quarantined else "pass"


def _statistics(rows: dict[Split, tuple[Example, ...]], snapshot: Snapshot, before: SeenBefore) -> dict[str, Any]:
    train = rows["train"]
    statistics: dict[str, Any] = {
        "rows": {split: len(examples) for split, examples in rows.items()},
        "instructions": len({example.instruction for example in train}),
        "median_input_characters": median(len(example.input or "") for example in train) if train else 0,
        "median_output_characters": median(len(example.output) for example in train) if train else 0,
        "longest_output_characters": max((len(example.output) for example in train), default=0),
        "distinct_outputs": len({example.output for example in train}),
    }
    if snapshot.task.choices is not None:
        statistics["labels"] = dict(sorted(Counter(example.output for example in train).items()))
    if before.unknown:
        statistics["leaks_not_checkable"] = list(before.unknown)
    return statistics


def _check_rows(checks: Sequence[Check]) -> list[PageRow]:
    """One row per rule with a cell per split, the broken ones first."""
    rules: dict[str, list[Check]] = {}
    for check in checks:
        rules.setdefault(check.name, []).append(check)
    rows = []
    for name, found in rules.items():
        failed = {check.severity for check in found if not check.success}
        mark = "bad" if "hard" in failed else "doubt" if failed else "good"
        expected = "; ".join(dict.fromkeys(check.expected for check in found))
        cells = {check.split: _cell(check) for check in found}
        title = f"{name.replace('_', ' ')} ({found[0].severity})"
        rows.append(PageRow((title, expected, *(cells.get(split, "") for split in SPLITS)), mark))
    return sorted(rows, key=lambda row: ("bad", "doubt", "good").index(row.mark))


def _cell(check: Check) -> str:
    places = f": row {', '.join(map(str, check.rows))}" if check.rows else ""
    return f"{check.seen}{places}"


def _summary(result: ValidationResult, failed: Sequence[Check]) -> str:
    hard = sum(check.severity == "hard" for check in failed)
    soft = len(failed) - hard
    if result.verdict == "pass":
        return f"All {len(result.checks)} checks hold."
    parts = [f"{hard} hard and {soft} soft of {len(result.checks)} checks do not hold."]
    if hard:
        parts.append("A hard rule refuses the task: mend the rows and submit it as a new version.")
    if result.quarantined_rows:
        parts.append(f"{len(result.quarantined_rows)} rows are set aside.")
    return " ".join(parts)


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
