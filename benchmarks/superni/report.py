"""The table of a results file: AP, forgetting, BWT and New of each method with 95 % intervals, and what went on."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.superni.methods import METHODS
from benchmarks.superni.scores import difference, figures
from components.proportions import Interval

Line = dict[str, Any]
PUBLISHED = (("GainLoRA (T5-large)", 47.84, 2.26), ("O-LoRA (T5-large)", 26.37, 19.15))
"""AP and forgetting as published for orders 1 and 2: another model, all rows, for the ordering only."""
COLUMNS = (("AP", "avg_acc"), ("forgetting", "forgetting"), ("BWT", "bwt"), ("New", "new_acc"))
AGAINST = ("per_task", "replay_10")


def read(file: Path, keys: Iterable[str] | None = None) -> list[Line]:
    """Lines of a results file, or those with these keys in that order."""
    lines = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    by_key = {line["key"]: line for line in lines}
    return list(by_key.values()) if keys is None else [by_key[key] for key in keys if key in by_key]


def table(lines: Sequence[Line]) -> str:
    """Markdown, points of 100; differences are paired over the test rows, for methods that learnt the same tasks."""
    head = ["method", *(name for name, _ in COLUMNS), *(f"AP less {name}" for name in AGAINST)]
    head += ["tasks", "row visits", "adapters", "CPU min"]
    rows = [head, ["---"] * len(head)]
    rows += [_row(line, {other["method"]: other for other in lines}) for line in lines]
    rows += [[name, f"{ap}", f"{lost}", *[""] * (len(head) - 3)] for name, ap, lost in PUBLISHED]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(line: Line, by_method: dict[str, Line]) -> list[str]:
    matrix, is_joint = figures(line), line["method"] == "joint"
    cells = [
        "" if is_joint and name != "avg_acc" else points(matrix.intervals.get(name), getattr(matrix, name))
        for _, name in COLUMNS
    ]
    for name in AGAINST:
        other = by_method.get(name)
        same = other is not None and other is not line and set(other["tasks"]) == set(line["tasks"])
        cells.append(points(_gain(line, other), signed=True) if other and same else "")
    label = f"{line['method']}: {METHODS[line['method']].words}" if line["method"] in METHODS else line["method"]
    counts = [f"{len(line['tasks'])} of {line['planned']}", str(line["visits"]), str(line["adapters"])]
    return [label, *cells, *counts, f"{line['cpu_seconds'] / 60:.1f}"]


def _gain(line: Line, other: Line) -> Interval:
    final = dict(zip(other["tasks"], other["scores"][-1], strict=True))
    return difference(line["tasks"], [final[name] for name in line["tasks"]], line["scores"][-1])


def points(interval: Interval | None, value: float | None = None, *, signed: bool = False) -> str:
    """A figure in points of 100, with its interval if there is one."""
    value = interval.value if interval else value
    if value is None:
        return ""
    sign = "+" if signed else ""
    text = f"{100 * value:{sign}.1f}"
    return f"{text} [{100 * interval.low:{sign}.1f}, {100 * interval.high:{sign}.1f}]" if interval else text


def events(line: Line) -> list[str]:
    """Sentences on what a table can't show: verdicts, answers of the second person, rows set aside, refusals."""
    facts, name = line["facts"], line["method"]
    verdicts = Counter(one["verdict"] for one in facts if "verdict" in one)
    sentences = [f"{name}: gate " + ", ".join(f"{verdict} {n}" for verdict, n in verdicts.items())] if verdicts else []
    for one in facts:
        label = f"{name}, {one['task']}"
        sentences += [f"{label}: {answer}" for answer in one["answers"]]
        sentences += [f"{label}: {rows} rows set aside ({why})" for why, rows in one.get("set_aside", {}).items()]
        if one["state"] != "promoted":
            sentences.append(f"{label}: {one['state']}, {one['reason']}")
    return sentences
