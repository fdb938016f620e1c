"""Verbs about what is kept: retention and withdrawal."""

from typing import Annotated

import typer

from lcia.cli import completion
from lcia.cli.app import DO, LOOK, As, Config, Json, Reason, Set, emit, perform, quiet_stdout, verb
from lcia.cli.text import retention as keeping_words


@verb(LOOK, "lcia retention", "lcia retention --sweep --as ops", "lcia retention --json")
def retention(
    sweep: Annotated[bool, typer.Option("--sweep", help="Delete it, instead of saying what would go.")] = False,
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """What is kept, why, and what may or need not be kept any more; with --sweep that is deleted.

    Texts go when their owner's retention in task.yaml says so; what no version, decision or open task needs goes after
    retention.grace_hours. Nothing that the champion, a decision or the log rests on is deleted.
    """
    with quiet_stdout(as_json=as_json):
        value = perform("sweep" if sweep else "retention", name, config, overrides)
    emit(value, as_json=as_json, text=keeping_words.retention)
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
            metavar="TASK", help="name@version, a name, or a number of `lcia status`.", autocompletion=completion.tasks
        ),
    ],
    reason: Reason,
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Erase a task's rows and every text made from them; the log keeps a tombstone.

    Weights can't unlearn rows. retention.withdrawn_adapters says what becomes of versions that were tuned on them:
    `keep` marks them, `refuse` erases them and asks for a rollback first where one of them is the champion.
    """
    with quiet_stdout(as_json=as_json):
        value = perform("withdraw", name, config, overrides, task=task, reason=reason)
    emit(value, as_json=as_json, text=keeping_words.withdrawn)
    if value.get("exit_code"):
        raise typer.Exit(value["exit_code"])
