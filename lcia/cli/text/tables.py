"""Texts of the verbs that list and compare, as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from components.names import version_deed

Value = Mapping[str, Any]

LONGEST = 50
"""Rows that a list shows without --all."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to their widest cell; the last one is left as it is."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if i < len(head) - 1 else cell
            for i, (cell, width) in enumerate(zip(r, widths, strict=True))
        )
        for r in cells
    ]


def left_out(count: int, what: str) -> list[str]:
    """Last line of a shortened list; none if nothing is left out."""
    return [f"... {count} more {what}; --all shows them"] if count else []


def tasks(entries: Sequence[Value], *, everything: bool) -> str:
    """`lcia tasks`: one line per task, the newest last."""
    if not entries:
        return "No task matches."
    newest = entries if everything else entries[-LONGEST:]
    rows = [
        (
            str(one["id"]),
            f"{one['name']}@{one['version']}",
            one["state"],
            one["owner"],
            one["group"] or "-",
            "-" if one["learnt_in"] is None else str(one["learnt_in"]),
            _score(one["score"]),
            _score(one["anchor"]),
            retention(one["retention"]),
            cost_short(one["cost"]),
        )
        for one in newest
    ]
    head = ("item", "task", "state", "owner", "group", "version", "score", "anchor", "retention", "seconds (estimate)")
    return "\n".join([*table(head, rows), *left_out(len(entries) - len(newest), "earlier tasks")])


def retention(value: Value | None) -> str:
    """Rows that an owner allows to be kept, in short."""
    if value is None:
        return "erased"
    allowance = f"{value['train_rows']} train" + (" + test" if value["evaluation_rows"] else ", no test")
    return allowance + (f" until {value['until']}" if value["until"] else "")


def cost_short(value: Value | None) -> str:
    """Seconds that a run took, and its estimate."""
    if value is None:
        return "-"
    return f"{value['actual']['seconds']:.0f} ({value['estimate']['seconds']:.0f})"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def versions(entries: Sequence[Value], *, everything: bool) -> str:
    """`lcia candidates`: one line per version, the newest last."""
    if not entries:
        return "No version matches."
    newest = entries if everything else entries[-LONGEST:]
    rows = [
        (
            str(one["number"]),
            one["digest"][:12],
            one["state"],
            one["verdict"],
            one["task_name"],
            "-" if one["made_on"] is None else str(one["made_on"]),
            str(one["attempt"]),
            ", ".join(map(_decision, one["approvals"])) or "-",
        )
        for one in newest
    ]
    head = ("version", "digest", "state", "gate", "task", "made on", "attempt", "decided by")
    return "\n".join([*table(head, rows), *left_out(len(entries) - len(newest), "earlier versions")])


def _decision(one: Value) -> str:
    verdict = "yes" if one["verdict"] == "approve" else "no"
    void = ", taken back" if one["revoked"] else f", does not count: {one['why_not']}" if one.get("why_not") else ""
    return f"{one['person']}: {verdict}{void}"


def lineage(value: Value) -> str:
    """`lcia lineage`: the line downwards, its branches to the right."""
    lines = []
    for one in value["line"]:
        sign = "*" if one["champion"] else "o"
        marks = f"  [{', '.join(one['marks'])}]" if one["marks"] else ""
        lines.append(f"{sign} version {one['number']} ({one['digest'][:12]}) {version_deed(one['task_name'])}{marks}")
        lines += [
            f"|   epoch {epoch['epoch']}: {epoch['kind']} by {epoch['by']}, {epoch['at'][:16]}: {epoch['reason']}"
            for epoch in one["epochs"]
        ]
        if not one["epochs"]:
            lines.append(f"|   {one['state']}, never champion; gate {one['verdict']}")
        lines += [
            f"|-- version {o['number']} ({o['task_name']}): {o['state']}, gate {o['verdict']}" for o in one["branches"]
        ]
    lines += [
        f"version {o['number']} ({o['task_name']}) starts a line of its own: {o['state']}" for o in value["other_roots"]
    ]
    return "\n".join([*lines, "* is the champion"])


def diff(value: Value) -> str:
    """`lcia diff A B`."""
    before, after = value["before"], value["after"]
    lines = [
        f"version {v['version']} ({v['digest'][:12]}), {v['state']}, {version_deed(v['task'])}" for v in (before, after)
    ]
    for key, number in (("only_before", before["version"]), ("only_after", after["version"])):
        if value["tasks"][key]:
            lines.append(f"tasks only in version {number}: {', '.join(value['tasks'][key])}")
    words = {"same": "same adapter", "changed": "other adapter"}
    words |= {
        "only_before": f"only in version {before['version']}",
        "only_after": f"only in version {after['version']}",
    }
    for group in value["groups"]:
        names = ", ".join(dict.fromkeys([*group["tasks_before"], *group["tasks_after"]]))
        lines.append(f"group {group['id']}: {words[group['adapter']]} ({names})")
    if not value["comparable"]:
        lines.append("the two were evaluated under other numerics (device, precision or libraries): compare with care")
    rows = [
        (
            one["task"],
            _score(one["before"]),
            _score(one["after"]),
            "not measurable" if one["gain"] is None else f"{one['gain']:+.3f}",
            "" if one["interval"] is None else f"[{one['interval'][0]:+.3f}, {one['interval'][1]:+.3f}]",
            "same predictions"
            if one["same_object"]
            else f"{one['lost']} lost, {one['won']} won, {one['reworded']} reworded of {one['rows']}",
        )
        for one in value["scores"]
    ]
    if rows:
        head = ("task", f"v{before['version']}", f"v{after['version']}", "gain", "95 % interval", "test rows")
        lines += table(head, rows)
    for one in value.get("wordings", ()):  # a server of an earlier release says less
        lines += [f"new wording of {one['task']}: {text}" for text in one["added"]]
        lines += [f"wording taken from {one['task']}: {text}" for text in one["removed"]]
    lines += [f"setting {one['key']}: {one['before']} -> {one['after']}" for one in value["settings"]] or [
        "settings: the same"
    ]
    for key, number in (("only_before", before["version"]), ("only_after", after["version"])):
        if value["marks"][key]:
            lines.append(f"marks only of version {number}: {', '.join(value['marks'][key])}")
    return "\n".join(lines)


def entries(log: Sequence[Value]) -> str:
    """`lcia audit show`: one line per entry."""
    if not log:
        return "No entry matches."
    return "\n".join(_entry(one) for one in log)


def _entry(one: Value) -> str:
    subject = one["subject"]
    short = subject[:12] if len(subject) == 64 and set(subject) <= set("0123456789abcdef") else subject
    who = one["actor"]["name"] + ("" if one["actor"]["assured"] else " (asserted)")
    reason = one["details"].get("reason")
    return f"{one['index']:>5}  {one['at'][:19]}Z  {who:<20}  {one['action']:<22}  {short}" + (
        f"  {reason}" if reason else ""
    )
