"""Text of the verb `doctor`."""

from collections.abc import Mapping
from typing import Any

Value = Mapping[str, Any]


def findings(value: Value) -> str:
    """`lcia doctor`: a line per finding, with advice below it."""
    lines = []
    for one in value["findings"]:
        lines.append(f"{one['verdict']:<8} {one['check']:<12} {one['words']}")
        if one["advice"]:
            lines.append(f"{'':<21} -> {one['advice']}")
    counts = value["counts"]
    return "\n".join([*lines, f"{counts['ok']} ok, {counts['warning']} warnings, {counts['problem']} problems"])
