"""The gate's report: its rows, and stored reports of every release in their present form.

`GateRow` has a field for all that code asks of a row; `words` are for people. Rows of earlier releases say some of it
in their words alone, so these are read here, in `present_form`, and nowhere else: every reader of a stored report
goes through it.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, Self

from components.gate.power import Power

Verdict = Literal["pass", "fail", "inconclusive"]
RowVerdict = Literal["pass", "fail", "inconclusive", "info"]


@dataclass(frozen=True)
class GateRow:
    """One rule's result; `value`, the one-sided bounds `low` and `high`, and `limit` are fractions."""

    rule: str
    task: str | None
    verdict: RowVerdict
    value: float | None
    low: float | None
    high: float | None
    limit: float | None
    words: str
    """One sentence for people. No code reads it."""
    look: int = 1
    """2 if the reserve was opened for it."""
    group: str | None = None
    """Rule `pooled`: the group of the prior tasks compared together."""
    anchor_look: int | None = None
    """Rule `lifetime`: number, from 1, of this candidate among those compared with the task's anchor."""
    superseded_by: str | None = None
    """Rule `superseded`: `name@version` of the task that replaces it."""
    assessment: str | None = None
    """Rules `validation` and `drift`: the verdict of that check of the new task, in the check's own terms."""


@dataclass(frozen=True)
class GateReport:
    """The verdict and its rows."""

    verdict: Verdict
    attempt: int
    alpha: float
    enforced: bool
    rows: tuple[GateRow, ...]
    power: Power

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, finite numbers only."""
        return {"kind": "gate", "schema": 1, **asdict(self), "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read back `to_json`, of this release or an earlier one."""
        return cls(
            verdict=value["verdict"],
            attempt=value["attempt"],
            alpha=value["alpha"],
            enforced=value["enforced"],
            rows=tuple(GateRow(**row) for row in present_form(value)["rows"]),
            power=Power(**value["power"]),
        )


_LATER = {field.name: field.default for field in fields(GateRow) if field.default is not MISSING}
"""Fields that rows of earlier releases lack, with what they then mean."""
_IN_WORDS = {
    "pooled": ("group", re.compile(r"(?:^|; )group (\S+), \d+ prior tasks: ")),
    "superseded": ("superseded_by", re.compile(r"^(?:replaced by )+(.+?), not protected; ")),
    "validation": ("assessment", re.compile(r"^data checks: (\w+)")),
    "drift": ("assessment", re.compile(r"^drift: (\w+)")),
}
"""Rule -> a field that its row lacks in earlier releases, and the words that say it."""
_ANCHOR_LOOK = re.compile(r"(?:^|; )look (\d+) at its anchor: ")
"""Words of rule `lifetime`, from the second look on."""


def present_form(report: Mapping[str, Any]) -> dict[str, Any]:
    """A stored report whose rows have every field of `GateRow`, from any release."""
    return {**report, "rows": [_present_row(row) for row in report.get("rows", ())]}


def _present_row(row: Mapping[str, Any]) -> dict[str, Any]:
    fields_in_words: dict[str, Any] = {}
    rule, words = row["rule"], row.get("words", "")
    if rule == "lifetime":
        match = _ANCHOR_LOOK.search(words)
        fields_in_words["anchor_look"] = int(match[1]) if match else 1
    elif rule in _IN_WORDS:
        name, pattern = _IN_WORDS[rule]
        match = pattern.search(words)
        fields_in_words[name] = match[1] if match else None
    return {**_LATER, **fields_in_words, **row}
