"""Verbs about what is kept: retention, sweep, withdraw."""

from typing import Annotated

import typer

from components.errors import LciaError
from lcia.cli import completion
from lcia.cli.app import DO, LOOK, As, Config, Json, Reason, Set, emit, perform, quiet_stdout, verb
from lcia.cli.text import retention as texts


class VerbMoved(LciaError):
    """`lcia retention --sweep`, which is `lcia sweep` now."""


@verb(LOOK, "lcia retention", "lcia retention --json")
def retention(
    sweep: Annotated[bool, typer.Option("--sweep", hidden=True)] = False,  # scripts of earlier releases have it
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: Annotated[str | None, typer.Option("--as", hidden=True)] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Show what is kept and why, and what `lcia sweep` would delete. Nothing is changed.

    A text is deleted when its owner's `retention` in task.yaml no longer allows it; any other object when no version,
    decision or open task needs it and retention.grace_hours have passed. Nothing that the champion, a decision or the
    log rests on is deleted.
    """
    if sweep:
        raise VerbMoved(
            "`lcia retention` only looks, --sweep is gone; `lcia sweep` deletes, with the same --set, --as and --config"
        )
    with quiet_stdout(as_json=as_json):
        value = perform("retention", name, config, overrides)
    emit(value, as_json=as_json, text=texts.retention)


@verb(DO, "lcia sweep", "lcia sweep --as ops --json")
def sweep(overrides: Set = [], name: As = None, as_json: Json = False, config: Config = None) -> None:  # noqa: B006
    """Delete what may not or need not be kept any more. `lcia retention` shows it first.

    It may run as often as you like, from a schedule too, but not while a worker is at work. Exits 1 if something is
    still there afterwards or MLflow does not know of it yet.
    """
    with quiet_stdout(as_json=as_json):
        value = perform("sweep", name, config, overrides)
    emit(value, as_json=as_json, text=texts.retention)
    if value.get("exit_code"):
        raise typer.Exit(value["exit_code"])


@verb(
    DO,
    'lcia withdraw movie_sentiment@1 --reason "the owner took the data back"',
    'lcia withdraw 3 --reason "no licence" --set retention.withdrawn_adapters=refuse',
)
def withdraw(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="name@version, a name, or a number that `lcia status` shows.",
            autocompletion=completion.tasks,
        ),
    ],
    reason: Reason,
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Erase a task's rows and every text made from them. The log keeps a record of the withdrawal.

    Weights can't unlearn rows. retention.withdrawn_adapters decides about versions that were tuned on them: `keep`
    marks them; `refuse` erases them, and asks for a rollback first if one of them is the champion.
    """
    with quiet_stdout(as_json=as_json):
        value = perform("withdraw", name, config, overrides, task=task, reason=reason)
    emit(value, as_json=as_json, text=texts.withdrawal)
    if value.get("exit_code"):
        raise typer.Exit(value["exit_code"])
