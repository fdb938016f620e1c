"""Verbs by which people decide about versions."""

import re
from collections.abc import Callable
from typing import Annotated, Any

import typer

from lcia.cli import completion
from lcia.cli.app import DO, As, Config, Json, Number, Pending, Reason, Set, emit, perform, quiet_stdout, verb
from lcia.cli.text import decisions

RANGES = re.compile(r"[0-9]{1,6}(-[0-9]{1,6})?(,[0-9]{1,6}(-[0-9]{1,6})?)*")
MOST = 100
"""Versions that one call may name."""


@verb(DO, 'lcia approve 4 --reason "flips read"', 'lcia approve 4-7 --reason "flips of each read" --as ops --json')
def approve(
    version: Pending,
    reason: Reason = "approved",
    override: Annotated[
        bool, typer.Option("--override", help="Approve in spite of the gate; takes several people.")
    ] = False,
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Approve a candidate, or several (4-7 or 4,6): each by its own evidence, the first one first.

    It is promoted once it has every approval the policy requires and the version it was made on is the champion. Exits
    2 if the policy enforces the gate and it is against the candidate, 3 while more approvals or its turn are needed, 1
    if MLflow does not serve it yet; with several, at the first that can't be approved.
    """
    values: list[dict[str, Any]] = []
    for each in several(version):
        if values and not as_json:
            typer.echo(decisions.approval(values[-1]))
        with quiet_stdout(as_json=as_json):
            values.append(perform("approve", name, config, overrides, version=each, reason=reason, override=override))
    answer = dict(values[-1])
    if len(values) > 1:
        answer |= {"versions": values, "exit_code": max(value.get("exit_code", 0) for value in values)}
    _answer(answer, as_json=as_json, text=decisions.approval)


def several(text: str) -> list[str]:
    """The versions that `4`, `4-7` or `4,6` names, in order of their numbers; anything else is one version."""
    if not RANGES.fullmatch(text):
        return [text]
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if last and not int(first) <= int(last) < int(first) + MOST:
            raise typer.BadParameter(f"{part!r} names no versions; expected the lower number first, at most {MOST}")
        numbers |= set(range(int(first), int(last or first) + 1))
    return [str(number) for number in sorted(numbers)]


@verb(DO, 'lcia reject 4 --reason "answers became longer"')
def reject(
    version: Pending,
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Reject a candidate. It can't be approved any more; `lcia retry` learns its task again."""
    with quiet_stdout(as_json=as_json):
        value = perform("reject", name, config, version=version, reason=reason)
    _answer(value, as_json=as_json, text=decisions.rejection)


@verb(DO, 'lcia revoke 4 --reason "read the flips again"', 'lcia revoke 4 --of ann --reason "she left"')
def revoke(
    version: Pending,
    reason: Reason,
    of: Annotated[str | None, typer.Option(metavar="NAME", help="Whose approval; default your own.")] = None,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Take back an approval of a candidate. After its promotion, use `lcia rollback` instead."""
    value = perform("revoke", name, config, version=version, reason=reason, person=of)
    text = f"{value['person']}'s approval of version {value['version']} no longer counts."
    emit(value, as_json=as_json, text=text)


@verb(DO, 'lcia revert movie_sentiment --reason "its rows were wrong"')
def revert(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Name or name@version of a learnt task.")],
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Take a learnt task out again. `lcia work` makes a candidate of it, which passes the gate and waits for approval.

    The task's group becomes what it was before; tasks that the group learnt after it are learnt again without it, from
    the rows that their owners let us keep. All other tasks stay as they are.
    """
    value = perform("revert", name, config, task=task, reason=reason)
    emit(value, as_json=as_json, text=f"Task {value['id']} takes {task} out; `lcia work` makes a candidate of it.")


@verb(DO, 'lcia supersede movie_sentiment@1 movie_sentiment@2 --reason "the site cleaned its rows"')
def supersede(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The earlier task.", autocompletion=completion.tasks)],
    new: Annotated[
        str, typer.Argument(metavar="NEW", help="The task that replaces it.", autocompletion=completion.tasks)
    ],
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Declare that a learnt task replaces an earlier one, which the gate then no longer protects."""
    value = perform("supersede", name, config, old=old, new=new, reason=reason)
    by = value["answers"]["superseded_by"]
    text = f"{value['name']}@{value['version']} is superseded by {by}, from the next candidate on."
    emit(value, as_json=as_json, text=text)


@verb(DO, 'lcia rollback 3 --reason "complaints"')
def rollback(
    version: Number,
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Make an ancestor of the champion the champion again.

    To return to the newer version later, approve it again: approvals from before the rollback don't count. Exits 1 if
    MLflow does not serve the ancestor yet.
    """
    with quiet_stdout(as_json=as_json):
        value = perform("rollback", name, config, version=version, reason=reason)
    again = "already" if value["known"] else "again"
    text = f"Version {value['number']} is the champion {again} (epoch {value['epoch']})."
    _answer(value, as_json=as_json, text=text)


def _answer(value: dict[str, Any], *, as_json: bool, text: str | Callable[[Any], str]) -> None:
    """Print a decision, and whether MLflow knows and serves it; only then the exit code is 0."""

    def answer(fields: dict[str, Any]) -> str:
        return "\n".join([text if isinstance(text, str) else text(fields), *decisions.delivery(fields)])

    emit(value, as_json=as_json, text=answer)
    if value.get("exit_code"):
        raise typer.Exit(value["exit_code"])
