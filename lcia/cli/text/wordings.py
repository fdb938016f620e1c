"""Texts of `lcia wordings`."""

from typing import Any

Value = dict[str, Any]


def tasks(value: Value) -> str:
    """`lcia wordings`."""
    if not value["tasks"]:
        return "No task is learnt yet."
    lines = []
    for task in value["tasks"]:
        lines.append(f"{task['label']} ({task['owner']}): {len(task['instructions'])} instructions of its rows, and")
        lines += [f"  {text}" for text in task["wordings"]]
        mine = [one for one in value["proposals"] if one["label"] == task["label"]]
        lines += [f"  proposed {one['id']}: {one['text']} ({_origin(one)})" for one in mine]
    if value["proposals"]:
        lines.append("`lcia wordings accept N ...` takes proposals, `lcia wordings decline N ...` ends them.")
    return "\n".join(lines)


def _origin(proposal: Value) -> str:
    times = f", {proposal['times']} times" if proposal["times"] > 1 else ""
    return ("by a model" if proposal["source"] == "model" else "somebody asked so, and no task answered") + times


def change(value: Value) -> str:
    """`lcia wordings add` and `remove`."""
    return f"{value['name']}@{value['version']} is item {value['id']}, {value['state']}: `lcia work` makes a candidate."


def proposals(value: Value) -> str:
    """`lcia wordings propose`."""
    lines = [f"{value['new']} new wordings of {value['task']} wait for people: `lcia wordings --task {value['task']}`"]
    lines += [f"  {text}" for text in value["texts"]]
    if value["elsewhere"]:
        lines.append(f"{value['elsewhere']} more were nearer to another task and left out.")
    return "\n".join(lines)


def answers(value: Value) -> str:
    """`lcia wordings accept` and `decline`."""
    return "\n".join(map(change, value["items"])) or f"{len(value['declined'])} declined."
