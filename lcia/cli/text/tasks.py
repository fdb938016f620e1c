"""Texts of the verbs that plan, submit and learn tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from lcia.cli.text.decisions import delivery

Value = Mapping[str, Any]


def power(value: Value) -> str:
    """Probability that a policy passes a harmless candidate; printed when the policy is loaded."""
    rows = ", ".join(f"{task['name']} {task['test_rows']} test rows" for task in value["tasks"])
    line = f"policy: {value['words']} (group {value['group']}: {rows})"
    if value["enough"]:
        return line
    need = "no number of test rows" if value["rows_needed"] is None else f"{value['rows_needed']} test rows a task"
    return f"WARNING: {line} {need} would do."


def plan(value: Value) -> str:
    """`lcia plan`: the assessment, what it would cost, and whether the test split is large enough."""
    checks, drift, estimate = value["validation"], value["drift"], value["estimate"]
    reasons = {*value["reasons"]}
    work = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in estimate.items())
    lines = [
        f"{value['name']}@{value['version']}: {value['verdict']} (nothing was queued or changed)",
        *(f"  {reason}" for reason in value["reasons"]),
        *(f"  {omission(one)}" for one in value["not_checked"]),
        *([f"  cut from its training rows: {' and '.join(value['cut'])}"] if value["cut"] else []),
        *(f"  {remark}" for remark in value["remarks"]),
        *_answer_limit(value["answer_limit"]),
        f"  data checks: {checks['verdict']}",
        *(f"    {reason}" for reason in checks["reasons"] if reason not in reasons),
        f"  drift: {drift['verdict']}",
        *([f"  grouping: {value['grouping']['words']}"] if value["grouping"]["words"] not in reasons else []),
        f"  work: {work}",
        *(f"  {remark}" for remark in value["length"]["remarks"]),
        f"  estimate: {cost(value['cost'])} (from {value['cost']['basis']})",
    ]
    now, later = value["gate"]["now"], value["gate"]["later"]
    lines.append(f"  gate now: {now['words']}" if now else "  gate now: no prior task would change")
    lines += _attempt(value["gate"])
    if later is None:
        return "\n".join([*lines, "  gate later: keeps no evaluation rows, so its forgetting will not be measurable"])
    share = f"passes the forgetting rules with probability {later['pass_probability']:.2f}"
    lines.append(f"  gate later: with {later['test_rows']} test rows a harmless candidate that changes it {share}")
    if not later["enough"]:
        each = "" if later["tasks"] == 1 else f" each, for all {later['tasks']} tasks of its group"
        need = (
            f"{later['rows_needed']} test rows{each} would do" if later["rows_needed"] else "no number of rows would do"
        )
        lines.append(f"  WARNING: the test split is too small for this policy; {need}")
    return "\n".join(lines)


def _attempt(gate: Value) -> list[str]:
    """Line about the number of this attempt, if there were earlier ones; the gate refuses those beyond the limit."""
    number, limit = gate["attempt"], gate["attempts_allowed"]
    if number == 1:
        return []
    consequence = "" if number <= limit else f"; the gate allows {limit}, so it would fail"
    return [f"  gate now: attempt {number} at a task of this name and owner, tested more strictly{consequence}"]


def omission(value: Value) -> str:
    """Sentence about a check that was not made, with its reason."""
    return f"not checked: {value['check'].replace('_', ' ')}: {value['reason']}"


def _answer_limit(value: Value) -> list[str]:
    """Line about the limit of an answer, if `task.yaml` leaves it to the references."""
    if not value["derived"]:
        return []
    why = "from the longest answer, as task.yaml names no decoding.max_new_tokens"
    return [f"  answers: at most {value['max_new_tokens']} new tokens ({why})"]


def cost(value: Value) -> str:
    """Time and money of a run, estimated or measured."""
    gpu = f", {value['gpu_hours']:.2f} GPU-hours" if value["gpu_hours"] else ""
    money = f", {value['money']:.3g} {value['currency']}" if value["money"] is not None else ""
    return f"{value['seconds']:.0f} seconds, {value['cpu_hours']:.2f} CPU-hours{gpu}{money}"


def submission(value: Value) -> str:
    """`lcia submit`."""
    if value["known"]:
        where = f"task {value['id']}, {value['state']}: {value['reason']}"
        return f"{value['name']}@{value['version']} is known already ({where}); nothing was added."
    cut = f"It has no rows for {' and '.join(value['cut'])}; they were cut from its training rows, by row."
    return "\n".join(
        [
            f"{value['name']}@{value['version']} is in the queue as task {value['id']}; `lcia work` works on it.",
            *([cut] if value["cut"] else []),
            *value["remarks"],
        ]
    )


def package(value: Value) -> str:
    """`lcia import`: the package, the files it was made from, and everything that was changed or left out."""
    rows = ", ".join(f"{count} {split} rows" for split, count in value["rows"].items())
    cut = f"; {' and '.join(value['cut'])} will be cut from train" if value["cut"] else ""
    return "\n".join(
        [
            f"{value['task']} in {value['folder']}: {rows}{cut}",
            *(f"  {split}: {', '.join(files)}" for split, files in value["files"].items()),
            *([f"  not read: {', '.join(value['not_read'])}"] if value["not_read"] else []),
            *(f"  {remark}" for remark in value["remarks"]),
            f"Look at its task.yaml, then `lcia plan {value['folder']}`",
        ]
    )


def outcomes(value: Value | Sequence[Value]) -> str:
    """`lcia run` and `lcia work`: one line per task."""
    lines = []
    for one in [value] if isinstance(value, Mapping) else value:
        lines.append(f"{one['name']}@{one['version']}: {one['state']}; {one['reason']}")
        lines += delivery(one) if one.get("registry_untold") or one["state"] == "promoted" else []
    return "\n".join(lines)


def requeue(value: Value) -> str:
    """`lcia retry`, `lcia release` and `lcia regroup`."""
    return f"{value['name']}@{value['version']} is in the queue again; `lcia work` goes on with it."


def rebase(value: Value) -> str:
    """`lcia rebase`."""
    lines = [f"version {value['number']} ({value['digest'][:12]}): learnt again {', '.join(value['learnt'])}"]
    lines += [f"  not learnt again: {name}; {why}" for name, why in value["lost"].items()]
    if value["superseded"]:
        lines.append(f"  replaced by other tasks, so left out: {', '.join(value['superseded'])}")
    lines.append(f"  gate {value['verdict']}; `lcia show {value['number']}` compares it with the champion task by task")
    return "\n".join(lines)
