"""Texts about trials."""

from collections.abc import Mapping, Sequence
from typing import Any

Value = Mapping[str, Any]
ARMS = ("candidate", "champion")


def trials(value: Value) -> str:
    """`lcia trial`: every trial with its counts and rules, the newest last."""
    if not value["trials"]:
        return "No trial yet; `lcia trial start N --shadow --reason ...` starts one."
    return "\n".join(line for one in value["trials"] for line in trial(one))


def trial(one: Value) -> list[str]:
    """One trial: its state, its counts, and how near its rules are."""
    lines = [f"{_name(one)}: {_state(one)}", f"  asked for by {one['asked_by']}: {one['reason']}"]
    if one["approved_by"]:
        lines.append(f"  approved by {one['approved_by']}: {one['approval']}")
    if one["started_at"] is None:
        return lines
    lines += [f"  {_counts(one, arm)}" for arm in ARMS]
    if one["agreement"] is not None:
        pairs = one["pairs"]
        lines.append(f"  same answer in {pairs['agreed']} of {pairs['compared']} requests ({one['agreement']:.1%})")
    return [*lines, *(f"  {_rule(rule)}" for rule in one["rules"])]


def standing(entries: Sequence[Value]) -> list[str]:
    """Lines of `lcia status` about trials under way or waiting."""
    return [f"  {_name(one)}: {_state(one)}" for one in entries]


def started(one: Value) -> str:
    """`lcia trial start` and `lcia trial approve`."""
    lines = [f"{_name(one)}: {_state(one)}"]
    return "\n".join([*lines, f"  {one['problem']}"] if one["problem"] else lines)


def stopped(one: Value) -> str:
    """`lcia trial stop`."""
    record = f"; its record {one['record'][:12]} belongs to the evidence now" if one["record"] else ""
    void = " Approvals given before count no more." if one["record"] else ""
    return f"{_name(one)}: {_state(one)}{record}.{void}"


def answers(value: Value) -> str:
    """`lcia trial answers`: both answers to each request, below each other."""
    lines = []
    for one in value["answers"]:
        lines += [one["id"], f"  champion:  {one['champion']!r}", f"  candidate: {one['candidate']!r}"]
    until = f", kept until {value['kept_until'][:16]}" if value["kept_until"] else ""
    return "\n".join([*lines, f"{len(value['answers'])} changed answers{until}; this look is in the log"])


def _name(one: Value) -> str:
    return f"trial {one['id']}, {one['kind']} of {one['share']:g} with version {one['number']} ({one['task_name']})"


def _state(one: Value) -> str:
    if one["over"]:
        return f"over, {one['over']}"
    if one["state"] == "waiting":
        return f"waits for approval by somebody else; `lcia trial approve {one['id']}`"
    if one["state"] == "under_way":
        return "under way" if one["signed"] else "under way once its statement is signed"
    return f"ended by {one['ended_by']} ({one['cause']}): {one['why']}"


def _counts(one: Value, arm: str) -> str:
    counts, latency = one["counts"][arm], one["latency"][arm]
    bad = ", ".join(f"{counts[name]} {name.replace('_', '-')}" for name in ("errors", "slow", "none_routed"))
    rated = f", {counts['complaints']} complaints of {counts['rated']} rated" if one["kind"] == "canary" else ""
    times = [f"; {name} {_bound(latency[name])}" for name in ("p50", "p99") if latency["answers"]]
    return f"{arm}: {counts['requests']} requests, {bad}{rated}{''.join(times)}"


def _bound(seconds: float | None) -> str:
    return "over 60 s" if seconds is None else f"at most {seconds:g} s"


def _rule(rule: Value) -> str:
    far = "stopped it" if rule["stopped"] else f"{rule['near']:.0%} of the way to a stop"
    return f"rule {rule['rule']}: {far} (e-value {rule['e']:.3g} of {rule['threshold']:g})"
