"""Verbs about wordings: ways to ask for a learnt task besides the instructions of its rows."""

from typing import Annotated

import typer

from lcia.cli.app import (
    DO,
    As,
    Config,
    Json,
    Set,
    emit,
    group,
    here_only,
    open_instance,
    perform,
    quiet_stdout,
    verb,
)
from lcia.cli.text import wordings as texts

wordings = group(
    "wordings", "List the ways to ask for a task, and those that are proposed; add, accept and decline.", lists=True
)

Task = Annotated[str, typer.Argument(metavar="TASK", help="Name or name@version of a learnt task.")]
Text = Annotated[
    list[str], typer.Argument(metavar="TEXT", help="A way to ask for the task, in quotes; several are one change.")
]
Numbers = Annotated[list[int], typer.Argument(metavar="N", help="Numbers of proposals, as `lcia wordings` lists them.")]
OneTask = Annotated[str | None, typer.Option("--task", metavar="TASK", help="Only those of this task.")]


@wordings.callback(epilog="Examples:\n\n\b\n  lcia wordings\n  lcia wordings --task movie_sentiment")
def list_wordings(
    context: typer.Context, task: OneTask = None, name: As = None, as_json: Json = False, config: Config = None
) -> None:
    """List the ways to ask for the champion's tasks, and the proposals that wait for people.

    The router compares a request with all of them. A change of wordings trains nothing: the worker routes every test
    row of every task again and makes a candidate, which passes the gate and waits for approval like any other.
    """
    if context.invoked_subcommand is None:
        value = perform("wordings", name, config, task=task)
        emit(value, as_json=as_json, text=texts.tasks)


@verb(DO, 'lcia wordings add movie_sentiment "Thumbs up or down?" "Did the critic like it?"', on=wordings)
def add(task: Task, text: Text, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Give a learnt task further wordings. `lcia work` makes a candidate of the change."""
    value = perform("change-wordings", name, config, task=task, add=text)
    emit(value, as_json=as_json, text=texts.change)


@verb(DO, 'lcia wordings remove movie_sentiment "Did the critic like it?"', on=wordings)
def remove(task: Task, text: Text, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Take wordings from a learnt task. The instructions of its rows stay."""
    value = perform("change-wordings", name, config, task=task, remove=text)
    emit(value, as_json=as_json, text=texts.change)


@verb(DO, "lcia wordings propose movie_sentiment", "lcia wordings propose movie_sentiment --count 20", on=wordings)
def propose(
    task: Task,
    count: Annotated[
        int, typer.Option("--count", metavar="N", help="Number of wordings to ask for.", min=1, max=50)
    ] = 10,
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Let a model propose wordings for a learnt task; people accept or decline them.

    The model at proposals.address writes them; without an address the base model does, on this machine. Proposals that
    the router takes for another task are left out.
    """
    here_only("wordings propose")
    from lcia.inference.proposer import propose as write
    from lcia.instance import actor

    instance = open_instance(config, overrides)
    with quiet_stdout(as_json=as_json):
        value = write(instance, actor(name), task, count)
    emit(value, as_json=as_json, text=texts.proposals)


@verb(DO, "lcia wordings accept 3 5 8", on=wordings)
def accept(numbers: Numbers, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Accept proposed wordings, which makes one change for each task. `lcia work` makes candidates of the changes."""
    value = perform("answer-wordings", name, config, numbers=numbers, accept=True)
    emit(value, as_json=as_json, text=texts.answers)


@verb(DO, "lcia wordings decline 4", on=wordings)
def decline(numbers: Numbers, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Decline proposed wordings; they are not proposed again."""
    value = perform("answer-wordings", name, config, numbers=numbers, accept=False)
    emit(value, as_json=as_json, text=texts.answers)
