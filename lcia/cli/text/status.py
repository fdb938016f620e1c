"""Text of `lcia status`: champion, queue, candidates, log and MLflow."""

from collections.abc import Mapping, Sequence
from typing import Any

from lcia.cli.text import trials

Value = Mapping[str, Any]

QUIET = frozenset({"promoted", "rejected", "refused", "cancelled", "nothing_to_learn", "withdrawn"})
"""States of tasks in which nothing is left to do."""
LONGEST = 40
MOST_NAMES = 12
"""Tasks that `lcia status` lists, and names it puts in one line, without --all."""


def status(value: Value, *, everything: bool = False) -> str:
    """`lcia status`: all open tasks, of the others only the newest unless `everything`; then candidates and the log."""
    lines = []
    champion = value["champion"]
    if champion is None:
        lines.append(f"{value['assistant']}: no champion yet")
    else:
        serving = "served by MLflow" if champion["served"] == champion["digest"] else "not served by MLflow yet"
        lines.append(
            f"{value['assistant']}: champion is version {champion['version']} ({champion['digest'][:12]}), {serving}"
        )
        lines += [f"  group {group['id']}: {_names(group['tasks'], everything)}" for group in champion["groups"]]
    lines += gateways(value.get("gateways"))  # a server of an earlier release says nothing of them
    lines += trials.standing(value.get("trials", ()))
    items = value["queue"]["items"]
    busy = [item for item in items if item["state"] not in QUIET]
    quiet = [item for item in items if item["state"] in QUIET]
    rest = quiet if everything else quiet[len(quiet) - max(0, LONGEST - len(busy)) :] if len(busy) < LONGEST else []
    waiting = busy if everything else busy[:LONGEST]
    for item in sorted([*rest, *waiting], key=lambda one: int(one["id"])):
        head = f"  task {item['id']} {item['name']}@{item['version']}: {item['state']}; {item['reason']}"
        lines.append(head + _turn(item.get("turn")))
    if len(rest) + len(waiting) < len(items):
        counts = ", ".join(f"{count} {state}" for state, count in value["queue"].items() if state != "items" and count)
        lines.append(
            f"  ... {len(items) - len(rest) - len(waiting)} more of {len(items)} tasks ({counts}); --all shows them"
        )
    if len(train := value.get("train", ())) > 1:  # a server of an earlier release has none
        line = " <- ".join(str(number) for number in train)
        lines.append(
            f"  undecided, each made on the one before: {line}; the next task is learnt on version {train[-1]}"
        )
    for candidate in value["candidates"]:
        if candidate["state"] == "pending":
            lines.append(
                f"  version {candidate['number']} ({candidate['task_name']}) waits for people: gate "
                f"{candidate['verdict']}; `lcia show {candidate['number']}`"
            )
            lines += [f"    {quorum(site)}" for site in candidate.get("quorum", ())]
            lines += [f"    {void(one)}" for one in candidate.get("not_counted", ())]
    head = value["audit"]["head"]
    lines.append(f"  log: {value['audit']['entries']} entries, root {head[:16]}")
    return "\n".join([*lines, *_registry(value["registry"])])


def _turn(turn: Value | None) -> str:
    """Place of a waiting task in the order, and about how long it waits."""
    if turn is None or turn["place"] == 1:
        return ""
    about = "" if turn["seconds"] is None else f", in about {max(1, round(turn['seconds'] / 60))} min"
    return f" ({turn['place'] - 1} before it{about})"


def gateways(value: Value | None) -> list[str]:
    """Lines about gateways: how many serve what was decided, and what the others do; none if there never was one."""
    if not value or not value["replicas"]:
        return []
    if not value["of"]:
        last = max(value["replicas"], key=lambda one: str(one["reported_at"]))
        return [f"  no gateway reports now; {last['replica']} was the last, at {_time(last['reported_at'])}"]
    decided = f"decided {value['decided']['number']}" if value["decided"] else "nothing decided"
    lines = [f"  gateways: {decided}, served by {value['serving']} of {value['of']}"]
    differing = (one for one in value["replicas"] if one["fresh"] and one["differs_since"])
    return [*lines, *(f"    {_answers(one)} since {_time(one['differs_since'])}{_because(one)}" for one in differing)]


def _answers(one: Value) -> str:
    """Words about a gateway that does not serve the decided version."""
    if one["digest"] is None:
        return f"{one['replica']} answers with no version"
    version = f"version {one['number']}" if one["number"] is not None else f"unknown version {one['digest'][:12]}"
    return f"{one['replica']} {'answers with' if one['ready'] else 'is not ready with'} {version}"


def _because(one: Value) -> str:
    return f": {one['problem']}" if one["problem"] else ""


def _time(moment: str) -> str:
    return f"{moment[:16].replace('T', ' ')} UTC"


def _registry(value: Value) -> list[str]:
    """Lines about changes that MLflow does not know or refused, and about a state that was moved or copied."""
    refusals = value.get("parked", ())  # a server of an earlier release says less
    lines = []
    if value.get("moved"):
        lines.append(f"  this state was moved or copied from {value['moved']}; `lcia sync` corrects MLflow's records")
    if value.get("empty") and not value["pending"]:
        lines.append("  MLflow's database is missing or serves nothing; `lcia sync` rebuilds it")
    lines += [f"  {sentence}" for sentence in value.get("links", ())]
    if value["pending"]:
        lines.append(f"  MLflow does not know {value['pending']} change(s) yet; `lcia sync` tells it")
    for row in refusals:
        what = row["kind"] if row["version"] is None else f"{row['kind']} of version {row['version']}"
        lines.append(f"    not taken ({row['attempts']} attempts): {what}: {row['error']}")
    return lines


def _names(names: Sequence[str], everything: bool) -> str:
    """Names in one line; of very many only the last ones."""
    if everything or len(names) <= MOST_NAMES:
        return ", ".join(names)
    return f"{len(names)} tasks, last {', '.join(names[-MOST_NAMES:])}"


def quorum(value: Value) -> str:
    """Approvals at one site: those that count, and those that are missing."""
    names = f" ({', '.join(value['people'])})" if value["people"] else ""
    roles = f"; nobody with the role {', '.join(value['roles_missing'])} yet" if value["roles_missing"] else ""
    return f"{value['given']} of {value['needed']} approvals that count at {value['site']}{names}{roles}"


def void(one: Value) -> str:
    """An approval that does not count, and why."""
    return f"the approval of {one['person']} does not count: {one['why']}"
