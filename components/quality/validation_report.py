"""Page of a validation result for people: rules with a cell per split, rows set aside, numbers."""

from collections.abc import Sequence

from components.pages import PageRow, PageTable, verdict_page
from components.quality.rules import SUITE, SUITE_VERSION
from components.quality.validation import Check, ValidationResult
from components.tasks.task_file import SPLITS


def validation_html(result: ValidationResult) -> str:
    """A small self-contained page for people."""
    faults = [check for check in result.checks if not check.success]
    words = [_summary(result, faults)]
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
    words += [f"{str(omission)[:1].upper()}{str(omission)[1:]}." for omission in result.not_checked]
    words.append(f"Rules: {SUITE} version {SUITE_VERSION}.")
    tables = [checks, aside, numbers] if result.quarantined_rows else [checks, numbers]
    return verdict_page(f"Data checks of {result.name}", result.verdict, words, tables)


def _check_rows(checks: Sequence[Check]) -> list[PageRow]:
    """One row per rule with a cell per split, the broken ones first."""
    rules: dict[str, list[Check]] = {}
    for check in checks:
        rules.setdefault(check.name, []).append(check)
    rows = []
    for name, of_rule in rules.items():
        severities = {check.severity for check in of_rule if not check.success}
        mark = "bad" if "hard" in severities else "doubt" if severities else "good"
        rule = "; ".join(dict.fromkeys(check.expected for check in of_rule))
        cells = {check.split: _cell(check) for check in of_rule}
        title = f"{name.replace('_', ' ')} ({of_rule[0].severity})"
        rows.append(PageRow((title, rule, *(cells.get(split, "") for split in SPLITS)), mark))
    return sorted(rows, key=lambda row: ("bad", "doubt", "good").index(row.mark))


def _cell(check: Check) -> str:
    if not check.rows:
        return check.seen
    findings = check.found or ("",) * len(check.rows)
    places = [f"{row} ({what})" if what else str(row) for row, what in zip(check.rows, findings, strict=True)]
    return f"{check.seen}: row {', '.join(places)}"


def _summary(result: ValidationResult, faults: Sequence[Check]) -> str:
    hard = sum(check.severity == "hard" for check in faults)
    soft = len(faults) - hard
    if result.verdict == "pass":
        return f"All {len(result.checks)} checks{' that were made' if result.not_checked else ''} hold."
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
