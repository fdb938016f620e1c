"""Verbs about what is kept: retention and withdrawal."""

from typing import Annotated

import typer

from lcia.commands.frame import DO, LOOK, As, Config, Json, Reason, Set, app, emit, open_place, quiet_stdout


@app.command(rich_help_panel=LOOK)
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

    Examples:

      lcia retention

      lcia retention --sweep --as ops
    """
    from lcia import keeping, keeping_words
    from lcia.workplace import actor

    with quiet_stdout(as_json=as_json):
        place = open_place(config, overrides)
        value = keeping.clean(place, actor(name)) if sweep else keeping.look(place)
    emit(value, as_json=as_json, text=keeping_words.retention(value))


@app.command(rich_help_panel=DO)
def withdraw(
    task: Annotated[str, typer.Argument(metavar="TASK", help="name@version, a name, or a number of `lcia status`.")],
    reason: Reason,
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Erase a task's rows and every text made from them; the log keeps a tombstone.

    Weights can't unlearn rows. retention.withdrawn_adapters says what becomes of versions that were tuned on them:
    `keep` marks them, `refuse` erases them and asks for a rollback first where one of them is the champion.

    Examples:

      lcia withdraw movie_sentiment@1 --reason "the owner took the data back"

      lcia withdraw 3 --reason "no licence" --set retention.withdrawn_adapters=refuse
    """
    from lcia import keeping, keeping_words
    from lcia.workplace import actor

    with quiet_stdout(as_json=as_json):
        value = keeping.withdraw(open_place(config, overrides), task, actor(name), reason)
    emit(value, as_json=as_json, text=keeping_words.withdrawn(value))
