"""Texts of the verbs `retention`, `sweep` and `withdraw`."""

from collections.abc import Mapping
from typing import Any

Value = Mapping[str, Any]


def retention(value: Value) -> str:
    """`lcia retention` and `lcia sweep`: what goes and why, then what stays and why."""
    deleting = value["swept"]
    verb = "deleted" if deleting else "would go"
    texts, objects, stay, files = value["erased"], value["dropped"], value["kept"], value["leftovers"]["files"]
    lines = []
    for part, what in ((texts, "texts that may not be kept"), (objects, "objects that nothing needs")):
        lines.append(f"{part['objects']} {what} {verb} ({size(part['bytes'])})")
        lines += [f"  {why}: {count}" for why, count in _reasons(value, texts=part is texts)]
    reports = value["quarantine"]
    lines.append(f"{files} checkpoint or half-written files {verb} ({size(value['leftovers']['bytes'])})")
    lines.append(f"{reports} old quarantine reports and {value['results']} cached results {verb}")
    if value["registry"]:
        numbers = ", ".join(map(str, value["registry"]))
        lines.append(f"files of version(s) {numbers} {'are deleted' if deleting else 'would go'} in MLflow")
    lines.append(f"{stay['objects']} objects stay ({size(stay['bytes'])})")
    lines += [f"  {one['why']}: {one['objects']} ({size(one['bytes'])})" for one in stay["why"]]
    lines += _still_there(value) if deleting else []
    if not deleting and (texts["objects"] or objects["objects"] or files or reports):
        lines.append("Nothing was deleted; `lcia sweep` deletes it.")
    return "\n".join(lines)


def withdrawal(value: Value) -> str:
    """`lcia withdraw`."""
    label = f"{value['name']}@{value['version']}"
    again = " again: it had been withdrawn before" if value["known"] else ""
    lines = [f"{label} is withdrawn{again}; {value['erased']} objects ({size(value['bytes'])}) were erased, with "]
    lines[0] += f"{value['zenml_runs']} runs in ZenML and "
    lines[0] += "checkpoints." if value.get("still_there") else "every checkpoint and quarantine report."
    if value["stay"]:
        numbers = ", ".join(map(str, value["stay"]))
        lines.append(
            f"Version(s) {numbers} were tuned on its rows, can't unlearn them and stay, marked; the router still uses "
            "the task's instructions, which stay in these versions (retention.withdrawn_adapters is keep). "
            f"`lcia revert {label}` makes a version without the task."
        )
    others = sorted(set(value["tuned"]) - set(value["stay"]))
    if others:
        numbers = f"Version(s) {', '.join(map(str, others))}, tuned on its rows,"
        fate = "are given up, but NOT ERASED everywhere: see below." if value.get("still_there") else "are erased."
        lines.append(f"{numbers} {fate}")
    if not value["tuned"]:
        lines.append("No version was tuned on its rows.")
    reasons = value.get("why_not_compacted") or dict.fromkeys(value["not_compacted"], "it is in use")
    lines += [f"Freed pages of {file} were not rewritten and may hold its texts: {reasons[file]}." for file in reasons]
    if reasons:
        lines.append("Then run the same command again.")
    lines += _still_there(value)
    lines.append(f"The log has {value['entries']} entries; its signed head is {value['head']}")
    return "\n".join(lines)


def _still_there(value: Value) -> list[str]:
    """Lines about what was to be erased and is still there, and about what MLflow does not know yet."""
    lines = [f"Still there: {line}" for line in value.get("still_there", ())]
    lines += [f"MLflow does not know yet: {line}" for line in value.get("registry_untold", ())]
    if value.get("still_there"):
        lines.append("Mend what it names (`lcia sync` tells MLflow again), then run the same command again.")
    return lines


def size(count: int) -> str:
    """A number of bytes with a readable unit."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= least:
            return f"{count / least:.1f} {unit}"
    return f"{count} bytes"


def _reasons(value: Value, *, texts: bool) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    going = value["going"]  # first the texts, then the other objects
    part = going[: value["erased"]["objects"]] if texts else going[value["erased"]["objects"] :]
    for one in part:
        counts[one["why"]] = counts.get(one["why"], 0) + 1
    return sorted(counts.items())
