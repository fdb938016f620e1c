"""Texts of the verbs that show versions."""

from collections.abc import Mapping
from typing import Any

from components.names import version_deed
from lcia.cli.text import trials
from lcia.cli.text.status import quorum, void
from lcia.cli.text.tasks import cost

Value = Mapping[str, Any]

ERASED = "erased"
"""Stands for a record that a withdrawal or retention erased."""


def matrix(value: Value) -> str:
    """`lcia matrix`: a row per version, a column per task, then the summary with 95 % intervals."""
    tasks = value["tasks"]
    width = max([8, *map(len, tasks)])
    lines = ["after learning".ljust(width + 2) + "".join(name.rjust(width + 2) for name in tasks)]
    for number, (name, row) in enumerate(zip(tasks, value["matrix"], strict=True), 1):
        cells = ["n/a" if cell is None else f"{cell:.3f}" for cell in row[:number]]
        lines.append(name.ljust(width + 2) + "".join(cell.rjust(width + 2) for cell in cells))
    lines.append("")
    labels = {"avg_acc": "Avg.ACC", "new_acc": "New.ACC", "forgetting": "Forgetting", "bwt": "BWT"}
    for name, label in labels.items():
        number, interval = value[name], value["intervals"].get(name)
        figure = "n/a" if number is None else f"{number:+.3f}" if name in ("bwt", "forgetting") else f"{number:.3f}"
        band = f"  95 % interval [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        floor = ""
        if name == "forgetting" and value["forgetting_floor"] is not None:
            floor = f"  (no change at all would show {value['forgetting_floor']:.3f})"
        lines.append(f"{label:<11}{figure:>8}{band}{floor}")
    if value["superseded"]:
        pairs = ", ".join(f"{old} by {new}" for old, new in value["superseded"].items())
        rest = [f"{labels[name]} {number:.3f}" for name, number in value["family"].items() if number is not None]
        lines.append(f"These are over all {len(tasks)} tasks. Replaced are {pairs}; without them: {', '.join(rest)}")
    return "\n".join(lines)


def gate(report: Value) -> str:
    """Verdict of the gate, then its rows, one per line."""
    note = "" if report["enforced"] else " (report only)"
    lines = [f"gate: {report['verdict']}{note}"]
    for row in report["rows"]:
        task = f" {row['task']}" if row["task"] else ""
        lines.append(f"  {row['verdict']:<13}{row['rule']}{task}: {row['words']}")
    return "\n".join(lines)


def flips(value: Value) -> str:
    """`lcia flips`: every changed test row, lost ones first."""
    lines = []
    for one in sorted(value["flips"], key=lambda flip: flip["score_after"] - flip["score_before"]):
        lines += [
            f"{'lost' if one['score_after'] < one['score_before'] else 'won '} {one['task']} {one['row'][:12]}",
            *(f"  | {line}" for line in one["prompt"].splitlines()),
            *(f"    image {n} of {len(one['images'])}: {name[:12]}" for n, name in enumerate(one["images"], start=1)),
            f"    expected {one['expected']!r}, before {one['before']!r}, after {one['after']!r}",
        ]
    rest = f"; {value['held_back']} more in the unopened reserve" if value["held_back"] else ""
    rest += f"; {value['other_sites']} more of tasks of other sites" if value.get("other_sites") else ""
    return "\n".join([*lines, f"{len(value['flips'])} test rows changed{rest}; this look is in the log"])


def show(value: Value) -> str:
    """`lcia show`."""
    version = value["version"]
    parent = version["parent"][:12] if version["parent"] else "the base model"
    label = f"version {version['number']} ({version['digest'][:12]})"
    lines = [
        f"{label} {version_deed(version['task_name'])} on {parent}: {version['state']}",
        f"  submitted by {version['submitted_by']}, launched by {version['launched_by']}, attempt {version['attempt']}",
        f"  marks: {', '.join(version['marks']) or 'none'}",
        *_before(value),
        *_contents(value),
        f"  {value['predictions']['made']} predictions made, {value['predictions']['carried_over']} carried over",
        *_carry_over(value),
        *([f"  pseudo-labels: {value['pseudo_labels']['words']}"] if value["pseudo_labels"] else []),
        *_run_cost(value["cost"]),
        gate(value["gate"]),
    ]
    if value["judged"]["again"]:
        verdict = value["judged"]["verdict"] or "nothing"
        lines.append(f"  under the present policy the gate says {verdict}: {value['judged']['words']}")
    changes = value.get("changed")  # a server of an earlier release says less
    if changes:
        counts = f"{changes['lost']} lost and {changes['won']} won of {changes['rows']}"
        lines.append(f"  changed answers: {counts} test rows of earlier tasks")
    lines += [f"  {line}" for one in value.get("trials", ()) for line in trials.trial(one)]
    lines += [f"  {quorum(site)}" for site in value.get("decision", {}).get("quorum", ())]
    lines += [f"  approved by {one['person']}: {one['reason']}" for one in value["approvals"]]
    lines += [f"  {void(one)}" for one in value["not_counted"]]
    lines.append(f"  evidence {value['evidence']['digest']}")
    return "\n".join(lines)


def _before(value: Value) -> list[str]:
    """Lines about the version that this one carries over, and the one that people have to decide about first."""
    lines, behind = [], value["decision"].get("behind")
    if behind is not None:
        lines.append(f"  it stands on version {behind}, which waits for people; it becomes the champion after that one")
    before = value.get("carries_over")
    if before is None:
        return lines
    lines.append(
        f"  it carries version {before['number']} over ({before['why']}); approvals of that one don't count here"
    )
    if before["nothing_new"]:
        return [*lines, f"    nothing that people read there is new: the same answers on {before['rows']} test rows"]
    verdict = "" if before["same_verdict"] else f", and the gate said {before['verdict']} there"
    counts = f"{before['differing']} of {before['rows']} test rows have another answer than there{verdict}"
    return [*lines, f"    {counts}; `lcia diff {before['number']} {value['version']['number']}`"]


def _contents(value: Value) -> list[str]:
    """Lines about what the version learnt, or changed without learning."""
    if value["tuning"]:
        return _learning(value)
    reversal = value.get("reversal")
    if reversal is None:
        return _wordings(value["wordings"])
    again = ", ".join(reversal["learnt_again"])
    losses = [f"    not learnt again: {name}; {why}" for name, why in reversal["lost"].items()]
    return [f"  learnt again without it: {again}" if again else "  nothing was tuned", *losses]


def _learning(value: Value) -> list[str]:
    """Lines about what was learnt, and how."""
    tuning = value["tuning"]
    return [
        *_other_base(value["rebase"]),
        f"  grouping: {value['grouping']['words'] if value['grouping'] else ERASED}",
        f"  validation {value['validation'] or ERASED}, drift {value['drift'] or ERASED}",
        f"  tuned with rule {tuning['rule']} on {tuning['rows']} rows, {tuning['rehearsed_rows']} kept rows rehearsed",
        f"  point {value['chosen']['reason']}",
    ]


def _wordings(change: Value | None) -> list[str]:
    """Lines about a change of wordings."""
    if change is None:
        return [f"  wordings: {ERASED}"]
    lines = [f"  new wording: {text}" for text in change["add"]]
    return ["  nothing was tuned", *lines, *(f"  wording taken away: {text}" for text in change["remove"])]


def _other_base(rebase: Value | None) -> list[str]:
    """Lines about a version on another base model: tasks learnt again, and tasks that could not be."""
    if rebase is None:
        return []
    losses = [f"    not learnt again: {name}; {why}" for name, why in rebase["lost"].items()]
    return [
        f"  learnt {len(rebase['links'])} tasks again on another base model; what follows is about the last",
        *losses,
    ]


def _carry_over(value: Value) -> list[str]:
    """Lines about the versions that carried predictions come from, and the rows that go to another group now."""
    lines = []
    for name, proof in value["proofs"].items():
        total = sum(proof["from"].values())
        if total:
            sources = ", ".join(f"{rows} in {digest[:12]}" for digest, rows in proof["from"].items())
            lines.append(f"    {name}: {total} of {proof['rows']} rows proved unchanged ({sources})")
    for name, moves in value["rerouted"].items():
        routes = ", ".join(f"{m['rows']} from {m['from'] or 'none'} to {m['to'] or 'none'}" for m in moves)
        lines.append(f"    {name}: rows that go to another group now: {routes}")
    return lines if value["rerouted"] else [*lines, "    no row of a prior task goes to another group"]


def _run_cost(value: Value | None) -> list[str]:
    """Line with the measured and the estimated cost of the run that made a version."""
    if value is None:
        return []
    return [f"  took {cost(value['actual'])}; estimated {cost(value['estimate'])} (from {value['estimate']['basis']})"]


def export(value: Value) -> str:
    """`lcia export`."""
    lines = [f"version {value['version']} ({value['digest'][:12]}) in {value['folder']}"]
    lines += [f"  adapters/{group}: {', '.join(tasks)}" for group, tasks in value["adapters"].items()]
    base = value["base_model"]
    note = " (not there yet: `lcia ask` converts the embedded model)" if base["absent"] else ""
    lines.append(f"  base model: {base['name']}{note}")
    lines += ["serve it with:", f"  {value['vllm']}"]
    if not value["vllm"].startswith("vllm"):  # it can't serve this version
        return "\n".join(lines)
    lines += ["and ask it over /v1/chat/completions, temperature 0, with"]
    if value["system"]:
        lines.append(f"  a system message: {value['system']}")
    lines.append("  a user message: the instruction, then the input on a line of its own")
    lines += [f"  {_request(each)}" for each in value["requests"]]
    return "\n".join([*lines, CONTROL_TOKENS])


CONTROL_TOKENS = (
    "vLLM reads a control token that a message spells, such as <|im_end|>, as that token; `lcia ask` and the MLflow "
    "model read it as text. Take such strings out of messages from people you don't trust."
)


def _request(value: Value) -> str:
    """Line with the fields of a chat request for a task."""
    about = f"for {value['task']}" if value["task"] else "else"
    model = f"model {value['model']}" if value["model"] else "the base model's name"
    if "max_tokens" in value:
        return f"{about}: {model}, max_tokens {value['max_tokens']}"
    return f"{about}: {model}; the answer is the likeliest of the task's choices, which no chat request can ask for"


def answer(value: Value) -> str:
    """`lcia ask`."""
    if value["version"] is None:
        return f"{value['answer']}\n  (base model alone)"
    if value["group"] is None:
        return f"{value['answer']}\n  (version {value['version']}: no group is near enough, the base model answered)"
    return (
        f"{value['answer']}\n  (version {value['version']}, group {value['group']}, nearest task "
        f"{value['nearest_task']}, similarity {value['similarity']:.2f})"
    )


def route(value: Value) -> str:
    """`lcia route`."""
    if value["ask"]:
        head = f"unsure: {' or '.join(value['ask'])}"
    else:
        head = f"{value['task']} (group {value['group']})" if value["group"] else "none: the base model answers"
    lines = [head, f"  {value['why']}"]
    if value["runner_up"]:
        lines.append(
            f"  next nearest of another group: {value['runner_up']['task']}, {value['runner_up']['score']:.3f}"
        )
    if value["version"] is not None:
        lines.append(f"  version {value['version']}")
    return "\n".join(lines)


def reevaluation(value: Value) -> str:
    """`lcia reevaluate`: the rows that differ, one per line."""
    mismatches = value["mismatches"]
    ties = sum(each["near_tie"] for each in mismatches)
    head = (
        f"Version {value['version']}: {value['rows']} rows of {value['tasks']} tasks predicted again, "
        f"{value['carried']} of them carried over; {len(mismatches)} differ, {ties} of them near ties."
    )
    rows = (
        f"  {each['task']} row {each['row'][:12]}: {each['what']} {each['before']!r} stored, {each['again']!r} now, "
        f"top-2 gaps {each['gaps'][0]:.3g} and {each['gaps'][1]:.3g}{', near tie' if each['near_tie'] else ''}"
        for each in mismatches
    )
    return "\n".join([head, *rows])
