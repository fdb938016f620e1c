"""Texts of the verbs by which people decide about versions."""

from collections.abc import Mapping
from typing import Any

Value = Mapping[str, Any]


def approval(value: Value) -> str:
    """`lcia approve`."""
    if value["epoch"] is None and value.get("behind") is not None:
        return (
            f"Version {value['version']} is approved by you; it waits for its turn after version {value['behind']}, "
            "which it was made on."
        )
    if value["epoch"] is None:
        text = f"Version {value['version']} is approved by you; policy.approval.quorum requires more people."
        trial = value.get("trial")
        end = "" if trial is None else f" Its trial {trial} is under way: at its end your approval counts no more."
        return text + end
    if value["known"]:
        return f"Version {value['version']} is the champion already; nothing was changed."
    text = f"Version {value['version']} is the champion (epoch {value['epoch']})."
    for number in value.get("followers", ()):
        text += f"\nVersion {number}, made on it and approved before, is the champion now."
    return text


def rejection(value: Value) -> str:
    """`lcia reject`."""
    lines = [f"Version {value['version']} is rejected."]
    if numbers := value.get("set_aside"):  # a server of an earlier release says less
        names = ", ".join(map(str, numbers))
        lines.append(
            f"Made on it and set aside: {names}. The worker carries them over without it; they need new approvals."
        )
    return "\n".join(lines)


def delivery(value: Value) -> list[str]:
    """Lines below a decision, if MLflow does not know of it yet or does not serve the champion."""
    lines = [f"  not told: {one}" for one in value.get("registry_untold", ())]
    if not value.get("served", True):
        lines.insert(0, "It is decided, but not served: MLflow does not serve the champion yet.")
    elif lines:
        lines.insert(0, "It is decided, but MLflow was not told all of it yet.")
    return [*lines, "Nothing is lost: `lcia sync` delivers it, or says what stands in the way."] if lines else []
