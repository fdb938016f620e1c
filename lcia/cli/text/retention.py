"""What `lcia retention` and `lcia withdraw` say, in words."""

from collections.abc import Mapping
from typing import Any

Value = Mapping[str, Any]


def retention(value: Value) -> str:
    """`lcia retention`: what goes and why, then what stays and why."""
    done = value["swept"]
    verb = "deleted" if done else "would go"
    kept, erased, dropped, leftovers = (value[part] for part in ("kept", "erased", "dropped", "leftovers"))
    lines = []
    for part, words in ((erased, "texts that may not be kept"), (dropped, "objects that nothing needs")):
        lines.append(f"{part['objects']} {words} {verb} ({size(part['bytes'])})")
        lines += [f"  {why}: {count}" for why, count in _reasons(value, erased=part is erased)]
    files, reports = leftovers["files"], value["quarantine"]
    lines.append(f"{files} checkpoint or half-written files {verb} ({size(leftovers['bytes'])})")
    lines.append(f"{reports} old quarantine reports and {value['results']} cached results {verb}")
    if value["registry"]:
        named = ", ".join(map(str, value["registry"]))
        lines.append(f"files of version(s) {named} {'are deleted' if done else 'would go'} in MLflow")
    lines.append(f"{kept['objects']} objects stay ({size(kept['bytes'])})")
    lines += [f"  {one['why']}: {one['objects']} ({size(one['bytes'])})" for one in kept["why"]]
    lines += _still_there(value) if done else []
    if not done and (erased["objects"] or dropped["objects"] or files or reports):
        lines.append("Nothing was deleted; `lcia retention --sweep` does it.")
    return "\n".join(lines)


def withdrawn(value: Value) -> str:
    """`lcia withdraw`."""
    label = f"{value['name']}@{value['version']}"
    again = " again: it had been withdrawn before" if value["known"] else ""
    lines = [f"{label} is withdrawn{again}; {value['erased']} objects ({size(value['bytes'])}) were erased, with "]
    lines[0] += f"{value['zenml_runs']} runs in ZenML and "
    lines[0] += "checkpoints." if value.get("still_there") else "every checkpoint and quarantine report."
    if value["stay"]:
        named = ", ".join(map(str, value["stay"]))
        lines.append(
            f"Version(s) {named} were tuned on its rows, can't unlearn them and stay, marked; the router goes on with "
            "the task's instructions, which stay in these versions (retention.withdrawn_adapters is keep)."
        )
    gone = sorted(set(value["tuned"]) - set(value["stay"]))
    if gone:
        named = f"Version(s) {', '.join(map(str, gone))}, tuned on its rows,"
        proven = (
            "are erased." if not value.get("still_there") else "are given up, but NOT ERASED everywhere: see below."
        )
        lines.append(f"{named} {proven}")
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
    """Lines about what was looked for and found, and about what MLflow was not told."""
    lines = [f"Still there: {line}" for line in value.get("still_there", ())]
    lines += [f"MLflow was not told yet: {line}" for line in value.get("registry_untold", ())]
    if value.get("still_there"):
        lines.append("Mend what it names (`lcia sync` tells MLflow again), then run the same command again.")
    return lines


def size(count: int) -> str:
    """Bytes for people."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= least:
            return f"{count / least:.1f} {unit}"
    return f"{count} bytes"


def _reasons(value: Value, *, erased: bool) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    going = value["going"]
    part = going[: value["erased"]["objects"]] if erased else going[value["erased"]["objects"] :]
    for one in part:
        counts[one["why"]] = counts.get(one["why"], 0) + 1
    return sorted(counts.items())
