"""What the command line says, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

Value = Mapping[str, Any]

QUIET = frozenset({"promoted", "rejected", "refused", "cancelled", "nothing_to_learn", "withdrawn"})
"""States of tasks that wait for nothing."""
LONGEST = 40
MOST_NAMES = 12
"""Tasks that `lcia status` lists, and names it puts in one line, without --all."""
ERASED = "erased"
"""Stands for a record that a withdrawal or retention erased."""


def status(value: Value, *, everything: bool = False) -> str:
    """`lcia status`: who waits for people first; of the rest only the newest, unless `everything`."""
    lines = []
    champion = value["champion"]
    if champion is None:
        lines.append(f"{value['assistant']}: no champion yet")
    else:
        served = "served by MLflow" if champion["served"] == champion["digest"] else "not served by MLflow yet"
        lines.append(
            f"{value['assistant']}: champion is version {champion['version']} ({champion['digest'][:12]}), {served}"
        )
        lines += [f"  group {group['id']}: {_names(group['tasks'], everything)}" for group in champion["groups"]]
    items = value["queue"]["items"]
    busy = [item for item in items if item["state"] not in QUIET]
    quiet = [item for item in items if item["state"] in QUIET]
    shown = quiet if everything else quiet[len(quiet) - max(0, LONGEST - len(busy)) :] if len(busy) < LONGEST else []
    waiting = busy if everything else busy[:LONGEST]
    for item in sorted([*shown, *waiting], key=lambda one: int(one["id"])):
        lines.append(f"  task {item['id']} {item['name']}@{item['version']}: {item['state']}; {item['reason']}")
    if len(shown) + len(waiting) < len(items):
        counts = ", ".join(f"{count} {state}" for state, count in value["queue"].items() if state != "items" and count)
        lines.append(
            f"  ... {len(items) - len(shown) - len(waiting)} more of {len(items)} tasks ({counts}); --all shows them"
        )
    for candidate in value["candidates"]:
        if candidate["state"] == "pending":
            lines.append(
                f"  version {candidate['number']} ({candidate['task_name']}) waits for people: gate "
                f"{candidate['verdict']}; `lcia show {candidate['number']}`"
            )
            lines += [f"    {_quorum(site)}" for site in candidate.get("quorum", ())]
            lines += [f"    {_void(one)}" for one in candidate.get("not_counted", ())]
    head = value["audit"]["head"]
    lines.append(f"  log: {value['audit']['entries']} entries, root {head[:16]}")
    return "\n".join([*lines, *_registry(value["registry"])])


def _quorum(value: Value) -> str:
    """Approvals at one site: those that count, and those that are missing."""
    names = f" ({', '.join(value['people'])})" if value["people"] else ""
    roles = f"; nobody with the role {', '.join(value['roles_missing'])} yet" if value["roles_missing"] else ""
    return f"{value['given']} of {value['needed']} approvals that count at {value['site']}{names}{roles}"


def _void(one: Value) -> str:
    return f"the yes of {one['person']} does not count: {one['why']}"


def _registry(value: Value) -> list[str]:
    """Lines about what MLflow does not know, what it refused, and a state that is not where its records say."""
    parked = value.get("parked", ())  # a server of an earlier release says less
    lines = []
    if value.get("moved"):
        lines.append(f"  this state was moved or copied from {value['moved']}; `lcia sync` corrects MLflow's records")
    if value.get("empty") and not value["pending"]:
        lines.append(
            "  MLflow's database is missing or serves nothing; `lcia sync` makes it again from what it was told"
        )
    lines += [f"  {sentence}" for sentence in value.get("links", ())]
    if value["pending"]:
        lines.append(f"  MLflow has not been told {value['pending']} change(s) yet; `lcia sync` tells it")
    for row in parked:
        what = row["kind"] if row["version"] is None else f"{row['kind']} of version {row['version']}"
        lines.append(f"    not taken ({row['attempts']} attempts): {what}: {row['error']}")
    return lines


def _names(names: Sequence[str], everything: bool) -> str:
    """Names in a line; of very many the last ones."""
    if everything or len(names) <= MOST_NAMES:
        return ", ".join(names)
    return f"{len(names)} tasks, last {', '.join(names[-MOST_NAMES:])}"


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
        shown = "n/a" if number is None else f"{number:+.3f}" if name in ("bwt", "forgetting") else f"{number:.3f}"
        band = f"  95 % interval [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        floor = ""
        if name == "forgetting" and value["forgetting_floor"] is not None:
            floor = f"  (no change at all would show {value['forgetting_floor']:.3f})"
        lines.append(f"{label:<11}{shown:>8}{band}{floor}")
    if value["superseded"]:
        told = ", ".join(f"{old} by {new}" for old, new in value["superseded"].items())
        rest = [f"{labels[name]} {number:.3f}" for name, number in value["family"].items() if number is not None]
        lines.append(f"Over all {len(tasks)} tasks, of which are replaced: {told}. Without them: {', '.join(rest)}")
    return "\n".join(lines)


def gate(report: Value) -> str:
    """The gate's rows, one a line."""
    enforced = "" if report["enforced"] else " (report only)"
    lines = [f"gate: {report['verdict']}{enforced}"]
    for row in report["rows"]:
        task = f" {row['task']}" if row["task"] else ""
        lines.append(f"  {row['verdict']:<13}{row['rule']}{task}: {row['words']}")
    return "\n".join(lines)


def power(value: Value) -> str:
    """What a policy does to a harmless candidate, said when it is loaded."""
    rows = ", ".join(f"{task['name']} {task['test_rows']} test rows" for task in value["tasks"])
    line = f"policy: {value['words']} (group {value['group']}: {rows})"
    if value["enough"]:
        return line
    need = "no number of test rows" if value["rows_needed"] is None else f"{value['rows_needed']} test rows a task"
    return f"WARNING: {line} {need} would do."


def cost(value: Value) -> str:
    """Time and money of a run, estimated or measured."""
    spent = f", {value['gpu_hours']:.2f} GPU-hours" if value["gpu_hours"] else ""
    priced = f", {value['money']:.3g} {value['currency']}" if value["money"] is not None else ""
    return f"{value['seconds']:.0f} seconds, {value['cpu_hours']:.2f} CPU-hours{spent}{priced}"


def plan(value: Value) -> str:
    """`lcia plan`: the assessment, what it would cost, and whether the test split is large enough."""
    checked, drift, estimate = value["validation"], value["drift"], value["estimate"]
    said = {*value["reasons"]}
    work = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in estimate.items())
    lines = [
        f"{value['name']}@{value['version']}: {value['verdict']} (nothing was queued or changed)",
        *(f"  {reason}" for reason in value["reasons"]),
        *(f"  {omission(one)}" for one in value["not_checked"]),
        *([f"  cut from its training rows: {' and '.join(value['cut'])}"] if value["cut"] else []),
        *(f"  {remark}" for remark in value["remarks"]),
        *_answer_limit(value["answer_limit"]),
        f"  data checks: {checked['verdict']}",
        *(f"    {reason}" for reason in checked["reasons"] if reason not in said),
        f"  drift: {drift['verdict']}",
        *([f"  grouping: {value['grouping']['words']}"] if value["grouping"]["words"] not in said else []),
        f"  work: {work}",
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
    """A line about the number of the next attempt, if there were others; the gate refuses those beyond the limit."""
    number, allowed = gate["attempt"], gate["attempts_allowed"]
    if number == 1:
        return []
    refused = "" if number <= allowed else f"; the gate allows {allowed}, so it would fail"
    return [f"  gate now: attempt {number} at a task of this name and owner, tested more strictly{refused}"]


def omission(value: Value) -> str:
    """A check that was not made, and why."""
    return f"not checked: {value['check'].replace('_', ' ')}: {value['reason']}"


def _answer_limit(value: Value) -> list[str]:
    """The limit of an answer where `task.yaml` leaves it to its references."""
    if not value["derived"]:
        return []
    why = "from the longest answer, as task.yaml names no decoding.max_new_tokens"
    return [f"  answers: at most {value['max_new_tokens']} new tokens ({why})"]


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
    hidden = f"; {value['held_back']} more in the unopened reserve" if value["held_back"] else ""
    hidden += f"; {value['other_sites']} more of tasks of other sites" if value.get("other_sites") else ""
    return "\n".join([*lines, f"{len(value['flips'])} test rows changed{hidden}; this look is in the log"])


def show(value: Value) -> str:
    """`lcia show`."""
    version = value["version"]
    parent = version["parent"][:12] if version["parent"] else "the base model"
    named = f"version {version['number']} ({version['digest'][:12]})"
    tuning = value["tuning"]
    lines = [
        f"{named} learnt {version['task_name']} on {parent}: {version['state']}",
        f"  submitted by {version['submitted_by']}, launched by {version['launched_by']}, attempt {version['attempt']}",
        f"  marks: {', '.join(version['marks']) or 'none'}",
        *_rebased(value["rebase"]),
        f"  grouping: {value['grouping']['words'] if value['grouping'] else ERASED}",
        f"  validation {value['validation'] or ERASED}, drift {value['drift'] or ERASED}",
        f"  tuned with rule {tuning['rule']} on {tuning['rows']} rows, {tuning['rehearsed_rows']} kept rows rehearsed",
        f"  point {value['chosen']['reason']}",
        f"  {value['predictions']['made']} predictions made, {value['predictions']['carried_over']} carried over",
        *_carried(value),
        *([f"  pseudo-labels: {value['pseudo_labels']['words']}"] if value["pseudo_labels"] else []),
        *_spent(value["cost"]),
        gate(value["gate"]),
    ]
    if value["judged"]["again"]:
        verdict = value["judged"]["verdict"] or "nothing"
        lines.append(f"  under the present policy the gate says {verdict}: {value['judged']['words']}")
    changed = value.get("changed")  # a server of an earlier release says less
    if changed:
        counts = f"{changed['lost']} lost and {changed['won']} won of {changed['rows']}"
        lines.append(f"  changed answers: {counts} test rows of earlier tasks")
    lines += [f"  {_quorum(site)}" for site in value.get("decision", {}).get("quorum", ())]
    lines += [f"  approved by {one['person']}: {one['reason']}" for one in value["approvals"]]
    lines += [f"  {_void(one)}" for one in value["not_counted"]]
    lines.append(f"  evidence {value['evidence']['digest']}")
    return "\n".join(lines)


def _rebased(rebase: Value | None) -> list[str]:
    """What a version on another base model was taught again."""
    if rebase is None:
        return []
    lost = [f"    not learnt again: {name}; {why}" for name, why in rebase["lost"].items()]
    return [f"  learnt {len(rebase['links'])} tasks again on another base model; what follows is about the last", *lost]


def _carried(value: Value) -> list[str]:
    """What every carried prediction rests on, and which rows now go to another group."""
    lines = []
    for name, proof in value["proofs"].items():
        carried = sum(proof["from"].values())
        if carried:
            sources = ", ".join(f"{rows} in {digest[:12]}" for digest, rows in proof["from"].items())
            lines.append(f"    {name}: {carried} of {proof['rows']} rows proved unchanged ({sources})")
    for name, moves in value["rerouted"].items():
        told = ", ".join(f"{m['rows']} from {m['from'] or 'none'} to {m['to'] or 'none'}" for m in moves)
        lines.append(f"    {name}: rows that go to another group now: {told}")
    return lines if value["rerouted"] else [*lines, "    no row of a prior task goes to another group"]


def _spent(value: Value | None) -> list[str]:
    """Estimate against actual of the run that made a version."""
    if value is None:
        return []
    return [f"  took {cost(value['actual'])}; estimated {cost(value['estimate'])} (from {value['estimate']['basis']})"]


def rebased(value: Value) -> str:
    """`lcia rebase`."""
    lines = [f"version {value['number']} ({value['digest'][:12]}): learnt again {', '.join(value['learnt'])}"]
    lines += [f"  not learnt again: {name}; {why}" for name, why in value["lost"].items()]
    if value["superseded"]:
        lines.append(f"  replaced by other tasks, so left out: {', '.join(value['superseded'])}")
    lines.append(f"  gate {value['verdict']}; `lcia show {value['number']}` compares it with the champion task by task")
    return "\n".join(lines)


def submitted(value: Value) -> str:
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


def imported(value: Value) -> str:
    """`lcia import`: the package, the files it was made from, and all that was read otherwise or left out."""
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


def outcomes(told: Value | Sequence[Value]) -> str:
    """`lcia run` and `lcia work`: a line for each task."""
    lines = []
    for one in [told] if isinstance(told, Mapping) else told:
        lines.append(f"{one['name']}@{one['version']}: {one['state']}; {one['reason']}")
        lines += delivered(one) if one.get("registry_untold") or one["state"] == "promoted" else []
    return "\n".join(lines)


def approved(value: Value) -> str:
    """`lcia approve`."""
    if value["epoch"] is None:
        return f"Version {value['version']} is approved by you; policy.approval.quorum asks for more people."
    if value["known"]:
        return f"Version {value['version']} is the champion already; nothing was changed."
    return f"Version {value['version']} is the champion (epoch {value['epoch']})."


def delivered(value: Value) -> list[str]:
    """Below what was decided: what MLflow was not told, whether it serves the champion; nothing where all is well."""
    lines = [f"  not told: {one}" for one in value.get("registry_untold", ())]
    if not value.get("served", True):
        lines.insert(0, "It is decided, but not served: MLflow does not serve the champion yet.")
    elif lines:
        lines.insert(0, "It is decided, but MLflow was not told all of it yet.")
    return [*lines, "Nothing is lost: `lcia sync` delivers it, or says what stands in the way."] if lines else []


def queued(value: Value) -> str:
    """`lcia retry`, `release` and `regroup`."""
    return f"{value['name']}@{value['version']} is in the queue again; `lcia work` goes on with it."


def exported(value: Value) -> str:
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
    """Lines about the fields of a chat request for a task."""
    about = f"for {value['task']}" if value["task"] else "else"
    model = f"model {value['model']}" if value["model"] else "the base model's name"
    if "max_tokens" in value:
        return f"{about}: {model}, max_tokens {value['max_tokens']}"
    return f"{about}: {model}; the answer is the likeliest of the task's choices, which no chat request gives"


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


def reevaluation(value: Value) -> str:
    """`lcia reevaluate`: the rows that differ, one a line."""
    found = value["mismatches"]
    ties = sum(each["near_tie"] for each in found)
    head = (
        f"Version {value['version']}: {value['rows']} rows of {value['tasks']} tasks predicted again, "
        f"{value['carried']} of them carried over; {len(found)} differ, {ties} of them near ties."
    )
    rows = (
        f"  {each['task']} row {each['row'][:12]}: {each['what']} {each['before']!r} stored, {each['again']!r} now, "
        f"top-2 gaps {each['gaps'][0]:.3g} and {each['gaps'][1]:.3g}{', near tie' if each['near_tie'] else ''}"
        for each in found
    )
    return "\n".join([head, *rows])
